# SPDX-License-Identifier: Apache-2.0
"""What a call comes to on our own kernels: splits and workspace."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jax_mla import workspace
from jax_mla.call import Call, Unserved, check_fp8
from jax_mla.splits import default_num_kv_splits
from jax_mla.target import Target

# (latent_dim, rope) of the cache rows that there are kernels for: csrc/kernels/decode.hip.
WIDTHS = ((512, 64), (256, 64), (256, 32), (512, 0))
# Those of csrc/kernels/decode.h: (query, head) pairs and keys of a block of threads.
TILE_ROWS = 16
KV_BLOCK = 32
# Blocks of threads along the last axis of a grid, on NVIDIA GPUs.
_MAX_BATCH = 2**16 - 1


@dataclasses.dataclass(frozen=True)
class KernelPlan:
    """A call on our own kernels.

    Attributes:
      num_kv_splits: parts of each sequence.
      row_tiles: of a sequence's (query, head) pairs, each of which reads all its keys.
      workspace_bytes: of the partial results of every row.
    """

    num_kv_splits: int
    row_tiles: int
    workspace_bytes: Any

    #: Per layer: the kernel and the merge.
    launches = 2


def plan(call: Call, target: Target, *, num_kv_splits: int | None = None) -> KernelPlan:
    """Plans a call.

    Args:
      call: its static side.
      target: the GPU.
      num_kv_splits: fixes the splits.

    Raises:
      Unserved: there is no kernel for the call.
    """
    width = (call.latent_dim, call.width - call.latent_dim)
    if width not in WIDTHS:
        names = ", ".join(f"{latent}+{rope}" for latent, rope in WIDTHS)
        raise Unserved(f"expected latent_dim + rope of {names}, got {width[0]}+{width[1]}")
    if call.q_dtype == jnp.float32:
        raise Unserved(f"expected a bfloat16, float16 or float8 q, got {call.q_dtype}")
    check_fp8(call, target)
    if isinstance(call.batch, int) and call.batch > _MAX_BATCH:
        raise Unserved(f"expected at most {_MAX_BATCH} sequences, got {call.batch}")
    splits = num_kv_splits or default_num_kv_splits(
        call.batch, call.capacity, compute_units=target.compute_units, kv_block=KV_BLOCK
    )
    rows = call.q_len * call.heads
    size = workspace.carve(call.batch * splits * rows, call.latent_dim).bytes
    return KernelPlan(splits, -(-rows // TILE_ROWS), size)
