# SPDX-License-Identifier: Apache-2.0
"""Float instructions: the items of float32, float64 and float16.hip against the host.

Denormals are kept by default; a last test compiles with the descriptor that flushes float32's.
"""

import numpy as np
import pytest
from witness import (
    FLUSH,
    TYPES,
    assert_same,
    compare_item,
    items,
    needs_compiler,
    on_archs,
    on_levels,
    poisoned,
    run,
    run_on_host,
    triples,
)

pytestmark = needs_compiler

SOURCES = ("float32.hip", "float64.hip", "float16.hip")
ITEMS = [(source, item) for source in SOURCES for item in items(source)]


def inputs(dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """Special values in every combination, any bit pattern, and numbers of like magnitude."""
    if dtype.kind != "f":
        unsigned = np.dtype(f"u{dtype.itemsize}")
        top = 1 << (8 * dtype.itemsize - 1)
        special = [0, 1, 2, 3, 100, top - 1, top, top + 1, 2 * top - 1]
        special += [*halves(unsigned)]
        return triples(np.array(special, unsigned).view(dtype), extra=1500)
    limits = np.finfo(dtype)
    special = [0, 0.25, 0.5, 0.75, 1, 1.5, 2.5, 3, 1024, limits.max, limits.tiny, np.inf, np.nan]
    special += [limits.smallest_subnormal, limits.tiny - limits.smallest_subnormal]
    special += [1 - limits.epsneg, 1 + limits.eps, 1 / limits.eps - 0.5]
    special += [2**31, 2**32 - 2**8] if dtype.itemsize > 2 else [65504, 2048]
    special = np.array(special, dtype)
    special = np.concatenate([special, -special])
    x, y, z = triples(special, extra=3000, third=special[::5])
    scale = 2.0 ** np.random.default_rng(1).integers(-6, 7, (3, 3000))
    near = (np.random.default_rng(2).standard_normal((3, 3000)) * scale).astype(dtype)
    return tuple(quiet(np.concatenate(pair)) for pair in zip((x, y, z), near, strict=True))


def halves(unsigned: np.dtype) -> tuple[int, ...]:
    """Patterns at the edges of the float types of this width: infinities, NaNs, denormals."""
    return {
        2: (0x7C00, 0x7C01, 0x7E00, 0xFC00, 0x3FF, 0x400, 0x7F80, 0x3F80),
        4: (0x7F800000, 0x7F800001, 0x7FC00000, 0xFF800000, 0x7FFFFF, 0x800000, 0x3FF),
        8: (0x7FF << 52, 0x7FF << 52 | 1, 0x7FF8 << 48, 0xFFF << 52, 1 << 52, (1 << 52) - 1, 0x3FF),
    }[unsigned.itemsize]


def quiet(array: np.ndarray) -> np.ndarray:
    """Without signalling NaNs, for which minimum and maximum are not settled in LLVM."""
    return np.where(np.isnan(array), np.array(np.nan, array.dtype), array)


@on_archs
@on_levels
@pytest.mark.parametrize(("source", "item"), ITEMS, ids=lambda p: p[0] if type(p) is tuple else p)
def test_float(source: str, item: tuple[str, str, str], arch: str, level: int) -> None:
    compare_item(source, item, arch, level, inputs(np.dtype(TYPES[item[1]])))


@on_archs
@on_levels
@pytest.mark.parametrize("name", ["add", "sub", "mul", "fma"])
def test_flushed_denormals(name: str, arch: str, level: int) -> None:
    """Denormal inputs and results are zeros with the sign kept, and only float32's."""
    given = inputs(np.dtype(np.float32))
    count, grid = given[0].size, -(-given[0].size // 256)
    got, wanted = poisoned(count, np.float32), poisoned(count, np.float32)
    arguments = (got, np.uint32(count))
    run(arch, "float32.hip", name, *given, *arguments, grid=grid, level=level, flags=FLUSH)
    flushed = [flush(array) for array in given]
    run_on_host("float32.hip", name, *flushed, wanted, np.uint32(count), grid=grid)
    assert_same(got, flush(wanted), *given)


def flush(array: np.ndarray) -> np.ndarray:
    return np.where(np.abs(array) < np.finfo(np.float32).tiny, np.copysign(0, array), array)
