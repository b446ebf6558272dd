# SPDX-License-Identifier: Apache-2.0
"""Global, LDS, scratch and flat access against the host; buffer descriptors against NumPy."""

import numpy as np
import pytest
from witness import (
    TYPES,
    Argument,
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


def noise(dtype: type, count: int = COUNT) -> np.ndarray:
    raw = np.random.default_rng(3).integers(0, 256, count * np.dtype(dtype).itemsize, np.uint8)
    return raw.view(dtype)


def agree(
    arch: str, level: int, kernel: str, given: np.ndarray, *results: np.ndarray, more: tuple = ()
) -> None:
    """Emulated GPU and host leave the same bytes in the results."""
    wanted = [result.copy() for result in results]
    arguments: tuple[Argument, ...] = (given, *results, *more)
    run(arch, "memory.hip", kernel, *arguments, grid=GRID, level=level)
    run_on_host("memory.hip", kernel, given, *wanted, *more, grid=GRID)
    for got, want in zip(results, wanted, strict=True):
        assert_same(got.view(np.uint8), want.view(np.uint8))


@on_archs
@on_levels
@pytest.mark.parametrize("kind", ["u8", "i8", "u16", "i16", "u32", "i32", "i64"])
def test_widths(kind: str, arch: str, level: int) -> None:
    dtype = TYPES[kind]
    count = COUNT - 5
    outputs = poisoned(COUNT, dtype), poisoned(COUNT, np.int64)
    agree(arch, level, f"copy_{kind}", noise(dtype, count), *outputs, more=(np.uint32(count),))


@on_archs
@on_levels
@pytest.mark.parametrize(
    ("kernel", "bytes_each"),
    [
        ("swap_halves", 4),
        ("copy_vectors", 16),
        ("unaligned", 15),
        ("lds_transpose", 4),
        ("lds_rotate_i8", 1),
        ("lds_rotate_u16", 2),
        ("lds_rotate_u64", 8),
        ("lds_rotate_u32x4", 16),
        ("scratch", 4),
        ("flat", 4),
    ],
)
def test_moves(kernel: str, bytes_each: int, arch: str, level: int) -> None:
    given = noise(np.uint8, COUNT * bytes_each)
    agree(arch, level, kernel, given, poisoned(COUNT * bytes_each, np.uint8))


@on_archs
@on_levels
@pytest.mark.parametrize("kernel", ["lds_mixed", "lds_pairs"])
def test_lds_words(kernel: str, arch: str, level: int) -> None:
    agree(arch, level, kernel, noise(np.uint32), poisoned(COUNT, np.uint64))


# Names of buffer.hip's accesses with the element and how many of its words count.
ACCESSES = {
    "u8": (np.uint8, 1),
    "u16": (np.uint16, 1),
    "u32": (np.uint32, 1),
    "u32x2": (np.uint32, 2),
    "u32x4": (np.uint32, 4),
}


@on_archs
@on_levels
@pytest.mark.parametrize("name", ACCESSES)
@pytest.mark.parametrize("offset", [0, 64], ids=["", "scalar_offset"])
def test_buffer_load(name: str, offset: int, arch: str, level: int) -> None:
    """A lane beyond the range gets zeros, each word of a wide load for itself."""
    dtype, words = ACCESSES[name]
    base, got = noise(dtype, 256 * words + 64), poisoned(256 * words, dtype)
    reach = base.itemsize * (128 * words + 1)
    run(arch, "buffer.hip", f"load_{name}", base, got, np.uint32(reach), np.uint32(offset),
        level=level)  # fmt: skip
    first = offset // base.itemsize
    wanted = np.where(np.arange(base.size) < 128 * words + 1, base, 0)[first : first + got.size]
    assert_same(got, wanted)


@on_archs
@on_levels
@pytest.mark.parametrize("name", ACCESSES)
def test_buffer_store(name: str, arch: str, level: int) -> None:
    dtype, words = ACCESSES[name]
    values, base = noise(dtype, 256 * words), poisoned(256 * words, dtype)
    kept = 128 * words + 1
    wanted = np.where(np.arange(base.size) < kept, values, base)
    reach, zero = np.uint32(kept * base.itemsize), np.uint32(0)
    run(arch, "buffer.hip", f"store_{name}", values, base, reach, zero, level=level)
    assert_same(base, wanted)


@on_archs
@on_levels
def test_buffer_load_of_some_lanes(arch: str, level: int) -> None:
    base, got = noise(np.uint32, 512), poisoned(256, np.uint32)
    run(arch, "buffer.hip", "load_some", base, got, np.uint32(1000), level=level)
    lane = np.arange(256)
    inside = np.where(8 * lane + 4 < 1000, base[2 * lane + 1], 0)
    assert_same(got, np.where(lane % 3 == 0, 7, inside).astype(np.uint32))


@on_archs
@on_levels
def test_buffer_atomic(arch: str, level: int) -> None:
    base, values, old = noise(np.int32, 256), noise(np.int32, 256)[::-1].copy(), poisoned(256, "i4")
    before, inside = base.copy(), np.arange(256) < 200
    run(arch, "buffer.hip", "buffer_add", base, values, old, np.uint32(800), level=level)
    assert_same(base, np.where(inside, before + values, before))
    assert_same(old, np.where(inside, before, 0))


@on_archs
@on_levels
def test_global_to_lds(arch: str, level: int) -> None:
    base, got = noise(np.uint32, 256), poisoned(256, np.uint32)
    run(arch, "buffer.hip", "global_to_lds", base, got, level=level)
    assert_same(got, base[np.arange(256) * 5 % 256])


@on_levels
def test_global_to_lds_wide(level: int) -> None:
    base, got = noise(np.uint32, 1024), poisoned(1024, np.uint32)
    run("gfx950", "buffer.hip", "global_to_lds_wide", base, got, level=level)
    assert_same(got, base[np.arange(1024) * 5 % 1024])


@on_archs
@on_levels
def test_buffer_to_lds(arch: str, level: int) -> None:
    base, got = noise(np.uint32, 256), poisoned(256, np.uint32)
    run(arch, "buffer.hip", "buffer_to_lds", base, got, np.uint32(400), level=level)
    wanted = np.where(np.arange(256) < 100, base, 0)
    assert_same(got, wanted[np.arange(256) * 5 % 256])
