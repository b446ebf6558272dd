# SPDX-License-Identifier: Apache-2.0
"""The decoder, with its attention in two forms: absorbed on a paged cache, and expanded in full."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

import jax_mla
from deepseek.config import LATENT, Config
from deepseek.moe import Mlp, Moe, moe, swiglu
from deepseek.rope import rotate, rotation

# The norms of the two latents do not follow config.rms_norm_eps.
_LATENT_EPS = 1e-6


class Attention(NamedTuple):
    """Attention weights, in the published layout `[out, in]` with the heads split off."""

    q_a: jax.Array | None  # [q_lora_rank, hidden]; None: q straight from the hidden state
    q_a_norm: jax.Array | None  # [q_lora_rank] float32
    q: jax.Array  # [heads, nope + 64, q_lora_rank or hidden]
    kv_a: jax.Array  # [512 + 64, hidden]
    kv_a_norm: jax.Array  # [512] float32
    k_b: jax.Array  # [heads, nope, 512]: W_UK
    v_b: jax.Array  # [heads, v, 512]: W_UV
    o: jax.Array  # [hidden, heads, v]


class Layer(NamedTuple):
    """Weights of one decoder layer."""

    attention_norm: jax.Array  # [hidden] float32
    attention: Attention
    mlp_norm: jax.Array  # [hidden] float32
    mlp: Mlp | Moe


class Params(NamedTuple):
    """All weights of the model."""

    embedding: jax.Array  # [vocab, hidden]
    layers: tuple[Layer, ...]
    norm: jax.Array  # [hidden] float32
    head: jax.Array  # [vocab, hidden]


class Prediction(NamedTuple):
    """What a step says about the token after the last one, and the experts it used."""

    token: jax.Array  # [batch] int32, the most likely one
    logits: jax.Array  # [batch, vocab] float32
    chosen: tuple[jax.Array, ...]  # a mixture-of-experts layer each: [batch, q_len, experts]


class Projected(NamedTuple):
    """What attention needs of new tokens, in either form."""

    q_nope: jax.Array  # [batch, q_len, heads, nope]
    q_rope: jax.Array  # [batch, q_len, heads, 64], rotated
    latent: jax.Array  # [batch, q_len, 512], normed
    k_rope: jax.Array  # [batch, q_len, 64], rotated


# Takes the layer's number, its weights and the projected tokens; returns [batch, q_len, heads, v].
Attend = Callable[[int, Attention, Projected], jax.Array]


def step(
    config: Config,
    params: Params,
    caches: Sequence[jax.Array],
    tokens: jax.Array,
    lengths: jax.Array,
    page_indices: jax.Array,
    mode: str = "split",
) -> tuple[Prediction, list[jax.Array]]:
    """Appends new tokens to the caches and predicts what follows the last of them.

    Prefill and decode are this one function at different q_len. A row of the batch that has fewer
    than q_len tokens so far holds them at its right end; what stands left of them has no effect.

    Args:
      caches: one paged cache `[num_pages, page_size, 576]` a layer. A list, never one stacked
        array: XLA updates each in place, where it would copy slices of a stack at every step.
      tokens: int32 `[batch, q_len]`.
      lengths: int32 `[batch]`, the tokens of each row, with the new ones.
      page_indices: int32 `[batch, pages_per_seq]`.
      mode: how the keys are shared out on the GPU, "split" or "persistent"; see `make_metadata`.

    Returns:
      the prediction, and the new caches.
    """
    caches = list(caches)
    num_pages, page_size, _ = caches[0].shape
    q_len = tokens.shape[1]
    # Made once, used by every layer: it depends on the lengths and pages alone.
    metadata = jax_mla.make_metadata(
        lengths,
        page_indices,
        page_size=page_size,
        num_pages=num_pages,
        heads=config.num_attention_heads,
        q_len=q_len,
        q_dtype=caches[0].dtype,
        kv_dtype=caches[0].dtype,
        mode=mode,
    )

    def attend(number: int, weights: Attention, new: Projected) -> jax.Array:
        rows = jnp.concatenate([new.latent, new.k_rope], axis=-1)
        caches[number] = jax_mla.append(caches[number], rows, lengths, page_indices)
        # q.(W_UK latent) = (W_UK^T q).latent: the heads then share one key, the cached row.
        q_latent = jnp.einsum("bthn,hnl->bthl", new.q_nope, weights.k_b)
        context = jax_mla.decode(
            jnp.concatenate([q_latent, new.q_rope], axis=-1),
            caches[number],
            lengths,
            page_indices,
            scale=config.softmax_scale,
            metadata=metadata,
        )
        return jnp.einsum("bthl,hvl->bthv", context, weights.v_b)

    positions = _positions(lengths, q_len)
    hidden, chosen = _decoder(config, params, tokens, positions, attend)
    logits = _logits(config, params, hidden[:, -1])
    return Prediction(jnp.argmax(logits, axis=-1).astype(jnp.int32), logits, chosen), caches


def forward(
    config: Config,
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    chosen: tuple[jax.Array, ...] | None = None,
) -> jax.Array:
    """Logits `[batch, length, vocab]`, float32, of whole sequences, without a cache.

    The textbook form, to check `step` against: every head has its own keys and values.

    Args:
      tokens: int32 `[batch, length]`, right-aligned as in `step`.
      lengths: int32 `[batch]`, the tokens of each row.
      chosen: experts `[batch, length, chosen]` of each mixture-of-experts layer, to be used in
        place of the router's choice. Rounding turns near ties between experts, and another expert
        is another result; with the same choices, results of different precision are comparable.
    """
    positions = _positions(lengths, tokens.shape[1])
    query, key = positions[:, :, None], positions[:, None, :]
    visible = ((key >= 0) & (key <= query))[:, None]

    def attend(number: int, weights: Attention, new: Projected) -> jax.Array:
        del number
        k_nope = jnp.einsum("bsl,hnl->bshn", new.latent, weights.k_b)
        v = jnp.einsum("bsl,hvl->bshv", new.latent, weights.v_b)
        scores = jnp.einsum("bthn,bshn->bhts", new.q_nope, k_nope).astype(jnp.float32)
        scores += jnp.einsum("bthr,bsr->bhts", new.q_rope, new.k_rope)
        # Not -inf: what stands left of a sequence sees no key, and must not become NaN.
        scores = jnp.where(visible, scores * config.softmax_scale, -1e30)
        return jnp.einsum("bhts,bshv->bthv", jax.nn.softmax(scores).astype(v.dtype), v)

    hidden, _ = _decoder(config, params, tokens, positions, attend, chosen)
    return _logits(config, params, hidden)


def _positions(lengths: jax.Array, q_len: int) -> jax.Array:
    """int32 `[batch, q_len]`, of the last q_len tokens; negative left of a sequence."""
    return (lengths - q_len)[:, None] + jnp.arange(q_len)


def _decoder(
    config: Config,
    params: Params,
    tokens: jax.Array,
    positions: jax.Array,
    attend: Attend,
    replayed: tuple[jax.Array, ...] | None = None,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The hidden states `[batch, q_len, hidden]` before the last norm, and the experts chosen."""
    cos, sin = rotation(config.rope, positions)
    x = params.embedding[tokens]
    chosen: tuple[jax.Array, ...] = ()
    for number, layer in enumerate(params.layers):
        weights = layer.attention
        normed = _rms_norm(x, layer.attention_norm, config.rms_norm_eps)
        heads = attend(number, weights, _project(config, weights, normed, cos, sin))
        x += jnp.einsum("bthv,dhv->btd", heads, weights.o)
        normed = _rms_norm(x, layer.mlp_norm, config.rms_norm_eps)
        if isinstance(layer.mlp, Mlp):
            x += swiglu(normed, layer.mlp)
        else:
            experts = None if replayed is None else replayed[len(chosen)]
            out, experts = _moe(config, layer.mlp, normed, experts)
            x += out
            chosen += (experts,)
    return x, chosen


