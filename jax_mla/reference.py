# SPDX-License-Identifier: Apache-2.0
"""MLA decode written down plainly: gathers the cache, holds every score, differentiable."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jax_mla.validation import check_decode, is_fp8, out_dtype


def reference(
    q: jax.Array,
    kv_pages: jax.Array,
    lengths: jax.Array,
    page_indices: jax.Array,
    *,
    scale: float,
    latent_dim: int = 512,
    metadata: Any = None,
    q_scale: jax.Array | None = None,
    kv_scale: jax.Array | None = None,
    return_residuals: bool = False,
    num_kv_splits: int | None = None,
    head_plan: Any = None,
    implementation: Any = None,
    target: Any = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """What `decode` computes, with the same arguments; those that choose a kernel do nothing.

    Computes in float32, or float64 where x64 is enabled. Memory: the gathered cache
    `[batch, pages_per_seq * page_size, width]` and the scores of all heads.

    Args, Returns, Raises: see `decode`.
    """
    check_decode(
        q,
        kv_pages,
        lengths,
        page_indices,
        scale=scale,
        latent_dim=latent_dim,
        q_scale=q_scale,
        kv_scale=kv_scale,
        num_kv_splits=num_kv_splits,
        op="reference",
    )
    full_rank = q if q.ndim == 4 else q[:, None]
    scales = tuple(s.reshape(()) for s in (q_scale, kv_scale) if s is not None)
    out, lse = evaluate(
        [full_rank, kv_pages, lengths, page_indices, *scales], scale=scale, latent_dim=latent_dim
    )
    if q.ndim == 3:
        out, lse = out[:, 0], lse[:, 0]
    return (out, lse) if return_residuals else out


def evaluate(
    operands: Sequence[jax.Array], *, scale: float, latent_dim: int
) -> tuple[jax.Array, jax.Array]:
    """The reference on the operands of mla_decode_p, of which it skips the metadata."""
    q, kv_pages, lengths, page_indices = map(jnp.asarray, operands[:4])
    dtype = jnp.result_type(float)
    factor = jnp.asarray(scale, dtype)
    if is_fp8(q.dtype):
        factor = factor * operands[-2]
    kv_factor = operands[-1].astype(dtype) if is_fp8(kv_pages.dtype) else jnp.ones((), dtype)

    batch, q_len, _, width = q.shape
    num_pages, page_size, _ = kv_pages.shape
    capacity = page_indices.shape[1] * page_size
    lengths = jnp.clip(lengths, 0, capacity)
    token = jnp.arange(capacity, dtype=jnp.int32)
    query = jnp.arange(q_len, dtype=jnp.int32)
    live = token < lengths[:, None]
    seen = token < (lengths[:, None] - q_len + 1 + query)[..., None]

    # Values and scores are both masked before use: 0 * NaN is NaN, in gradients too.
    kv = kv_pages[jnp.clip(page_indices, 0, num_pages - 1)].reshape(batch, capacity, width)
    kv = jnp.where(live[..., None], kv, jnp.zeros((), kv.dtype)).astype(dtype) * kv_factor
    scores = factor * jnp.einsum(
        "bthw,bsw->bths", q.astype(dtype), kv, precision=lax.Precision.HIGHEST
    )
    scores = jnp.where(seen[:, :, None], scores, -jnp.inf)
    any_seen = jnp.any(seen, axis=-1)[:, :, None]
    # Rows that see nothing get harmless scores, whose results are then replaced: a softmax over
    # -inf alone has NaN derivatives even where its value is not used.
    scores = jnp.where(any_seen[..., None], scores, 0.0)
    lse = jax.nn.logsumexp(scores, axis=-1)
    weights = jnp.where(seen[:, :, None], jnp.exp(scores - lse[..., None]), 0.0)
    out = jnp.einsum(
        "bths,bsl->bthl", weights, kv[..., :latent_dim], precision=lax.Precision.HIGHEST
    )
    lse = jnp.where(any_seen, lse, -jnp.inf)
    return out.astype(out_dtype(q.dtype)), lse.astype(jnp.float32)
