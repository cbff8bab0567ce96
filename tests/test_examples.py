"""Every example runs, and says what it should."""

import re
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

FOLDER = Path(__file__).parent.parent / "examples"

#: A pattern of what each prints, and how many figures it shows.
SAYS = {
    "npz_files": (r"accuracy 1\.000, tol", 0),
    "parquet": (r"accuracy 1\.000, tol", 0),
    "text_files": (r"\['english' 'french' 'german'\]", 0),
    "plot_first_steps": (r"tol: F within \de-\d\d, relative, of its minimum", 1),
    "plot_digits_templates": (r"alpha=0\.001 +accuracy on new images 0\.9[5-9]", 2),
    "plot_text_words": (r"accuracy 0\.9\d\na guess +0\.[0-4]", 1),
    "plot_linear_probe": (r"pixels: accuracy 0\.9[67].* ended by tol", 2),
    "plot_sweep": (r"accuracy 0\.9[5-9]", 1),
    "plot_one_vs_rest": (r"softmax +log loss 0\.1.*\none-vs-rest +log loss 0\.[23]", 1),
    "plot_gradient_check": (
        r"(?s)1\. .*True.*2\. .*True.*3\. .*True.*4\. .*True.*5\. .*True\nvectorized +\d\.\de-0[5-9]",
        1,
    ),
}


def test_every_example_is_here():
    assert sorted(SAYS) == sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", SAYS)
def test_the_example_says_and_shows_what_it_should(name, capsys, monkeypatch):
    shown = []

    def show():
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
            shown.append(number)
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    plt.switch_backend("agg")
    plt.close("all")  # what other tests have left
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    pattern, n_figures = SAYS[name]
    assert re.search(pattern, capsys.readouterr().out)
    assert len(shown) == n_figures
