"""Benchmarks, one script a question. BLAS threads are pinned here, before anything imports NumPy."""

import os

#: Threads of every fit, ours and the rivals'.
N_THREADS = int(os.environ.get("SKSOFTMAX_BENCH_THREADS", "1"))

for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "BLIS_NUM_THREADS"):
    os.environ[_variable] = str(N_THREADS)
