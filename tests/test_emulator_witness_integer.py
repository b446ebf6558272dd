# SPDX-License-Identifier: Apache-2.0
"""Integer instructions, vector and scalar: each item of integer.hip against the host."""

import numpy as np
import pytest
from witness import TYPES, compare_item, needs_compiler, on_archs, on_levels, over_items, triples

pytestmark = needs_compiler

SPECIAL = [0, 1, 2, 7, 31, 32, 255, 0x7FFF, 0x8000, 0xFFFF]
SPECIAL += [0x7FFFFFFF, 0x80000000, 0xDEADBEEF, 0xFFFFFFFE, 0xFFFFFFFF]
SPECIAL += [1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1]


@on_archs
@on_levels
@pytest.mark.parametrize("unit", ["vector", "scalar"])
@over_items("integer.hip")
def test_integer(item: tuple[str, str, str], unit: str, arch: str, level: int) -> None:
    dtype = np.dtype(TYPES[item[1]])
    values = [v for v in SPECIAL if v < 1 << 8 * dtype.itemsize]
    special = np.array(values, f"u{dtype.itemsize}").view(dtype)
    inputs = triples(special, extra=1000)
    compare_item("integer.hip", item, arch, level, inputs, uniform=unit == "scalar")
