# SPDX-License-Identifier: Apache-2.0
"""What the vmap rules share: a mapped axis becomes part of the batch."""

import jax
import jax.numpy as jnp


def mapped_first(x: jax.Array, dim: int | None, size: int) -> jax.Array:
    """`x` with the mapped axis first; repeated `size` times if it is not mapped."""
    return jnp.broadcast_to(x, (size, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)


def fold(x: jax.Array) -> jax.Array:
    """`[size, batch, ...]` to `[size * batch, ...]`."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
