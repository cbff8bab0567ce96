"""Every example runs, and says what it should."""

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"

SAYS = {
    "npz_files": "accuracy 1.000, tol",
    "parquet": "accuracy 1.000, tol",
    "text_files": "['english' 'french' 'german']",
}


def test_every_example_is_here():
    assert sorted(SAYS) == sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", SAYS)
def test_the_example_says_what_it_should(name, capsys):
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert SAYS[name] in capsys.readouterr().out
