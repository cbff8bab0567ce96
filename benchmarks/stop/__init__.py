"""Parts of ``bench_stop``: the problems, their fits, and the reference F*."""
