# SPDX-License-Identifier: Apache-2.0
"""Instructions of the scalar unit, with what they leave in SCC, against the host."""

import numpy as np
from witness import TYPES, compare_item, needs_compiler, on_archs, over_items, triples

pytestmark = needs_compiler


@on_archs
@over_items("scalar.hip")
def test_scalar(item: tuple[str, str, str], arch: str) -> None:
    dtype = np.dtype(TYPES[item[1]])
    top = 1 << (8 * dtype.itemsize - 1)
    special = [0, 1, 5, 31, 32, 0xFFFF, 0x8000, top - 1, top, 2 * top - 1, 2 * top - 6]
    special = np.array(special, f"u{dtype.itemsize}").view(dtype)
    compare_item("scalar.hip", item, arch, 3, triples(special, extra=500), uniform=True)
