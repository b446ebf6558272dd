# SPDX-License-Identifier: Apache-2.0
"""How query heads are laid out for a kernel that was compiled for a fixed number of them."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

# Query heads that AITER's ASM decode kernels were compiled for.
NATIVE_HEADS = (16, 32, 64, 128)
_TILE = NATIVE_HEADS[0]


@dataclasses.dataclass(frozen=True)
class HeadPlan:
    """Maps `heads` query heads onto the `padded_heads` rows of a kernel, and back.

    Attributes:
      heads: real query heads.
      padded_heads: rows that the kernel computes.
      head_stride: row `h * head_stride` belongs to head `h`: padded_heads / heads where heads are
        repeated, 1 where rows of zeros follow the real ones or nothing is padded.
    """

    heads: int
    padded_heads: int
    head_stride: int

    def apply(self, q: jax.Array) -> jax.Array:
        """Pads q `[batch, q_len, heads, width]` to `[batch, q_len, padded_heads, width]`."""
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

    def undo(self, x: jax.Array) -> jax.Array:
        """Takes the real heads out of `[batch, q_len, padded_heads, ...]`."""
        end = (self.heads - 1) * self.head_stride + 1
        return lax.slice_in_dim(x, 0, end, self.head_stride, axis=2)


def padded(heads: int) -> HeadPlan:
    """Pads to the next native head count.

    Divisors of 16 are repeated, so that every row holds real data; other counts get rows of zeros.
    """
    rows = next(n for n in NATIVE_HEADS if n >= heads)
    if heads < _TILE and _TILE % heads == 0:
        return HeadPlan(heads, _TILE, _TILE // heads)
    return HeadPlan(heads, rows, 1)


def unpadded(heads: int) -> HeadPlan:
    """For kernels that take any number of rows."""
    return HeadPlan(heads, heads, 1)
