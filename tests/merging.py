# SPDX-License-Identifier: Apache-2.0
"""Partial results of random attention, and what their merge has to be, in float64."""

import dataclasses

import ml_dtypes
import numpy as np

DTYPES = {"bf16": ml_dtypes.bfloat16, "f16": np.float16, "f32": np.float32}
# Rounding of the output, and of exponentials of about 2 units in the last place.
TOLERANCE = {"bf16": 2.01 / 256, "f16": 1.01 / 2048, "f32": 2e-6}


@dataclasses.dataclass
class Problem:
    """Partial results of random attention; everything that must not be read holds NaN."""

    lengths: list[int]
    q_len: int = 1
    heads: int = 4
    head_stride: int = 4
    group_rows: int = 16
    groups: int = 1
    splits: int = 3
    kv_block: int = 16
    latent_dim: int = 512
    parts: list[int] | None = None  # of each (sequence, group), in persistent mode
    scale: float | None = None
    capacity: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        batch = len(self.lengths)
        if self.parts is None:
            shape = (self.groups * batch, self.q_len, self.splits, self.group_rows)
            self.reduce_indptr = None
        else:
            self.reduce_indptr = np.concatenate([[0], np.cumsum(self.parts)]).astype(np.int32)
            shape = (int(self.reduce_indptr[-1]) + 2, self.q_len, 1, self.group_rows)
        self.partial = random.standard_normal((*shape, self.latent_dim)).astype(np.float32)
        self.lse = (4 * random.standard_normal(shape)).astype(np.float32)
        used = np.zeros(shape, bool)
        for index in self.rows():
            used[index] = True
        self.partial[~used] = np.nan
        self.lse[~used] = np.nan

    def seen(self, sequence: int, query: int) -> int:
        length = min(max(self.lengths[sequence], 0), self.capacity)
        return length - self.q_len + query + 1

    def of(self, sequence: int, query: int, head: int) -> list[tuple[int, int, int, int]]:
        """Indices of the partial results of one output row."""
        group, row = divmod(head * self.head_stride, self.group_rows)
        seen = self.seen(sequence, query)
        if seen <= 0:
            return []
        if self.reduce_indptr is not None:
            job = sequence * self.groups + group
            works = range(self.reduce_indptr[job], self.reduce_indptr[job + 1])
            return [(work, query, 0, row) for work in works]
        lane = group * len(self.lengths) + sequence
        return [(lane, query, s, row) for s in range(self.splits) if s * self.kv_block < seen]

    def rows(self) -> list[tuple[int, int, int, int]]:
        return [
            index
            for sequence in range(len(self.lengths))
            for query in range(self.q_len)
            for head in range(self.heads)
            for index in self.of(sequence, query, head)
        ]

    def expected(self) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(self.lengths), self.q_len, self.heads)
        out, lse = np.zeros((*shape, self.latent_dim)), np.full(shape, -np.inf)
        for at in np.ndindex(shape):
            indices = [i for i in self.of(*at) if self.lse[i] > -np.inf]
            if not indices:
                continue
            scores = np.array([self.lse[i] for i in indices], np.float64)
            values = np.array([self.partial[i] for i in indices], np.float64)
            weights = np.exp(scores - scores.max())
            out[at] = weights @ values / weights.sum() * (self.scale or 1.0)
            lse[at] = scores.max() + np.log(weights.sum())
        return out, lse

    def check(self, out: np.ndarray, lse: np.ndarray, dtype: str) -> None:
        """Holds out, of `dtype`, and lse against float64."""
        expected_out, expected_lse = self.expected()
        empty = np.isneginf(expected_lse)
        np.testing.assert_array_equal(np.isneginf(lse), empty)
        np.testing.assert_allclose(lse[~empty], expected_lse[~empty], atol=1e-5, rtol=1e-6)
        got = out.astype(np.float64)
        assert not got[empty].any()
        largest = np.abs(expected_out).max(axis=-1, keepdims=True, initial=0.0)
        bound = TOLERANCE[dtype] * np.abs(expected_out) + 3e-6 * largest
        assert (np.abs(got - expected_out) <= bound).all()
