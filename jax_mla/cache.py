# SPDX-License-Identifier: Apache-2.0
"""The paged cache: making it, writing to it, checking a table against it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.interpreters import xla as xla_interpreter

from jax_mla import compat, native, sharding
from jax_mla.batching import fold, mapped_first
from jax_mla.validation import (
    check_array,
    check_fp8_scale,
    check_pool,
    check_positive_int,
    check_rank,
    check_size,
    check_table,
    is_fp8,
)

# --- Public functions -----------------------------------------------------------------------------


def init_cache(
    num_pages: int, page_size: int, *, width: int = 576, dtype: Any = jnp.bfloat16
) -> jax.Array:
    """An empty cache for one layer: zeros `[num_pages, page_size, width]`.

    Keep one array per layer: scanning over stacked caches copies a layer's pool every step.
    """
    for name, value in (("num_pages", num_pages), ("page_size", page_size), ("width", width)):
        check_positive_int("init_cache", name, value)
    return jnp.zeros((num_pages, page_size, width), dtype)


def append(
    kv_pages: jax.Array,
    rows: jax.Array,
    lengths: jax.Array,
    page_indices: jax.Array,
    *,
    kv_scale: jax.Array | None = None,
) -> jax.Array:
    """Writes new tokens at the end of each sequence; in place where kv_pages is donated.

    Args:
      kv_pages: `[pages, page_size, width]`.
      rows: `[batch, q_len, width]`, the new tokens: latent, then rotary part. The cache's dtype, or
        any float dtype for an fp8 cache, for which they are divided by kv_scale and saturated.
      lengths: int32 `[batch]`, tokens of each sequence, the new ones counted, as in `decode`: token
        t goes to position length - q_len + t. Positions before 0 or past the table are dropped.
      page_indices: int32 `[batch, pages_per_seq]`. Rows whose page is not in 0..pages - 1 are
        dropped.
      kv_scale: float32 `[]` or `[1]` for rows that are to be quantised, else None.

    Returns:
      kv_pages with the rows written.

    Raises:
      TypeError, ValueError: an operand is not as described; the message names it.
    """
    op = "append"
    check_array(op, "kv_pages", kv_pages)
    check_array(op, "rows", rows)
    check_pool(op, kv_pages)
    check_rank(op, "rows", rows, "batch, q_len, width")
    check_table(op, lengths, page_indices)
    check_size(op, "rows", "batch", rows.shape[0], lengths.shape[0], "lengths")
    check_size(op, "rows", "width", rows.shape[2], kv_pages.shape[2], "kv_pages")
    if rows.dtype != kv_pages.dtype:
        if not is_fp8(kv_pages.dtype):
            raise TypeError(
                f"{op}: rows: expected {kv_pages.dtype} like kv_pages, got {rows.dtype}"
            )
        check_fp8_scale(op, "kv_scale", kv_scale, "kv_pages", kv_pages.dtype)
        assert kv_scale is not None
        rows = _quantise(rows, kv_scale.reshape(()), kv_pages.dtype)
    elif kv_scale is not None:
        raise ValueError(
            f"{op}: kv_scale: expected None for rows in the cache's dtype, got a scale"
        )

    sharding.warn_if_sharded(
        op, kv_pages=kv_pages, rows=rows, lengths=lengths, page_indices=page_indices
    )
    operands = [jnp.asarray(x) for x in (kv_pages, rows, lengths, page_indices)]
    axes = frozenset().union(*map(compat.varying_axes, operands))
    updated: jax.Array
    (updated,) = mla_append_p.bind(*(compat.vary_over(x, axes) for x in operands))
    return updated


def _quantise(rows: jax.Array, scale: jax.Array, dtype: np.dtype) -> jax.Array:
    """rows / scale in fp8. A plain conversion turns what is too large into NaN."""
    largest = float(jnp.finfo(dtype).max)
    return jnp.clip(rows.astype(jnp.float32) / scale, -largest, largest).astype(dtype)


def check(lengths: Any, page_indices: Any, *, page_size: int, num_pages: int) -> None:
    """Looks at the values of a table, on the host: what `decode` would clamp silently.

    Args:
      lengths: int32 `[batch]`.
      page_indices: int32 `[batch, pages_per_seq]`.
      page_size: tokens of a page.
      num_pages: pages of the cache.

    Raises:
      ValueError: a length is outside 0..pages_per_seq * page_size, or a page within a length is
        outside 0..num_pages - 1; every such row is named.
      TypeError: the arguments are traced, or not int32 arrays.
    """
    op = "check"
    check_table(op, lengths, page_indices)
    check_positive_int(op, "page_size", page_size)
    check_positive_int(op, "num_pages", num_pages)
    if isinstance(lengths, jax.core.Tracer) or isinstance(page_indices, jax.core.Tracer):
        raise TypeError(f"{op}: expected concrete arrays, got traced ones; call it outside of jit")
    table = np.asarray(page_indices)
    capacity = table.shape[1] * page_size
    problems = []
    for row, length in enumerate(np.asarray(lengths).tolist()):
        if not 0 <= length <= capacity:
            problems.append(f"row {row}: length: expected 0..{capacity}, got {length}")
        used = table[row, : -(-min(length, capacity) // page_size)]
        for slot in np.flatnonzero((used < 0) | (used >= num_pages)).tolist():
            problems.append(
                f"row {row}: page_indices[{slot}]: expected 0..{num_pages - 1}, got {used[slot]}"
            )
    if problems:
        raise ValueError(f"{op}: {len(problems)} problem(s): " + "; ".join(problems))


# --- Abstract values ------------------------------------------------------------------------------

mla_append_p = Primitive("mla_append")
mla_append_p.multiple_results = True


def _abstract(kv_pages: Any, *_: Any) -> Any:
    return (kv_pages,)


# --- Lowerings ------------------------------------------------------------------------------------


def _scatter(
    kv_pages: jax.Array, rows: jax.Array, lengths: jax.Array, page_indices: jax.Array
) -> tuple[jax.Array]:
    num_pages, page_size, _ = kv_pages.shape
    capacity = page_indices.shape[1] * page_size
    q_len = rows.shape[1]
    position = lengths[:, None] - q_len + jnp.arange(q_len, dtype=jnp.int32)
    slot = jnp.clip(position, 0, capacity - 1) // page_size
    page = jnp.take_along_axis(page_indices, slot, axis=1)
    wanted = (position >= 0) & (position < capacity) & (page >= 0)
    # From num_pages on is out of bounds, which drops the row, where a negative index would count
    # from the end. A different one for each row, so that no two go to the same place.
    nowhere = num_pages + jnp.arange(page.size, dtype=jnp.int32).reshape(page.shape)
    page = jnp.where(wanted & (page < num_pages), page, nowhere)
    place = kv_pages.at[page, position % page_size]
    return (place.set(rows, mode="drop", unique_indices=True),)


def _native(kv_pages: jax.Array, *operands: jax.Array) -> list[jax.Array]:
    """In place, which XLA's CPU backend is not: it widens a bfloat16 pool around a scatter."""
    call = jax.ffi.ffi_call(
        "jax_mla_append_cpu_v1",
        [jax.ShapeDtypeStruct(kv_pages.shape, kv_pages.dtype)],
        input_output_aliases={0: 0},
    )
    return list(call(kv_pages, *operands))


