# SPDX-License-Identifier: Apache-2.0
"""Atomic operations on global memory and LDS, contended and returning, against the host."""

import re

import ml_dtypes
import numpy as np
import pytest
from witness import (
    KERNELS,
    TYPES,
    assert_same,
    needs_compiler,
    on_archs,
    on_levels,
    poisoned,
    run,
    run_on_host,
)

pytestmark = needs_compiler

GRID, COUNT = 3, 3 * 256
SOURCE = (KERNELS / "atomics.hip").read_text()
INTEGERS = re.findall(r"^  ATOMIC\((\w+)##suffix", SOURCE, re.M)
OPERATIONS = [f"{name}{kind}" for kind in ("u32", "i32", "u64", "i64") for name in INTEGERS]
OPERATIONS += re.findall(r"^ATOMIC\((\w+),", SOURCE, re.M)


def operands(name: str) -> tuple[np.ndarray, np.ndarray]:
    dtype = np.dtype(TYPES[name.rsplit("_", 1)[1]])
    random = np.random.default_rng(10)
    if dtype.kind == "f":
        cells, values = random.integers(-1000, 1000, (2, COUNT)).astype(dtype)
    else:
        cells, values = random.integers(0, 256, (2, COUNT * dtype.itemsize), np.uint8).view(dtype)
    return cells.copy(), values.copy()


@on_archs
@on_levels
@pytest.mark.parametrize("name", OPERATIONS)
def test_atomic(name: str, arch: str, level: int) -> None:
    for kernel in ("contended", "returning", "in_lds"):
        cells, values = operands(name)
        outputs = () if kernel == "contended" else (poisoned(COUNT, cells.dtype),)
        got, wanted = (cells, *outputs), tuple(a.copy() for a in (cells, *outputs))
        arguments = (got[0], values, *got[1:])
        run(arch, "atomics.hip", f"{name}_{kernel}", *arguments, grid=GRID, level=level)
        run_on_host("atomics.hip", f"{name}_{kernel}", wanted[0], values, *wanted[1:], grid=GRID)
        for ours, theirs in zip(got, wanted, strict=True):
            assert_same(ours, theirs)


@on_archs
@on_levels
@pytest.mark.parametrize(("name", "dtype"), [("swap", np.uint32), ("compare_swap", np.uint64)])
def test_swap(name: str, dtype: type, arch: str, level: int) -> None:
    cells, values = operands("add_u64" if dtype == np.uint64 else "add_u32")
    cells[:60:2] = 5
    old, there, old_there = poisoned(COUNT, dtype), cells.copy(), poisoned(COUNT, dtype)
    run(arch, "atomics.hip", name, cells, values, old, grid=GRID, level=level)
    run_on_host("atomics.hip", name, there, values, old_there, grid=GRID)
    assert_same(cells, there)
    assert_same(old, old_there)


@on_archs
@on_levels
@pytest.mark.parametrize("threads", [1, 2])
def test_tickets(threads: int, arch: str, level: int) -> None:
    """Every work-item of every workgroup gets a number of its own."""
    counter = np.zeros(1, np.uint32)
    taken, in_lds = poisoned(16 * 256, np.uint32), poisoned(16 * 256, np.uint32)
    run(arch, "atomics.hip", "tickets", counter, taken, in_lds, grid=16, level=level,
        threads=threads)  # fmt: skip
    assert counter[0] == 16 * 256
    np.testing.assert_array_equal(np.sort(taken), np.arange(16 * 256))
    for block in in_lds.reshape(16, 256):
        np.testing.assert_array_equal(np.sort(block), np.arange(256))


@on_archs
@on_levels
def test_compare_and_swap_loop(arch: str, level: int) -> None:
    values = np.random.default_rng(11).integers(0, 2**32, COUNT, np.uint32)
    cell = np.array([7], np.uint32)
    run(arch, "atomics.hip", "add_by_swaps", cell, values, grid=GRID, level=level)
    assert cell[0] == 7 + (values & 0xFF).sum()


@on_archs
@on_levels
def test_pairs(arch: str, level: int) -> None:
    random = np.random.default_rng(12)
    values = random.integers(-2, 3, (2, COUNT, 2))
    halves, bfloats = np.zeros((5, 2), np.float16), np.zeros((5, 2), ml_dtypes.bfloat16)
    half_values, bfloat_values = values[0].astype(np.float16), values[1].astype(ml_dtypes.bfloat16)
    run(arch, "atomics.hip", "add_pairs", halves, bfloats, half_values, bfloat_values, grid=GRID,
        level=level)  # fmt: skip
    for got, given in ((halves, values[0]), (bfloats, values[1])):
        wanted = np.stack([given[cell::5].sum(0) for cell in range(5)])
        np.testing.assert_array_equal(got.astype(np.float64), wanted)
