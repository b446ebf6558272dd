# SPDX-License-Identifier: Apache-2.0
"""Arithmetic that only gfx950 has, against the host; its other additions are in their families."""

import numpy as np
from witness import TYPES, compare_item, needs_compiler, on_levels, over_items, triples

pytestmark = needs_compiler


@on_levels
@over_items("gfx950.hip")
def test_gfx950(item: tuple[str, str, str], level: int) -> None:
    dtype = np.dtype(TYPES[item[1]])
    if dtype.kind == "f":
        special = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-42, 3e38], dtype)
    else:
        special = np.array([0, 1, 127, 128, 255, 256, 0x7FFF, 0x8000], f"u{dtype.itemsize}")
        special = np.concatenate([special, ~special]).view(dtype)
    compare_item("gfx950.hip", item, "gfx950", level, triples(special, extra=2000))
