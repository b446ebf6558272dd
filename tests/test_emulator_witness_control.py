# SPDX-License-Identifier: Apache-2.0
"""Control flow, divergent and uniform, calls and barriers against the host."""

import numpy as np
import pytest
from witness import (
    assert_same,
    compare_item,
    needs_compiler,
    on_archs,
    on_levels,
    over_items,
    poisoned,
    run,
    run_on_host,
)

pytestmark = needs_compiler


@on_archs
@on_levels
@pytest.mark.parametrize("uniform", [False, True], ids=["divergent", "uniform"])
@over_items("control.hip")
def test_control(item: tuple[str, str, str], uniform: bool, arch: str, level: int) -> None:
    random = np.random.default_rng(8)
    inputs = [random.integers(0, 2**32, 1000, np.uint32) for _ in range(3)]
    for values in inputs:
        values[::3] &= 0xFF  # small ones too, for short loops
    compare_item("control.hip", item, arch, level, inputs, uniform)


@on_archs
@on_levels
def test_barriers(arch: str, level: int) -> None:
    given = np.random.default_rng(9).integers(0, 2**32, 768, np.uint32)
    got, wanted = poisoned(768, np.uint32), poisoned(768, np.uint32)
    run(arch, "control.hip", "barrier_after_divergence", given, got, grid=3, level=level)
    run_on_host("control.hip", "barrier_after_divergence", given, wanted, grid=3)
    assert_same(got, wanted)
