# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding, with yarn's context extension."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from deepseek.config import ROPE, Rope


def inverse_frequencies(rope: Rope) -> np.ndarray:
    """Radians a position for each of the 32 rotated pairs, float32.

    Yarn keeps the pairs that turn often within the original context, divides the frequency of the
    slow ones by `factor`, and blends linearly in between.
    """
    pair = np.arange(ROPE // 2)
    frequency = rope.theta ** (-2.0 * pair / ROPE)
    if (yarn := rope.yarn) is None:
        return frequency.astype(np.float32)

    def pair_that_turns(times: float) -> float:
        wavelength = yarn.original_max_position_embeddings / times
        return ROPE * math.log(wavelength / (2 * math.pi)) / (2 * math.log(rope.theta))

    first = max(math.floor(pair_that_turns(yarn.beta_fast)), 0)
    last = min(math.ceil(pair_that_turns(yarn.beta_slow)), ROPE - 1)
    slow = np.clip((pair - first) / max(last - first, 1e-3), 0.0, 1.0)
    return (frequency * ((1.0 - slow) + slow / yarn.factor)).astype(np.float32)


def rotation(rope: Rope, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """cos and sin `[..., 32]`, float32, of `positions` `[...]`."""
    angle = positions[..., None].astype(jnp.float32) * inverse_frequencies(rope)
    yarn = rope.yarn
    size = yarn.magnitude(yarn.mscale) / yarn.magnitude(yarn.mscale_all_dim) if yarn else 1.0
    return jnp.cos(angle) * size, jnp.sin(angle) * size


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array, *, interleaved: bool) -> jax.Array:
    """Rotates the pairs of x `[..., 64]` by cos and sin `[..., 32]`.

    A pair is two neighbours where `interleaved`, else the same place of the two halves. The result
    is always in halves: only q.k is ever taken of it, which does not depend on the order.
    """
    wide = x.astype(jnp.float32)
    if interleaved:
        a, b = wide[..., 0::2], wide[..., 1::2]
    else:
        a, b = jnp.split(wide, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
