# SPDX-License-Identifier: Apache-2.0
"""The merge kernel against NumPy in float64, on emulated AMD GPUs and an NVIDIA one."""

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gpu import AMD, DEVICES, Launch, pack, run_on

THREADS = 128
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


def run(problem: Problem, device: str, dtype: str = "f32") -> tuple[np.ndarray, np.ndarray, Any]:
    shape = (len(problem.lengths), problem.q_len, problem.heads)
    guard = 64  # elements after each result, which must stay as they are
    out = np.full(int(np.prod(shape)) * problem.latent_dim + guard, -77.0).astype(DTYPES[dtype])
    lse = np.full(int(np.prod(shape)) + guard, -77.0, np.float32)
    arrays = {
        "partial": problem.partial,
        "partial_lse": problem.lse,
        "lengths": np.array(problem.lengths, np.int32),
        "out": out,
        "lse": lse,
    }
    if problem.reduce_indptr is not None:
        arrays["reduce_indptr"] = problem.reduce_indptr
    if problem.scale is not None:
        arrays["out_scale"] = np.array([problem.scale], np.float32)
    for name, array in arrays.items():
        array.flags.writeable = name in ("out", "lse")
    names = ("partial", "partial_lse", "lengths", "reduce_indptr", "out_scale", "out", "lse")
    numbers = (
        len(problem.lengths), problem.q_len, problem.heads, problem.head_stride,
        problem.group_rows, problem.groups, problem.splits, problem.kv_block, problem.capacity,
        problem.latent_dim,
    )  # fmt: skip
    launch = Launch(
        source="merge",
        kernel=f"jax_mla_merge_{dtype}",
        grid=(problem.heads, problem.q_len, len(problem.lengths)),
        threads=THREADS,
        arrays=arrays,
        arguments=lambda at: pack([*(("P", at.get(name, 0)) for name in names), *numbers]),
    )
    counters = run_on(device, launch)
    assert (out[-guard:].astype(np.float32) == -77).all() and (lse[-guard:] == -77).all()
    out = out[:-guard].reshape(*shape, problem.latent_dim)
    return out, lse[:-guard].reshape(shape), counters


def check(problem: Problem, device: str, dtype: str = "f32") -> Any:
    out, lse, counters = run(problem, device, dtype)
    expected_out, expected_lse = problem.expected()
    empty = np.isneginf(expected_lse)
    np.testing.assert_array_equal(np.isneginf(lse), empty)
    np.testing.assert_allclose(lse[~empty], expected_lse[~empty], atol=1e-5, rtol=1e-6)
    got = out.astype(np.float64)
    assert not got[empty].any()
    bound = TOLERANCE[dtype] * np.abs(expected_out) + 3e-6 * np.abs(expected_out).max(
        axis=-1, keepdims=True, initial=0.0
    )
    assert (np.abs(got - expected_out) <= bound).all()
    return counters


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("splits", [1, 2, 3, 5, 17, 32, 55, 97, 133])
def test_splits(splits: int, device: str) -> None:
    """Sequences without keys, with fewer blocks than splits, and with more."""
    check(Problem([0, 1, 16, 17, 40, 4096], splits=splits, seed=splits), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype: str, device: str) -> None:
    check(Problem([100, 3], splits=5, scale=0.37), device, dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_part_is_rounded_to_nearest_even(dtype: str, device: str) -> None:
    """Its weight is exactly 1, so every bit is known; ties, subnormals and infinity among them."""
    problem = Problem([16], heads=1, head_stride=16, splits=1)
    edges = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-9, 1 + 2**-11, 1 + 3 * 2**-11, 65520.0, 65519.9]
    edges += [2**-24, 2**-25, 3 * 2**-25, 2**-130, 3.3961776e38, np.inf]
    problem.partial[0, 0, 0, 0, : len(edges)] = edges
    if dtype == "f16":
        problem.partial[0, 0, 0, 0] = np.clip(problem.partial[0, 0, 0, 0], -1e6, 1e6)
    out, lse, _ = run(problem, device, dtype)
    with np.errstate(over="ignore"):
        expected = problem.partial[0, 0, 0, 0].astype(DTYPES[dtype])
    bits = np.dtype(f"uint{8 * expected.dtype.itemsize}")
    np.testing.assert_array_equal(out[0, 0, 0].view(bits), expected.view(bits))
    assert lse[0, 0, 0] == problem.lse[0, 0, 0, 0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("heads", "stride", "rows", "groups"),
    [(1, 16, 16, 1), (3, 1, 16, 1), (8, 2, 16, 1), (16, 1, 16, 1), (20, 1, 16, 2), (5, 1, 5, 1)],
)
def test_head_plans(heads: int, stride: int, rows: int, groups: int, device: str) -> None:
    problem = Problem(
        [50, 9], heads=heads, head_stride=stride, group_rows=rows, groups=groups, splits=4
    )
    check(problem, device)


