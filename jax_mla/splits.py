# SPDX-License-Identifier: Apache-2.0
"""Into how many parts split mode cuts each sequence's keys."""

from typing import Any

MAX_SPLITS = 64
# Where the batch or the capacity is symbolic.
_SYMBOLIC = 16


def default_num_kv_splits(
    batch: Any, capacity: Any, *, compute_units: int, kv_block: int = 64
) -> int:
    """Splits where the caller does not fix them: 2 to 64, for any shapes.

    clamp(ceil(2 * compute_units / batch), 2, min(64, ceil(capacity / kv_block))): two workgroups
    per compute unit, at least a block of keys each. A workgroup holds all rows of a group of heads,
    so their number does not come in. Reads static shapes only: results do not depend on the lengths
    at hand.

    Args:
      batch: sequences; a symbolic one gives 16.
      capacity: tokens of the longest sequence that the page table can hold; likewise.
      compute_units: of the GPU.
      kv_block: tokens of a block of the kernel.
    """
    if not isinstance(batch, int) or not isinstance(capacity, int):
        return _SYMBOLIC
    workgroups = -(-2 * compute_units // max(batch, 1))
    blocks = -(-capacity // kv_block)
    return max(2, min(MAX_SPLITS, workgroups, blocks))