def _project(
    config: Config, weights: Attention, x: jax.Array, cos: jax.Array, sin: jax.Array
) -> Projected:
    interleaved = config.rope.interleaved
    kv = x @ weights.kv_a.T
    latent = _rms_norm(kv[..., :LATENT], weights.kv_a_norm, _LATENT_EPS)
    k_rope = rotate(kv[..., LATENT:], cos, sin, interleaved=interleaved)
    if weights.q_a is not None and weights.q_a_norm is not None:
        x = _rms_norm(x @ weights.q_a.T, weights.q_a_norm, _LATENT_EPS)
    q = jnp.einsum("btd,hqd->bthq", x, weights.q)
    q_nope, q_rope = jnp.split(q, [config.qk_nope_head_dim], axis=-1)
    q_rope = rotate(q_rope, cos[:, :, None], sin[:, :, None], interleaved=interleaved)
    return Projected(q_nope, q_rope, latent, k_rope)


def _moe(
    config: Config, weights: Moe, x: jax.Array, chosen: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """`moe` on tokens that are in batches."""
    assert config.experts is not None
    batch = x.shape[:-1]
    if chosen is not None:
        chosen = chosen.reshape(-1, chosen.shape[-1])
    out, chosen = moe(config.experts, x.reshape(-1, x.shape[-1]), weights, chosen)
    return out.reshape(x.shape), chosen.reshape(*batch, -1)


def _rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    wide = x.astype(jnp.float32)
    wide *= jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return (wide * weight).astype(x.dtype)


def _logits(config: Config, params: Params, x: jax.Array) -> jax.Array:
    normed = _rms_norm(x, params.norm, config.rms_norm_eps)
    return jnp.matmul(normed, params.head.T, preferred_element_type=jnp.float32)
