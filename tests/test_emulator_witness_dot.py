# SPDX-License-Identifier: Apache-2.0
"""Dot products inside a work-item (v_dot2, v_dot4, v_dot8) against the host."""

import numpy as np
from witness import compare_item, needs_compiler, on_archs, on_levels, over_items, triples

pytestmark = needs_compiler


@on_archs
@on_levels
@over_items("dot.hip")
def test_dot(item: tuple[str, str, str], arch: str, level: int) -> None:
    special = np.array([0, 1, 0x7FFF8000, 0x80007FFF, 0xFFFFFFFF, 0x88888888], np.uint32)
    compare_item("dot.hip", item, arch, level, triples(special, extra=2000))
