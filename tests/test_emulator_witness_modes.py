# SPDX-License-Identifier: Apache-2.0
"""Rounding modes, set in the MODE register, against directed rounding of exact results."""

import numpy as np
import pytest
from witness import assert_same, needs_compiler, on_archs, poisoned, run

pytestmark = needs_compiler

NEAREST, UP, DOWN, ZERO = range(4)


def rounded(exact: np.ndarray, mode: int, dtype: np.dtype) -> np.ndarray:
    nearest = exact.astype(dtype)
    towards = {UP: np.inf, DOWN: -np.inf, ZERO: 0.0}.get(mode)
    if towards is None:
        return nearest
    step = np.nextafter(nearest, dtype.type(towards))
    wide = nearest.astype(np.float64)
    beyond = {UP: wide < exact, DOWN: wide > exact, ZERO: abs(wide) > abs(exact)}[mode]
    return np.where(beyond, step, nearest)


@on_archs
@pytest.mark.parametrize("mode", range(4), ids=["nearest", "up", "down", "zero"])
@pytest.mark.parametrize("name", ["add_f32", "mul_f32", "fma_f32", "add_f16", "mul_f16"])
def test_rounding(name: str, mode: int, arch: str) -> None:
    dtype = np.dtype(f"f{int(name[-2:]) // 8}")
    random = np.random.default_rng(14)
    # Magnitudes so close that float64 holds every exact result.
    x, y = (random.uniform(1, 64, (2, 1024)) * random.choice([-1, 1], (2, 1024))).astype(dtype)
    got = poisoned(1024, dtype)
    run(arch, "modes.hip", f"{name}_{mode}", x, y, got, grid=4)
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    exact = {"add": wide_x + wide_y, "mul": wide_x * wide_y}.get(name[:3])
    if exact is None:
        exact = wide_x * wide_y + wide_y
    assert_same(got, rounded(exact, mode, dtype), x, y)