mlir.register_lowering(mla_append_p, sharding.lower_fun(_scatter))
if native.ABSENT is None:
    mlir.register_lowering(mla_append_p, sharding.lower_fun(_native), platform="cpu")

# --- Transforms -----------------------------------------------------------------------------------


def _batch(args: Any, dims: Any) -> tuple[Any, Any]:
    """Folds the mapped axis into the batch, and the pools, one an example, into one."""
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    kv_pages, rows, lengths, page_indices = (
        mapped_first(x, d, size) for x, d in zip(args, dims, strict=True)
    )
    num_pages = kv_pages.shape[1]
    first = num_pages * jnp.arange(size, dtype=jnp.int32)[:, None, None]
    # A page outside of its own pool must not land in a neighbour's.
    inside = (page_indices >= 0) & (page_indices < num_pages)
    page_indices = jnp.where(inside, page_indices + first, size * num_pages)
    (updated,) = mla_append_p.bind(*(fold(x) for x in (kv_pages, rows, lengths, page_indices)))
    return [updated.reshape(size, num_pages, *updated.shape[1:])], [0]


batching.primitive_batchers[mla_append_p] = _batch


def _jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    """Linear in the pool and the rows: the tangent is written as the rows are."""
    _, _, lengths, page_indices = primals
    pool, rows = (
        jnp.zeros_like(p) if isinstance(t, ad.Zero) else t
        for p, t in zip(primals[:2], tangents[:2], strict=True)
    )
    return mla_append_p.bind(*primals), list(_scatter(pool, rows, lengths, page_indices))


ad.primitive_jvps[mla_append_p] = _jvp

# --- Registration ---------------------------------------------------------------------------------

mla_append_p.def_abstract_eval(_abstract)
mla_append_p.def_impl(functools.partial(xla_interpreter.apply_primitive, mla_append_p))
