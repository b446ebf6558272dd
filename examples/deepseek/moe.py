# SPDX-License-Identifier: Apache-2.0
"""Feed-forward layers: dense, and a mixture of routed and shared experts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deepseek.config import Experts


class Mlp(NamedTuple):
    """SwiGLU weights; stacked experts have a leading axis."""

    gate: jax.Array  # [intermediate, hidden]
    up: jax.Array  # [intermediate, hidden]
    down: jax.Array  # [hidden, intermediate]


class Moe(NamedTuple):
    """Weights of a mixture-of-experts layer."""

    router: jax.Array  # [experts, hidden] float32
    bias: jax.Array | None  # [experts] float32, of noaux_tc
    routed: Mlp  # [experts, ...]
    shared: Mlp | None  # the shared experts, as one wide MLP


def swiglu(x: jax.Array, weights: Mlp) -> jax.Array:
    """x `[..., hidden]` through one MLP."""
    return (jax.nn.silu(x @ weights.gate.T) * (x @ weights.up.T)) @ weights.down.T


def choose(config: Experts, scores: jax.Array, bias: jax.Array | None) -> jax.Array:
    """The experts of each token, `[tokens, chosen]`, by scores `[tokens, experts]` float32."""
    # The bias balances the load: it decides who is chosen, never how much a choice weighs.
    merit = scores if bias is None else scores + bias
    if config.topk_method != "greedy":
        merit = _mask_groups(config, merit)
    _, chosen = lax.top_k(merit, config.num_experts_per_tok)
    return chosen


def mixture(config: Experts, scores: jax.Array, chosen: jax.Array) -> jax.Array:
    """How much each chosen expert weighs, `[tokens, chosen]` float32."""
    weights = jnp.take_along_axis(scores, chosen, axis=-1)
    if config.norm_topk_prob and config.num_experts_per_tok > 1:
        weights /= weights.sum(-1, keepdims=True) + 1e-20
    return weights * config.routed_scaling_factor


def _mask_groups(config: Experts, merit: jax.Array) -> jax.Array:
    """merit `[tokens, experts]`, with -inf outside of the `topk_group` best groups."""
    grouped = merit.reshape(len(merit), config.n_group, -1)
    # A group is worth its two best experts in V3, its best one in V2.
    best, _ = lax.top_k(grouped, 2 if config.topk_method == "noaux_tc" else 1)
    _, kept = lax.top_k(best.sum(-1), config.topk_group)
    keep = jax.nn.one_hot(kept, config.n_group, dtype=bool).any(axis=1)
    return jnp.where(keep[..., None], grouped, -jnp.inf).reshape(merit.shape)


def moe(
    config: Experts, x: jax.Array, weights: Moe, chosen: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """x `[tokens, hidden]` through the routed and the shared experts.

    Returns the result and the experts `[tokens, chosen]`: the given ones, else the router's.
    """
    # At the highest precision, because a rounded score is another choice of experts.
    logits = jnp.matmul(x.astype(jnp.float32), weights.router.T, precision="highest")
    scores = jax.nn.sigmoid(logits) if config.topk_method == "noaux_tc" else jax.nn.softmax(logits)
    if chosen is None:
        chosen = choose(config, scores, weights.bias)

    # One (token, expert) pair after the other: a decode step has few of them, so this reads only
    # experts that were chosen and never copies more than one. A gather would copy tokens x chosen
    # matrices, and lax.ragged_dot multiplies by all experts where no grouped GEMM is behind it. A
    # server with many tokens a step sorts them by expert instead.
    def pair(token_expert: tuple[jax.Array, jax.Array]) -> jax.Array:
        token, expert = token_expert
        return swiglu(x[token], Mlp(*(stack[expert] for stack in weights.routed)))

    tokens = jnp.repeat(jnp.arange(len(x)), config.num_experts_per_tok)
    outputs = lax.map(pair, (tokens, chosen.reshape(-1))).reshape(*chosen.shape, -1)
    mix = mixture(config, scores, chosen)
    out = jnp.einsum("tk,tkh->th", mix, outputs.astype(jnp.float32)).astype(x.dtype)
    return out if weights.shared is None else out + swiglu(x, weights.shared), chosen
