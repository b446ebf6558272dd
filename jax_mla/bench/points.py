# SPDX-License-Identifier: Apache-2.0
"""What is timed: points of a sweep, and the goals that some of them have."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, LATENT = 576, 512
SCALE = 192**-0.5
LENGTHS = ("equal", "uniform")
_KV_BYTES = {"bf16": 2, "bf16-fp8": 1, "fp8": 1}  # of a number in the cache


@dataclasses.dataclass(frozen=True)
class Point:
    """A call of decode.

    Attributes:
      batch: sequences.
      tokens: of a sequence, on average.
      heads: query heads.
      dtypes: of q and the cache, as in `explain`.
      page_size: tokens of a page.
      q_len: query tokens of a sequence.
      lengths: "equal", or "uniform" in 1 to 2 * tokens - 1.
    """

    batch: int
    tokens: int
    heads: int
    dtypes: str = "bf16"
    page_size: int = 64
    q_len: int = 1
    lengths: str = "equal"

    def __str__(self) -> str:
        return (
            f"{self.batch} x {self.tokens}, {self.heads} heads, {self.dtypes}, pages of "
            f"{self.page_size}, q_len {self.q_len}, {self.lengths} lengths"
        )

    @property
    def sequence_lengths(self) -> np.ndarray:
        """int32 `[batch]`, of the same sum whatever `lengths` is: uniform ones come in pairs."""
        lengths = np.full(self.batch, self.tokens, np.int32)
        if self.lengths == "uniform":
            half = self.batch // 2
            lengths[:half] = np.random.default_rng(0).integers(1, 2 * self.tokens, half)
            lengths[half : 2 * half] = 2 * self.tokens - lengths[:half]
        return lengths

    @property
    def pages_per_seq(self) -> int:
        """Of the page table: what the longest possible sequence needs."""
        longest = self.tokens if self.lengths == "equal" else 2 * self.tokens - 1
        return -(-longest // self.page_size)

    @property
    def pages(self) -> int:
        """That the sequences have together."""
        return int((-(-self.sequence_lengths // self.page_size)).sum())

    @property
    def kv_bytes(self) -> int:
        """Of the sequences' tokens, which decode has to read."""
        return self.batch * self.tokens * WIDTH * _KV_BYTES[self.dtypes]

    def page_table(self, pages: np.ndarray) -> np.ndarray:
        """int32 `[batch, pages_per_seq]`: `self.pages` pages in order; 0 beyond a sequence."""
        table = np.zeros((self.batch, self.pages_per_seq), np.int32)
        used = np.arange(self.pages_per_seq) < -(-self.sequence_lengths[:, None] // self.page_size)
        table[used] = pages
        return table


@functools.cache
def goals() -> dict[str, Any]:
    """benchmarks/goals.json, from beside this file once installed."""
    here = Path(__file__).parent
    source = here.parent.parent / "benchmarks"
    folder = here if (here / "goals.json").exists() else source
    loaded: dict[str, Any] = json.loads((folder / "goals.json").read_text())
    return loaded


def goal(point: Point, device_kind: str) -> dict[str, float]:
    """What goals.json holds for a point on that GPU, microseconds by name; nothing elsewhere."""
    table = goals()
    same = all(getattr(point, name) == table[name] for name in ("dtypes", "page_size", "q_len"))
    if device_kind != table["device_kind"] or not same or point.lengths != "equal":
        return {}
    for row in table["points"]:
        if (row["batch"], row["tokens"]) == (point.batch, point.tokens):
            cells = {k: v for k, v in row.items() if k not in ("batch", "tokens")}
            picked = {k: v if k == "read" else v.get(str(point.heads)) for k, v in cells.items()}
            return {k: v for k, v in picked.items() if v is not None}
    return {}


def sweep(
    batch: Sequence[int] | None = None,
    tokens: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    dtypes: Sequence[str] = ("bf16",),
    page_size: Sequence[int] = (64,),
    q_len: Sequence[int] = (1,),
    lengths: Sequence[str] = ("equal",),
) -> list[Point]:
    """All combinations; of batch and tokens those of goals.json where neither is given.

    Where one of the two is given, the other takes the values that it has in goals.json.
    """
    rows = goals()["points"]
    if batch is None and tokens is None:
        shapes = [(row["batch"], row["tokens"]) for row in rows]
    else:
        batch = batch or sorted({row["batch"] for row in rows})
        tokens = tokens or sorted({row["tokens"] for row in rows})
        shapes = list(itertools.product(batch, tokens))
    heads = heads or goals()["heads"]
    return [
        Point(b, t, h, d, p, q, kind)
        for (b, t), p, kind, d, q, h in itertools.product(
            shapes, page_size, lengths, dtypes, q_len, heads
        )
    ]
