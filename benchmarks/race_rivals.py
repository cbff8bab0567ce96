"""All rivals of the race, ours first."""

from benchmarks.rivals import OURS, SKLEARN, Rival
from benchmarks.rivals_elsewhere import ELSEWHERE

RACE_RIVALS: list[Rival] = [OURS, *SKLEARN, *ELSEWHERE]