@pytest.mark.parametrize("device", DEVICES)
def test_queries_see_no_more_than_their_keys(device: str) -> None:
    """A split that holds only keys which a query does not see has nothing for it."""
    check(Problem([2, 17, 33, 100], q_len=4, splits=3), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("groups", [1, 2])
def test_persistent(groups: int, device: str) -> None:
    """Works in order of sequences and groups; 304 of one sequence; none of an empty one."""
    parts = [parts for parts in (304, 0, 1, 2) for _ in range(groups)]
    lengths = [4096, 0, 2, 50]
    check(
        Problem(lengths, q_len=3, heads=16 * groups, head_stride=1, groups=groups, parts=parts),
        device,
    )


@pytest.mark.parametrize("device", DEVICES)
def test_empty_parts_weigh_nothing(device: str) -> None:
    """Parts with a log-sum-exp of -inf, whatever their output holds."""
    problem = Problem([100, 100], splits=5)
    problem.lse[0, :, ::2] = -np.inf
    problem.partial[0, :, ::2] = np.nan
    problem.lse[1] = -np.inf
    check(problem, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("part", [0, 2, 4])
def test_nan_comes_out(part: int, device: str) -> None:
    """Of a cache or queries that hold it: in the rows that it belongs to, and in no other."""
    problem = Problem([100, 100, 16], splits=5)
    problem.lse[0, :, part] = np.nan
    problem.lse[2, :, 0] = np.nan  # the only part there is
    out, lse, _ = run(problem, device)
    assert np.isnan(out[[0, 2]]).all() and np.isnan(lse[[0, 2]]).all()
    assert np.isfinite(out[1]).all() and np.isfinite(lse[1]).all()


@pytest.mark.parametrize("device", DEVICES)
def test_lengths_are_clamped(device: str) -> None:
    check(Problem([-5, 2**31 - 1, 10**6], capacity=40, splits=4), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("latent_dim", [256, 64])
def test_narrow_latents(latent_dim: int, device: str) -> None:
    check(Problem([40, 7], latent_dim=latent_dim), device)


@pytest.mark.parametrize("device", DEVICES)
def test_far_apart_and_large_scores(device: str) -> None:
    problem = Problem([400], splits=4)
    problem.lse += np.array([300.0, -300.0, 80.0, 299.0], np.float32)[:, None]
    check(problem, device)


@pytest.mark.parametrize("device", AMD)
def test_each_byte_is_moved_once(device: str) -> None:
    problem = Problem([100, 20, 0], heads=4, splits=5)
    counters = check(problem, device)
    used = len(problem.rows())
    traffic = counters.traffic
    rows = 3 * 4
    assert traffic["partial"].read_total == traffic["partial"].read_distinct == used * 512 * 4
    assert traffic["partial_lse"].read_total == used * 4
    assert traffic["out"].written_total == rows * 512 * 4
    assert traffic["lse"].written_total == rows * 4
