# SPDX-License-Identifier: Apache-2.0
"""MLA decode in plain XLA: serves every platform, dtype pair and width.

Flash-decoding over blocks of KV: memory grows with a block, not with the cache.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jax_mla import compat

# Tokens of every sequence that one step of the loop gathers, over all splits.
BLOCK_TOKENS = 512
# Rows, (query, head) pairs, of one matrix product. A fixed number, so that the same head gets the
# same bits whatever other heads are in the call: under shard_map, or next to padding.
ROW_TILE = 16
# Longest sum of products that is taken in one piece for float32 operands. XLA's CPU backend adds
# along one chain: in parts the error of the scores is a quarter, which only float32 shows.
_CHUNK = 64


def decode(
    q: jax.Array,
    kv_pages: jax.Array,
    lengths: jax.Array,
    page_indices: jax.Array,
    *,
    q_scale: jax.Array | None,
    kv_scale: jax.Array | None,
    scale: float,
    latent_dim: int,
    num_kv_splits: int,
    sequential: bool,
) -> tuple[jax.Array, jax.Array]:
    """Decode on checked operands in their full ranks.

    Args:
      q: `[batch, q_len, heads, width]`.
      kv_pages: `[pages, page_size, width]`.
      lengths: int32 `[batch]`, any value.
      page_indices: int32 `[batch, pages_per_seq]`, any value.
      q_scale: float32 `[]`, or None.
      kv_scale: float32 `[]`, or None.
      scale: factor of the scores.
      latent_dim: leading part of a cache row that is the value.
      num_kv_splits: parts that each sequence's keys are cut into, merged at the end.
      sequential: one sequence after the other rather than all side by side. On the CPU a block then
        stays in the cache, a short sequence does not wait for a long one, and the shapes of the
        matrix products, and with them the last bits, do not depend on the batch.

    Returns:
      out `[batch, q_len, heads, latent_dim]` and lse `[batch, q_len, heads]`, float32.
    """
    decode_batch = functools.partial(
        _decode_batch,
        kv_pages=kv_pages,
        factor=_product(scale, q_scale, kv_scale),
        latent_dim=latent_dim,
        splits=num_kv_splits,
    )

    def decode_one(sequence: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        out, lse = decode_batch(*(x[None] for x in sequence))
        return out[0], lse[0]

    if sequential:
        out, lse = lax.map(decode_one, (q, lengths, page_indices))
    else:
        out, lse = decode_batch(q, lengths, page_indices)
    return (out if kv_scale is None else out * kv_scale), lse


def _decode_batch(
    q: jax.Array,
    lengths: jax.Array,
    page_indices: jax.Array,
    *,
    kv_pages: jax.Array,
    factor: jax.Array,
    latent_dim: int,
    splits: int,
) -> tuple[jax.Array, jax.Array]:
    """out and lse of sequences side by side, with factor times q . k as scores."""
    batch, q_len, heads, width = q.shape
    page_size, capacity = kv_pages.shape[1], page_indices.shape[1] * kv_pages.shape[1]
    block = _block_tokens(capacity, splits)
    chunk = _CHUNK if kv_pages.dtype == jnp.float32 else width

    lengths = jnp.clip(lengths, 0, capacity)
    rows = q.reshape(batch, q_len * heads, width).astype(jnp.float32) * factor
    # Query t sees the keys before length - q_len + t + 1.
    query = lax.broadcasted_iota(jnp.int32, (q_len, heads), 0).reshape(-1)
    visible = lengths[:, None] - q_len + 1 + query
    # A lane is one split of one sequence, and has sums of its own.
    rows, visible = (_tiles(_lanes(x, splits)) for x in (rows, visible))

    def step(i: jax.Array, sums: _Sums) -> _Sums:
        token = i * (splits * block) + jnp.arange(splits * block, dtype=jnp.int32)
        kv = _gather(kv_pages, page_indices, token // page_size, token % page_size, tie=i)
        # Slots beyond the length may hold NaN: mask the values, not only the scores.
        kv = jnp.where((token < lengths[:, None])[..., None], kv, 0.0)
        kv = kv.reshape(batch * splits, block, width)
        token = jnp.tile(token.reshape(splits, 1, block), (batch, 1, 1))

        def update(tile: tuple[jax.Array, jax.Array, _Sums]) -> _Sums:
            rows, visible, sums = tile
            seen = token < visible[..., None]
            return _update(sums, rows, kv, seen, latent_dim=latent_dim, chunk=chunk)

        updated: _Sums = lax.map(update, (rows, visible, sums))
        return updated

    shape = rows.shape[:-1]
    axes = compat.varying_axes(q)
    start = _Sums(
        top=compat.vary_over(jnp.full(shape, -jnp.inf, jnp.float32), axes),
        total=compat.vary_over(jnp.zeros(shape, jnp.float32), axes),
        values=compat.vary_over(jnp.zeros((*shape, latent_dim), jnp.float32), axes),
    )
    steps = -(-jnp.max(lengths, initial=0) // (splits * block))
    sums = lax.fori_loop(jnp.zeros_like(steps), steps, step, start)
    out, lse = _merge(_Sums(*(_untile(x, q_len * heads) for x in sums)), splits)
    shape = (batch, q_len, heads)
    return out.reshape(*shape, latent_dim), lse.reshape(shape)


class _Sums(NamedTuple):
    """What the rows of each lane know of the keys they have seen.

    Attributes:
      top: `[..., lanes, rows]`, the largest score, -inf where there was none.
      total: `[..., lanes, rows]`, sum of exp(score - top).
      values: `[..., lanes, rows, latent_dim]`, sum of exp(score - top) * value.
    """

    top: jax.Array
    total: jax.Array
    values: jax.Array


def _update(
    sums: _Sums,
    rows: jax.Array,
    kv: jax.Array,
    seen: jax.Array,
    *,
    latent_dim: int,
    chunk: int,
) -> _Sums:
    """Online softmax: takes a block of keys into the sums of a tile of rows.

    Args:
      sums: of the tile.
      rows: `[lanes, ROW_TILE, width]`, scaled.
      kv: `[lanes, block, width]`.
      seen: `[lanes, ROW_TILE, block]`, which row sees which key.
      latent_dim: leading part of a key that is the value.
      chunk: part of the width that one product sums over.
    """
    product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    parts = (slice(start, start + chunk) for start in range(0, rows.shape[-1], chunk))
    scores = sum(product("brw,bnw->brn", rows[..., part], kv[..., part]) for part in parts)
    scores = jnp.where(seen, scores, -jnp.inf)
    top = jnp.maximum(sums.top, scores.max(axis=-1))
    shift = jnp.where(top == -jnp.inf, 0.0, top)
    decay = jnp.exp(sums.top - shift)
    weights = jnp.exp(scores - shift[..., None])
    values = product("brn,bnl->brl", weights, kv[..., :latent_dim])
    return _Sums(
        top, sums.total * decay + weights.sum(axis=-1), sums.values * decay[..., None] + values
    )


def _merge(sums: _Sums, splits: int) -> tuple[jax.Array, jax.Array]:
    """out `[batch, rows, latent_dim]` and lse of all splits; 0 and -inf where no key was seen."""
    sums = _Sums(*(x.reshape(x.shape[0] // splits, splits, *x.shape[1:]) for x in sums))
    top = sums.top.max(axis=1)
    shift = jnp.where(top == -jnp.inf, 0.0, top)

    # In order, split by split: how a reduction is compiled depends on the batch, and so would the
    # last bits of the result.
    def add(split: jax.Array, merged: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        part = _Sums(*(lax.dynamic_index_in_dim(x, split, 1, keepdims=False) for x in sums))
        weight = jnp.exp(part.top - shift)
        total, values = merged
        return total + weight * part.total, values + weight[..., None] * part.values

    start = jnp.zeros_like(sums.total[:, 0]), jnp.zeros_like(sums.values[:, 0])
    total, values = lax.fori_loop(0, splits, add, start)
    return values / jnp.where(total == 0.0, 1.0, total)[..., None], shift + jnp.log(total)


def _lanes(x: jax.Array, splits: int) -> jax.Array:
    """`[batch, ...]` to `[batch * splits, ...]`, each sequence repeated for its splits."""
    batch, *rest = x.shape
    return jnp.broadcast_to(x[:, None], (batch, splits, *rest)).reshape(batch * splits, *rest)


def _tiles(x: jax.Array) -> jax.Array:
    """`[batch, rows, ...]` to `[tiles, batch, ROW_TILE, ...]`, the last one padded."""
    batch, rows, *rest = x.shape
    x = jnp.pad(x, ((0, 0), (0, -rows % ROW_TILE), *((0, 0) for _ in rest)))
    return jnp.moveaxis(x.reshape(batch, -(-rows // ROW_TILE), ROW_TILE, *rest), 1, 0)


def _untile(x: jax.Array, rows: int) -> jax.Array:
    """Undoes `_tiles`: `[tiles, batch, ROW_TILE, ...]` to `[batch, rows, ...]`."""
    tiles, batch, _, *rest = x.shape
    return jnp.moveaxis(x, 0, 1).reshape(batch, tiles * ROW_TILE, *rest)[:, :rows]


def _block_tokens(capacity: int, splits: int) -> int:
    """Tokens of a block of one split: a step takes one block of every split."""
    block = max(16, BLOCK_TOKENS // splits)
    return min(block, -(-capacity // splits)) if isinstance(capacity, int) else block


def _product(scale: float, *factors: jax.Array | None) -> jax.Array:
    """scale times the factors that are there, in float32."""
    product: jax.Array = jnp.float32(scale)
    for factor in factors:
        if factor is not None:
            product = product * factor
    return product


def _gather(
    kv_pages: jax.Array, page_indices: jax.Array, slot: jax.Array, row: jax.Array, *, tie: jax.Array
) -> jax.Array:
    """Rows `[batch, tokens, width]` in float32 of the tokens at page `slot`, row `row`.

    XLA's CPU backend has no bfloat16 gather: it widens the operand to float32, the whole pool, and
    moves that out of the loop. So the bits are gathered. On jax 0.10 the view of the pool as bits
    is moved out of the loop and materialised too, unless something of the loop (`tie`) holds it.
    """
    page = jnp.take(page_indices, slot, axis=1, mode="clip")
    page = jnp.clip(page, 0, kv_pages.shape[0] - 1)
    tokens: jax.Array
    if kv_pages.dtype == jnp.float32:
        tokens = kv_pages.at[page, row].get(mode="promise_in_bounds")
        return tokens
    kv_pages, _ = lax.optimization_barrier((kv_pages, tie))
    bits = lax.bitcast_convert_type(kv_pages, jnp.dtype(f"uint{8 * kv_pages.dtype.itemsize}"))
    tokens = bits.at[page, row].get(mode="promise_in_bounds")
    return lax.bitcast_convert_type(tokens, kv_pages.dtype).astype(jnp.float32)


def token_indices(
    lengths: jax.Array, page_indices: jax.Array, *, page_size: int, num_pages: int
) -> tuple[jax.Array, jax.Array]:
    """The paged table as packed token indices (CSR), what kernels of page size 1 take.

    Returns:
      kv_indptr int32 `[batch + 1]` and kv_indices int32 `[batch * pages_per_seq * page_size]`, of
      which the first `kv_indptr[-1]` are used and the others are 0.
    """
    batch, pages_per_seq = page_indices.shape
    size = batch * pages_per_seq * page_size
    lengths = jnp.clip(lengths, 0, pages_per_seq * page_size)
    indptr = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(lengths, dtype=jnp.int32)])
    token = jnp.arange(pages_per_seq * page_size, dtype=jnp.int32)
    page = jnp.clip(page_indices, 0, num_pages - 1)[:, token // page_size]
    # What lies beyond a length goes out of bounds, and is dropped.
    place = jnp.where(token < lengths[:, None], indptr[:-1, None] + token, size)
    indices = compat.vary_over(jnp.zeros(size, jnp.int32), compat.varying_axes(lengths))
    return indptr, indices.at[place].set(page * page_size + token % page_size, mode="drop")
