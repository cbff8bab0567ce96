"""Who watches a fit: a line an epoch on the screen."""

from __future__ import annotations

import math
import time

from sksoftmax._fit import SILENT
from sksoftmax._train import Epoch, Watch


def printing(n_rows: int) -> Watch:
    """Prints a line an epoch, with the seconds since now, and the rows a second of the epoch."""
    began = epoch_began = time.perf_counter()

    def begins() -> None:
        nonlocal epoch_began
        epoch_began = time.perf_counter()

    def ends(epoch: Epoch) -> bool:
        now = time.perf_counter()
        excess = f"{epoch.excess:.1e}" if math.isfinite(epoch.excess) else "-"
        validation = "" if epoch.score is None else f"  validation {epoch.score:.4f}"
        rate = n_rows / max(now - epoch_began, 1e-9)
        print(
            f"epoch {epoch.number:4d}  F {epoch.value:.6e}  excess {excess:>7}{validation}  {now - began:.2f} s  "
            f"{rate:.1e} rows/s"
        )
        return False

    return Watch(begins, ends)


def of_all(watches: list[Watch]) -> Watch:
    """All of them are told."""
    if not watches:
        return SILENT

    def begins() -> None:
        for watch in watches:
            watch.begins()

    def ends(epoch: Epoch) -> bool:
        asked = [watch.ends(epoch) for watch in watches]
        return any(asked)

    return Watch(begins, ends)
