"""Ctrl-C during fits: it ends the fit soon, is not swallowed, and leaves an estimator that can be fitted again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Interrupts of each kind of fit.
_N_INTERRUPTS = 20

_CODE = """
import os, signal, sys, threading, time, warnings
import numpy as np, scipy.sparse as sp
from sksoftmax import SoftmaxClassifier
from sksoftmax._engines.registry import has_compiled

signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
warnings.simplefilter("ignore")
kind, n_interrupts = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(0)
n_classes = 2 if kind == "binary" else 6
if kind == "dense":
    X = rng.standard_normal((6000, 400))
else:
    X = sp.csr_array(sp.random(6000, 2000, 0.02, "csr", random_state=0))
truth = X[:, :n_classes] @ rng.normal(scale=20, size=(n_classes, n_classes))
y = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
params = {"l1": {"l1_ratio": 1.0}, "minibatches": {"batch_size": 64}}.get(kind, {})
clf = SoftmaxClassifier(1e-4, tol=1e-6, random_state=0, **params)
start = time.perf_counter()
coef = clf.fit(X, y).coef_
seconds = time.perf_counter() - start
n_raised = 0
for _ in range(n_interrupts):
    clf, sent = SoftmaxClassifier(**clf.get_params()), []
    def interrupt(delay=rng.uniform(0, 0.9 * seconds)):
        time.sleep(delay)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    thread.start()
    end = None
    try:
        clf.fit(X, y)
        end = time.perf_counter()
        thread.join()
        time.sleep(1)  # a fit that was quicker: the interrupt comes here
    except KeyboardInterrupt:
        late = time.perf_counter() - sent[0]
        if end is None:
            n_raised += 1
            assert late < 1.0, late  # 0.2 s on a quiet machine
            assert not hasattr(clf, "coef_")
    else:
        raise AssertionError("swallowed")
    thread.join()
assert (clf.fit(X, y).coef_ == coef).all()
assert [t for t in threading.enumerate() if t.name.startswith("sksoftmax")] == []
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print(n_raised)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs os.kill with SIGINT")
@pytest.mark.parametrize("kind", ["dense", "minibatches", "sparse", "l1", "binary"])
def test_ctrl_c_ends_a_fit_soon(kind):
    told = subprocess.run(
        [sys.executable, "-c", _CODE, kind, str(_N_INTERRUPTS)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) > _N_INTERRUPTS / 2
