"""What does ``import sksoftmax`` take, beyond scikit-learn's own ``linear_model``? And the first fit of a process?

``python -m benchmarks.bench_import`` starts Python again and again, with byte code written before, as an installed
package has it, and prints the seconds of both imports, of which the second is to be below 50 ms, and of the first and
the second of two equal fits to sparse rows; it writes ``import.csv``. ``--quick`` starts it less often.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import report
from benchmarks.timing import machine

#: Seconds that the package's import may take.
LIMIT = 0.05

_CODE = """
import time
start = time.perf_counter()
import sklearn.linear_model
between = time.perf_counter()
import sksoftmax
imported = time.perf_counter()
import numpy as np
import scipy.sparse as sp
X = sp.csr_array(sp.random(4000, 3000, 0.02, "csr", dtype=np.float32, random_state=0))
y = np.arange(4000) % 5
fits = []
for _ in range(2):
    before = time.perf_counter()
    sksoftmax.SoftmaxClassifier(1e-3, random_state=0).fit(X, y)
    fits.append(time.perf_counter() - before)
print(between - start, imported - between, *fits)
"""

_WHAT = ("import of sklearn.linear_model", "import of sksoftmax", "first fit", "second fit")


def seconds(n_starts: int) -> list[list[float]]:
    """The seconds of ``_WHAT`` for each start; one start before writes byte code."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        settings.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-c", _CODE]
        told = [
            subprocess.run(command, env=settings, capture_output=True, text=True, check=True).stdout
            for _ in range(1 + n_starts)
        ]
    return [[float(part) for part in line.split()] for line in told[1:]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_import", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 starts only")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file")
    options = parser.parse_args(arguments)
    columns = np.transpose(seconds(5 if options.quick else 30))
    rows = [
        {
            "what": name,
            "starts": str(len(taken)),
            **{"median_s": f"{np.median(taken):.4f}", "least_s": f"{min(taken):.4f}", "most_s": f"{max(taken):.4f}"},
        }
        for name, taken in zip(_WHAT, columns, strict=True)
    ]
    report.write_csv(options.output / "import.csv", [{**machine(), **row} for row in rows])
    print(report.text_table(rows))
    verdict = "below" if np.median(columns[1]) < LIMIT else "ABOVE"
    print(f"the import of sksoftmax is {verdict} {LIMIT * 1e3:.0f} ms; wrote {options.output / 'import.csv'}")


if __name__ == "__main__":
    main()
