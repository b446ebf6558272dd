# SPDX-License-Identifier: Apache-2.0
"""The merge kernel against NumPy in float64, on emulated AMD GPUs and an NVIDIA one."""

from typing import Any

import numpy as np
import pytest
from gpu import AMD, DEVICES, Launch, pack, run_on
from merging import DTYPES, Problem

THREADS = {"": 128, "_many": 512}  # of the kernels for few parts of a row and for many


def run(problem: Problem, device: str, dtype: str, kind: str) -> tuple[np.ndarray, np.ndarray, Any]:
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
        0, 0, 0,  # not of our own kernels
    )  # fmt: skip
    launch = Launch(
        source="merge",
        kernel=f"jax_mla_merge_{dtype}{kind}",
        grid=(problem.heads, problem.q_len, len(problem.lengths)),
        threads=THREADS[kind],
        arrays=arrays,
        arguments=lambda at: pack([*(("P", at.get(name, 0)) for name in names), *numbers]),
    )
    counters = run_on(device, launch)
    assert (out[-guard:].astype(np.float32) == -77).all() and (lse[-guard:] == -77).all()
    out = out[:-guard].reshape(*shape, problem.latent_dim)
    return out, lse[:-guard].reshape(shape), counters


def check(problem: Problem, device: str, dtype: str = "f32") -> Any:
    for kind in THREADS:
        out, lse, counters = run(problem, device, dtype, kind)
        problem.check(out, lse, dtype)
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
@pytest.mark.parametrize("kind", THREADS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_part_is_rounded_to_nearest_even(dtype: str, kind: str, device: str) -> None:
    """Its weight is exactly 1, so every bit is known; ties, subnormals and infinity among them."""
    problem = Problem([16], heads=1, head_stride=16, splits=1)
    edges = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-9, 1 + 2**-11, 1 + 3 * 2**-11, 65520.0, 65519.9]
    edges += [2**-24, 2**-25, 3 * 2**-25, 2**-130, 3.3961776e38, np.inf]
    problem.partial[0, 0, 0, 0, : len(edges)] = edges
    if dtype == "f16":
        problem.partial[0, 0, 0, 0] = np.clip(problem.partial[0, 0, 0, 0], -1e6, 1e6)
    out, lse, _ = run(problem, device, dtype, kind)
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
@pytest.mark.parametrize("kind", THREADS)
@pytest.mark.parametrize("part", [0, 2, 4, 39])
def test_nan_comes_out(part: int, kind: str, device: str) -> None:
    """Of a cache or queries that hold it: in the rows that it belongs to, and in no other."""
    problem = Problem([640, 640, 16], splits=40)
    problem.lse[0, :, part] = np.nan
    problem.lse[2, :, 0] = np.nan  # the only part there is
    out, lse, _ = run(problem, device, "f32", kind)
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
