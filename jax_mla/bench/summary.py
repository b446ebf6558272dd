# SPDX-License-Identifier: Apache-2.0
"""The statistics of repeated times."""

import dataclasses
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Summary:
    """Repeated times of one call, in microseconds.

    Attributes:
      median: of the repetitions.
      low: their lower quartile.
      high: their upper quartile.
      calls: how many calls were timed.
    """

    median: float
    low: float
    high: float
    calls: int

    @property
    def spread(self) -> float:
        """Between the quartiles."""
        return self.high - self.low


def summarize(seconds: Sequence[float], calls_each: int = 1) -> Summary:
    """Of times in seconds, each of which is the mean of `calls_each` calls."""
    times = [1e6 * t for t in seconds]
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return Summary(median, low, high, len(times) * calls_each)


def faster(a: Summary, b: Summary) -> bool:
    """Whether a is: by more than both spreads."""
    return b.median - a.median > max(a.spread, b.spread)
