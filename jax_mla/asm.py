# SPDX-License-Identifier: Apache-2.0
"""What a call comes to on AITER's kernels: kernel, head plan, splits or works, workspace."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jax_mla import heads, kernels, persistent, workspace
from jax_mla.call import Call, Unserved, check_fp8
from jax_mla.heads import HeadPlan
from jax_mla.kernels import Kernel
from jax_mla.splits import default_num_kv_splits
from jax_mla.target import Target

LATENT_DIM, ROPE = 512, 64
# Offsets into partial results are 32-bit byte counts in AITER's kernels.
_MAX_BYTES = 2**32
# So are those of the older kernels into the cache, made from 24-bit token indices.
_MAX_TOKENS = 2**24


@dataclasses.dataclass(frozen=True)
class AsmPlan:
    """A call on AITER's kernels.

    Attributes:
      kernel: what runs.
      heads: layout of the heads.
      mode: "split" or "persistent".
      num_kv_splits: parts of each sequence in split mode; 1 in persistent mode, where it is unused.
      works: the persistent plan; None in split mode.
      partials: (sequence, group, part) triples that have partial results.
      workspace_bytes: of the partial results of every row.
      row_argument: what the kernel takes for "number of rows".
    """

    kernel: Kernel
    heads: HeadPlan
    mode: str
    num_kv_splits: int
    works: persistent.Plan | None
    partials: Any
    workspace_bytes: Any
    row_argument: int

    @property
    def cuts(self) -> str:
        """How sequences are cut, in words."""
        if self.works is None:
            return f"{self.num_kv_splits} splits of each sequence"
        return f"by load over {self.works.units} units, at multiples of {self.works.block} tokens"

    @property
    def launches(self) -> int:
        """Per layer: the kernel and the merge; in persistent mode the pointer pair as well."""
        return self.heads.groups + 1 if self.mode == "split" else 3


def plan(
    call: Call,
    target: Target,
    *,
    mode: str = "split",
    num_kv_splits: int | None = None,
    head_plan: str | None = None,
) -> AsmPlan:
    """Plans a call.

    Args:
      call: its static side.
      target: the GPU.
      mode: "split" or "persistent".
      num_kv_splits: fixes the splits of split mode.
      head_plan: None, "pad" or "rows"; see `jax_mla.decode`.

    Raises:
      Unserved: AITER has no kernel for the call, or none that can address its operands.
    """
    _check_operands(call, target)
    kernel, layout = heads.plan(
        target,
        call.heads,
        call.q_len,
        call.q_dtype,
        call.kv_dtype,
        mode,
        width=call.width,
        head_plan=head_plan,
    )
    _check_pool(call, kernel)
    if mode == "split":
        splits, works = _splits(call, target, kernel, num_kv_splits), None
        partials = call.batch * layout.groups * splits
    else:
        splits, works = 1, _works(call, target, kernel, layout, num_kv_splits)
        partials = works.max_works(call.batch)
    rows = partials * call.q_len * layout.group_heads
    size = workspace.carve(rows, call.latent_dim, pointers=works is not None).bytes
    if isinstance(size, int) and size >= _MAX_BYTES:
        raise Unserved(f"expected a workspace below 2**32 bytes, got {size}")
    row_argument = layout.group_heads * (call.q_len if kernel.row_argument == "rows" else 1)
    return AsmPlan(kernel, layout, mode, splits, works, partials, size, row_argument)


def _check_operands(call: Call, target: Target) -> None:
    """Arch, widths and dtypes that AITER has kernels for at all, and something to launch."""
    if target.arch not in kernels.ARCHES:
        raise Unserved(f"expected arch {' or '.join(kernels.ARCHES)}, got {target.arch}")
    width = (call.latent_dim, call.width - call.latent_dim)
    if width != (LATENT_DIM, ROPE):
        raise Unserved(
            f"expected latent_dim + rope of {LATENT_DIM}+{ROPE}, got {width[0]}+{width[1]}"
        )
    if call.q_dtype in (jnp.float16, jnp.float32):
        raise Unserved(f"expected a bfloat16 or float8 q, got {call.q_dtype}")
    check_fp8(call, target)
    if isinstance(call.batch, int) and call.batch < 1:
        raise Unserved(f"expected at least one sequence, got {call.batch}")


def _check_pool(call: Call, kernel: Kernel) -> None:
    if kernel.address_bits == 64:
        return
    tokens = call.num_pages * call.page_size
    if isinstance(tokens, int) and tokens > _MAX_TOKENS:
        raise Unserved(f"{kernel.file}: expected at most 2**24 tokens in the cache, got {tokens}")
    size = tokens * call.token_bytes
    if isinstance(size, int) and size > _MAX_BYTES:
        raise Unserved(f"{kernel.file}: expected a cache of at most 2**32 bytes, got {size}")


def _splits(call: Call, target: Target, kernel: Kernel, num_kv_splits: int | None) -> int:
    if num_kv_splits is None:
        return default_num_kv_splits(
            call.batch,
            call.capacity,
            compute_units=target.compute_units,
            kv_block=kernel.kv_block,
        )
    if num_kv_splits < kernel.min_splits:
        raise Unserved(
            f"{kernel.file}: expected num_kv_splits of at least {kernel.min_splits} (with one it "
            f"writes no log-sum-exp), got {num_kv_splits}"
        )
    return num_kv_splits


def _works(
    call: Call,
    target: Target,
    kernel: Kernel,
    layout: HeadPlan,
    num_kv_splits: int | None,
) -> persistent.Plan:
    if num_kv_splits is not None:
        raise Unserved(
            "mode 'persistent' cuts by the lengths of the whole batch: expected num_kv_splits None "
            f"(or mode 'split'), got {num_kv_splits}"
        )
    if not isinstance(call.batch, int) or not isinstance(call.capacity, int):
        raise Unserved(
            "mode 'persistent' needs a static batch and capacity, got "
            f"{call.batch} and {call.capacity}"
        )
    units = persistent.num_units(
        sequences=call.batch * layout.groups,
        capacity=call.capacity,
        compute_units=target.compute_units,
        token_bytes=call.token_bytes,
        # 16 rows, written by the kernel and read by the merge. With more rows there is more
        # arithmetic to a token, in proportion, and as much more reason to spread it.
        partial_bytes=2 * 16 * (call.latent_dim + 1) * 4,
    )
    return persistent.Plan(layout.groups, call.q_len, kernel.kv_block, units)
