# SPDX-License-Identifier: Apache-2.0
"""What a call comes to on our own kernels: which of them, splits and workspace."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jax_mla import workspace
from jax_mla.call import Call, Unserved, check_fp8
from jax_mla.target import Target

# (latent_dim, rope) of the cache rows that there are kernels for: csrc/kernels/decode.hip.
WIDTHS = ((512, 64), (256, 64), (256, 32), (512, 0))
# Those of csrc/kernels/decode.h: (query, head) pairs and keys of a block of threads.
TILE_ROWS = 16
KV_BLOCK = 32
_PART_BLOCKS = 4
# Blocks of threads to a compute unit, where that is not one: what its shared memory has room for.
_WORKERS_PER_UNIT = {"gfx950": 2}
# Blocks of threads along the last axis of a grid, on NVIDIA GPUs.
_MAX_BATCH = 2**16 - 1
# Parts that keys are cut into: csrc/kernels/shares.h.
_MAX_SPLITS = 2**16

# What csrc/kernels/decode_sm90.hip serves.
_SM90_WIDTH = (512, 64)
_SM90_KV_BLOCK, _SM90_PART_BLOCKS = 64, 1
_SM90_LINES_OF_ROW = 9


@dataclasses.dataclass(frozen=True)
class KernelPlan:
    """A call on our own kernels.

    Attributes:
      source: the file of csrc/kernels: "decode", or "decode_sm90" on Hopper GPUs.
      num_kv_splits: parts of each sequence; 0 where `workers` share all keys.
      workers: blocks of threads that share the keys of all sequences evenly; else 0.
      tile_rows: (query, head) pairs of a tile.
      row_tiles: of a sequence's pairs, each of which reads all its keys.
      kv_block: keys of a block, which is not cut.
      part_blocks: blocks that a worker takes at least, once 32 workers have some.
      weights: numbers of a partial result's row beside its output: csrc/workspace.h.
      workspace_bytes: of the partial results.
    """

    source: str
    num_kv_splits: int
    workers: int
    tile_rows: int
    row_tiles: int
    kv_block: int
    part_blocks: int
    weights: int
    workspace_bytes: Any

    #: Per layer: the kernel and the merge.
    launches = 2

    @property
    def cuts(self) -> str:
        """How the keys are dealt out, for `explain`."""
        if self.workers:
            return f"the keys of all sequences, evenly over {self.workers} blocks of threads"
        return f"{self.num_kv_splits} splits of each sequence"


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
    if num_kv_splits is not None and num_kv_splits > _MAX_SPLITS:
        raise Unserved(f"expected at most {_MAX_SPLITS} num_kv_splits, got {num_kv_splits}")
    sm90 = target.arch == "sm_90" and _serves_sm90(call)
    rows, kv_block = call.q_len * call.heads, _SM90_KV_BLOCK if sm90 else KV_BLOCK
    tile_rows = 8 if sm90 and rows <= 8 else TILE_ROWS
    tiles = -(-rows // tile_rows)
    jobs, splits = call.batch * tiles, num_kv_splits or 0
    if _is_large(jobs * -(-call.capacity // kv_block)):
        raise Unserved(f"expected fewer than 2^31 blocks of {kv_block} keys")
    units = target.compute_units * _WORKERS_PER_UNIT.get(target.arch, 1)
    workers = 0 if splits else _count_workers(jobs, units)
    parts = jobs * splits if splits else jobs + workers
    weights = 2 if sm90 else 1
    size = workspace.carve(parts * tile_rows, call.latent_dim, weights=weights).bytes
    source = "decode_sm90" if sm90 else "decode"
    part_blocks = _SM90_PART_BLOCKS if sm90 else _PART_BLOCKS
    return KernelPlan(
        source, splits, workers, tile_rows, tiles, kv_block, part_blocks, weights, size
    )


def _serves_sm90(call: Call) -> bool:
    """Whether Hopper's kernels take the call."""
    if (call.latent_dim, call.width - call.latent_dim) != _SM90_WIDTH:
        return False
    # A copy of one fp8 row would not begin at a multiple of 128 bytes.
    if call.kv_dtype.itemsize == 1 and call.page_size % 2 == 1:
        return False
    return not _is_large(call.num_pages * call.page_size * _SM90_LINES_OF_ROW)


def _is_large(number: Any) -> bool:
    """Whether it does not fit an int; one that is not known yet is taken for small."""
    return isinstance(number, int) and number >= 2**31


def _count_workers(jobs: Any, units: int) -> int:
    """As many as there is room for, less a few if jobs of one length are then cut alike, or not.

    What a cut costs, two partial results and their merge, is more than what a fifth of the units
    adds: most of them are enough to use the whole bandwidth of the memory.
    """
    if not isinstance(jobs, int) or jobs < 1:
        return units
    each = -(-jobs // units)
    even = jobs // each if each > 1 else units - units % jobs
    return even if even * each % jobs == 0 and even >= 0.8 * units else units
