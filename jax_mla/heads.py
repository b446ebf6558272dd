# SPDX-License-Identifier: Apache-2.0
"""How query heads are laid out for a kernel that was compiled for a fixed number of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_mla import kernels
from jax_mla.call import Unserved
from jax_mla.kernels import Kernel
from jax_mla.target import Target


@dataclasses.dataclass(frozen=True)
class HeadPlan:
    """Maps `heads` query heads onto the `padded_heads` rows of a kernel, and back.

    Attributes:
      heads: real query heads.
      padded_heads: rows that the kernel computes per query token, over all groups.
      head_stride: row `h * head_stride` belongs to head `h`: padded_heads / heads where heads are
        repeated, 1 where rows of zeros follow the real ones or nothing is padded.
      groups: parts that the rows are cut into, each of which reads the whole cache.
      kind: "native" (the kernel has as many rows as there are heads), "pad" or "rows" (the kernel
        takes fewer rows than it was compiled for).
      extra_bytes: of q per query token, above those of the real heads.
      reason: why this plan, in words.
    """

    heads: int
    padded_heads: int
    head_stride: int = 1
    groups: int = 1
    kind: str = "native"
    extra_bytes: int = 0
    reason: str = ""

    @property
    def group_heads(self) -> int:
        """Rows of a group."""
        return self.padded_heads // self.groups

    def apply(self, q: jax.Array) -> jax.Array:
        """Lays q `[batch, q_len, heads, width]` out as `[groups * batch, q_len, rows, width]`.

        Group after group, so that each is a call of its own on contiguous memory.
        """
        batch, q_len, _, width = q.shape
        q = self._pad(q)
        if self.groups > 1:
            q = q.reshape(batch, q_len, self.groups, self.group_heads, width)
            q = lax.transpose(q, (2, 0, 1, 3, 4))
            q = q.reshape(self.groups * batch, q_len, self.group_heads, width)
        return q

    def undo(self, x: jax.Array) -> jax.Array:
        """Takes the real heads out of `[groups * batch, q_len, rows, ...]`."""
        if self.groups > 1:
            _, q_len, rows, *rest = x.shape
            x = x.reshape(self.groups, x.shape[0] // self.groups, q_len, rows, *rest)
            x = jnp.moveaxis(x, 0, 2)
            x = x.reshape(*x.shape[:2], self.padded_heads, *rest)
        end = (self.heads - 1) * self.head_stride + 1
        return lax.slice_in_dim(x, 0, end, self.head_stride, axis=2)

    def _pad(self, q: jax.Array) -> jax.Array:
        """`[batch, q_len, heads, width]` to `[batch, q_len, padded_heads, width]`."""
        if self.head_stride > 1:
            batch, q_len, heads, width = q.shape
            repeated = (batch, q_len, heads, self.head_stride, width)
            q = lax.broadcast_in_dim(q, repeated, (0, 1, 2, 4))
            return q.reshape(batch, q_len, self.padded_heads, width)
        if self.padded_heads > self.heads:
            # lax.pad, because jnp.pad would leave an outlined function in the program.
            rows = (0, self.padded_heads - self.heads, 0)
            return lax.pad(q, jnp.zeros((), q.dtype), ((0, 0, 0), (0, 0, 0), rows, (0, 0, 0)))
        return q


def plan(
    target: Target,
    heads: int,
    q_len: int,
    q_dtype: np.dtype,
    kv_dtype: np.dtype,
    mode: str,
    *,
    width: int = 576,
    head_plan: str | None = None,
    table: tuple[Kernel, ...] | None = None,
) -> tuple[Kernel, HeadPlan]:
    """The AITER kernel for a call, and the layout of its heads.

    Heads are padded to the next number that a kernel for this arch, dtypes, mode and q_len has: by
    repetition where that divides it, else with rows of zeros. More heads than any kernel has go in
    groups of the kernel that needs the fewest.

    Args:
      target: the GPU.
      heads: real query heads.
      q_len: query tokens per sequence.
      q_dtype: dtype of q.
      kv_dtype: dtype of the cache.
      mode: "split" or "persistent".
      width: of a row of q.
      head_plan: "rows" for no padding at all; refused where the kernel does not take it.
      table: kernels to choose from; all that have been shown to be right if None.

    Raises:
      Unserved: no kernel for the dtypes, mode and q_len, or no "rows" plan.
    """
    kernel = kernels.select(target.arch, q_dtype, kv_dtype, mode, q_len, heads, table=table)
    if head_plan == "rows":
        return kernel, _unpadded(kernel, heads)
    groups = -(-heads // kernel.heads)
    padded = groups * kernel.heads
    if padded == heads:
        kind, stride, words = "native", 1, f"the kernel has {kernel.heads} heads"
    elif groups == 1 and kernel.heads % heads == 0:
        kind, stride = "pad", kernel.heads // heads
        words = f"each head {stride} times, for the kernel's {kernel.heads}"
    else:
        kind, stride = "pad", 1
        words = f"{padded - heads} rows of zeros, for the kernel's {kernel.heads} heads"
    if groups > 1:
        words += (
            f"; {groups} groups, which each read the cache (no kernel known to be right has more)"
        )
    extra = (padded - heads) * width * q_dtype.itemsize
    return kernel, HeadPlan(heads, padded, stride, groups, kind, extra, words)


def _unpadded(kernel: Kernel, heads: int) -> HeadPlan:
    if not kernel.takes_rows or heads > kernel.heads:
        what = f"at most {kernel.heads} heads" if kernel.takes_rows else "head_plan 'pad'"
        raise Unserved(f"head_plan='rows': {kernel.file} takes {what}, got {heads} heads")
    words = f"the kernel takes {heads} rows in place of {kernel.heads}"
    return HeadPlan(heads, heads, kind="rows", reason=words)
