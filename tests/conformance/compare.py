# SPDX-License-Identifier: Apache-2.0
"""Holds what a kernel was observed to do against the vector of the one it stands in for.

Sums are made in another order, so float32 differs in its last bits; and a weight that lies between
two bf16 or fp8 values may then be rounded to the other one, which is rare. Outputs in bf16 fall to
the other side themselves.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from conformance.cases import Case

FLOAT32 = 1e-5  # relative to 1 or the value, whichever is larger
ROUNDED = 2e-4  # the same, where a weight was rounded to the other side
SHARE_ROUNDED = 0.02  # of the values of a vector
BF16, BF16_PROJECTION = 1 / 128, 1e-3


@dataclasses.dataclass
class Comparison:
    """Of the values of a vector: what is wrong, how many differ by a rounding, of how many."""

    wrong: list[str] = dataclasses.field(default_factory=list)
    rounded: int = 0
    values: int = 0

    def add(self, case: Case, want: Any, got: Any) -> None:
        """`want` and `got` are observations of the case."""
        if isinstance(want, str) or isinstance(got, str):
            if want != got:
                self.wrong.append(f"{case.name}: expected {_short(want)}, got {_short(got)}")
            return
        for out in want:
            for rows in ("out", "lse"):
                if want[out][rows] != got[out][rows]:
                    self.wrong.append(
                        f"{case.name}: {out}, rows of {rows} that are written: expected "
                        f"{want[out][rows]}, got {got[out][rows]}"
                    )
            for place, expected, found in _pairs(want[out]["values"], got[out]["values"]):
                if not self._agree(expected, found, case.in_bf16(out)):
                    self.wrong.append(
                        f"{case.name}: {out} {place}: expected {expected}, got {found}"
                    )

    @property
    def conforms(self) -> bool:
        return not self.wrong and self.rounded <= 1 + SHARE_ROUNDED * self.values

    def _agree(self, expected: str, found: str, bf16: bool) -> bool:
        pairs = list(zip(expected.split(), found.split(), strict=True))
        sample, projection, *lse = pairs
        if bf16:
            return (
                _close(*sample, relative=BF16)
                and _close(*projection, absolute=BF16_PROJECTION)
                and all(map(self._close_float32, lse))
            )
        return all(map(self._close_float32, pairs))

    def _close_float32(self, pair: tuple[str, str]) -> bool:
        self.values += 1
        if _close(*pair, absolute=FLOAT32, relative=FLOAT32):
            return True
        self.rounded += 1
        return _close(*pair, absolute=ROUNDED, relative=ROUNDED)


def _close(expected: str, found: str, absolute: float = 0.0, relative: float = 0.0) -> bool:
    """Numbers within bounds; words, NaN and infinities must be the same."""
    if expected == found:
        return True
    try:
        x, y = float(expected), float(found)
    except ValueError:
        return False
    return math.isclose(x, y, rel_tol=0, abs_tol=max(absolute, relative * abs(x)))


def _pairs(want: dict[str, str], got: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Value by place; the places are the same if the rows that are written are."""
    for place in want:
        if place in got:
            yield place, want[place], got[place]


def _short(observation: Any) -> str:
    return observation if isinstance(observation, str) else "results"
