# SPDX-License-Identifier: Apache-2.0
"""Operand modifiers (SDWA, abs, neg, clamp, op_sel) in every form, against the host."""

import numpy as np
from witness import TYPES, compare_item, needs_compiler, on_archs, over_items, triples

pytestmark = needs_compiler


@on_archs
@over_items("modifiers.hip")
def test_modifiers(item: tuple[str, str, str], arch: str) -> None:
    dtype = np.dtype(TYPES[item[1]])
    if dtype.kind == "f":
        special = np.array([0, -0.0, 0.25, 0.75, 1, -1, 3, np.inf, -np.inf, np.nan], dtype)
    else:
        special = np.array([0, 1, 0x7FFF8000, 0x8000FFFF, 0x3C00BC00, 0x7C00FC01], np.uint32)
        special = np.concatenate([special, ~special]).view(dtype)
    compare_item("modifiers.hip", item, arch, 3, triples(special, extra=3000))
