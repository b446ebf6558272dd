# SPDX-License-Identifier: Apache-2.0
"""Decode as one writes it without a kernel, in jax.numpy and in PyTorch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WIDTH, LATENT = 576, 512
SCALE = 192**-0.5
BLOCK = 512  # tokens, of which sequences have a multiple


def plain(q: jax.Array, pages: jax.Array, lengths: jax.Array, page_indices: jax.Array) -> jax.Array:
    """Gather, einsum, softmax, einsum."""
    kv = pages[page_indices].reshape(q.shape[0], -1, WIDTH)
    scores = jnp.einsum("bhw,bsw->bhs", q, kv, preferred_element_type=jnp.float32) * SCALE
    seen = jnp.arange(kv.shape[1]) < lengths[:, None]
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -jnp.inf)).astype(kv.dtype)
    values = kv[..., :LATENT]
    out = jnp.einsum("bhs,bsl->bhl", weights, values, preferred_element_type=jnp.float32)
    return out.astype(q.dtype)


def blockwise(
    q: jax.Array, bits: jax.Array, lengths: jax.Array, page_indices: jax.Array
) -> jax.Array:
    """Online softmax, block by block, of pages as the uint16 `bits` of their bfloat16.

    XLA on the CPU would turn a bfloat16 pool to float32 as a whole before the loop.
    """
    batch, heads, _ = q.shape
    pages_per_block = BLOCK // bits.shape[1]

    def step(i: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        top, total, out = carry
        pages = jax.lax.dynamic_slice_in_dim(page_indices, i * pages_per_block, pages_per_block, 1)
        kv = jax.lax.bitcast_convert_type(bits[pages], jnp.bfloat16).reshape(batch, BLOCK, WIDTH)
        scores = jnp.einsum("bhw,bsw->bhs", q, kv, preferred_element_type=jnp.float32) * SCALE
        seen = i * BLOCK + jnp.arange(BLOCK) < lengths[:, None]
        scores = jnp.where(seen[:, None], scores, -jnp.inf)
        new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
        weights, decay = jnp.exp(scores - new_top), jnp.exp(top - new_top)
        products = jnp.einsum(
            "bhs,bsl->bhl",
            weights.astype(kv.dtype),
            kv[..., :LATENT],
            preferred_element_type=jnp.float32,
        )
        return new_top, total * decay + weights.sum(-1, keepdims=True), out * decay + products

    shape = (batch, heads, 1)
    start = jnp.full(shape, -1e30), jnp.zeros(shape), jnp.zeros((batch, heads, LATENT))
    blocks = page_indices.shape[1] // pages_per_block
    _, total, out = jax.lax.fori_loop(0, blocks, step, start)
    return (out / total).astype(q.dtype)


def in_torch(
    torch: Any, q: jax.Array, pages: Any, tables: list[np.ndarray]
) -> dict[str, Callable[[int], Any]]:
    """Gather and scaled_dot_product_attention, or matrix products; all tokens are seen, unmasked.

    Heads are rows of one query, so that they share keys. The attention's value is all columns,
    because torch has its fast kernels for equal widths of key and value only.
    """
    queries = torch.tensor(np.asarray(q).astype(np.float32)).to(pages.device, pages.dtype)
    indices = [torch.from_numpy(table.astype(np.int64)).to(pages.device) for table in tables]

    def attention(kv: Any) -> Any:
        attend = torch.nn.functional.scaled_dot_product_attention
        kv = kv[:, None]
        return attend(queries[:, None], kv, kv, is_causal=False, scale=SCALE)[:, 0, :, :LATENT]

    def products(kv: Any) -> Any:
        scores = torch.bmm(queries, kv.transpose(1, 2)).float() * SCALE
        return torch.bmm(torch.softmax(scores, -1).to(kv.dtype), kv[..., :LATENT])

    def entry(function: Callable[[Any], Any]) -> Callable[[int], Any]:
        def call(i: int) -> Any:
            with torch.inference_mode():
                out = function(pages[indices[i]].view(len(queries), -1, WIDTH))
            if out.is_cuda:
                torch.cuda.synchronize()
            return out

        return call

    return {"torch_attention": entry(attention), "torch_products": entry(products)}
