# SPDX-License-Identifier: Apache-2.0
"""What a step's layers share: made once a step on the device, an XLA value like any other."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jax.interpreters import xla as xla_interpreter

from jax_mla import compat, sharding, xla
from jax_mla.target import Target
from jax_mla.validation import (
    MAX_HEADS,
    check_array,
    check_dtypes,
    check_index,
    check_positive_int,
    check_rank,
    check_size,
    check_table,
)

MODES = ("split", "persistent")

# --- Public functions -----------------------------------------------------------------------------


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("kv_indptr", "kv_indices"), meta_fields=("spec",)
)
@dataclasses.dataclass(frozen=True)
class DecodeMetadata:
    """Result of `make_metadata`, a pytree: pass it to `decode`, do not look inside.

    Attributes:
      kv_indptr: int32 `[batch + 1]`, where each sequence's tokens begin in kv_indices.
      kv_indices: int32 `[batch * pages_per_seq * page_size]`, token indices into the pool, packed.
      spec: the static arguments that it was made for.
    """

    kv_indptr: jax.Array
    kv_indices: jax.Array
    spec: "MetadataSpec"

    @property
    def arrays(self) -> tuple[jax.Array, ...]:
        return self.kv_indptr, self.kv_indices


@dataclasses.dataclass(frozen=True)
class MetadataSpec:
    """Static arguments of `make_metadata`; decode compares them with its operands."""

    page_size: int
    num_pages: int
    heads: int
    q_len: int
    q_dtype: np.dtype
    kv_dtype: np.dtype
    mode: str
    num_kv_splits: int | None
    target: Target | None


def make_metadata(
    lengths: jax.Array,
    page_indices: jax.Array,
    *,
    page_size: int,
    num_pages: int,
    heads: int,
    q_len: int = 1,
    q_dtype: Any,
    kv_dtype: Any,
    mode: str = "split",
    num_kv_splits: int | None = None,
    target: Target | None = None,
) -> DecodeMetadata:
    """Prepares a step: once before the layers, for every layer's `decode`.

    Args:
      lengths: int32 `[batch]`, tokens in the cache including the step's q_len new ones.
      page_indices: int32 `[batch, pages_per_seq]`.
      page_size: tokens of a page of the cache.
      num_pages: pages of the cache.
      heads: query heads that decode will be given (per device under shard_map).
      q_len: query tokens per sequence.
      q_dtype: dtype of q.
      kv_dtype: dtype of the cache.
      mode: "split". "persistent" is not served in this version.
      num_kv_splits: fixed number of parts that each sequence is cut into; see `decode`.
      target: the GPU to plan for; see `decode`.

    Returns:
      DecodeMetadata of static size: `4 * batch * pages_per_seq * page_size` bytes.

    Raises:
      TypeError, ValueError: an argument is not as described.
      NotImplementedError: mode is "persistent".
    """
    op = "make_metadata"
    check_table(op, lengths, page_indices)
    check_positive_int(op, "page_size", page_size)
    check_positive_int(op, "num_pages", num_pages)
    check_positive_int(op, "heads", heads, at_most=MAX_HEADS)
    check_positive_int(op, "q_len", q_len)
    q_dtype, kv_dtype = jnp.dtype(q_dtype), jnp.dtype(kv_dtype)
    check_dtypes(op, q_dtype, kv_dtype)
    if num_kv_splits is not None:
        check_positive_int(op, "num_kv_splits", num_kv_splits)
    if mode not in MODES:
        raise ValueError(f"{op}: mode: expected one of {', '.join(map(repr, MODES))}, got {mode!r}")
    if mode == "persistent":
        raise NotImplementedError(f"{op}: mode='persistent': not in this version; served: 'split'")
    _check_int32(op, "num_pages * page_size", num_pages * page_size)
    _check_int32(op, "batch * capacity", page_indices.shape[0] * page_indices.shape[1] * page_size)
    spec = MetadataSpec(
        page_size, num_pages, heads, q_len, q_dtype, kv_dtype, mode, num_kv_splits, target
    )
    arrays = split_metadata(lengths, page_indices, page_size=page_size, num_pages=num_pages)
    return DecodeMetadata(*arrays, spec)


def _check_int32(op: str, name: str, value: Any) -> None:
    if isinstance(value, int) and value >= 2**31:
        raise ValueError(f"{op}: {name}: expected below 2**31 (int32 token indices), got {value}")


def split_metadata(
    lengths: jax.Array, page_indices: jax.Array, *, page_size: int, num_pages: int
) -> tuple[jax.Array, jax.Array]:
    """kv_indptr and kv_indices of split mode."""
    axes = compat.varying_axes(lengths) | compat.varying_axes(page_indices)
    indptr, indices = mla_metadata_p.bind(
        compat.vary_over(jnp.asarray(lengths), axes),
        compat.vary_over(jnp.asarray(page_indices), axes),
        page_size=int(page_size),
        num_pages=int(num_pages),
    )
    return indptr, indices


def default_num_kv_splits(batch: Any, capacity: Any, target: Target) -> int:
    """Splits of split mode where the caller does not fix them; always at least 2.

    Two workgroups per compute unit, at least 64 tokens a split; 16 where the batch or the capacity
    is symbolic. Reads nothing but static shapes: results do not depend on the lengths at hand.
    """
    if not isinstance(batch, int) or not isinstance(capacity, int):
        return 16
    wanted = -(-2 * target.compute_units // max(batch, 1))
    return max(2, min(64, wanted, -(-capacity // 64)))


def from_csr(
    kv_indptr: jax.Array,
    kv_indices: jax.Array,
    kv_last_page_lens: jax.Array | None = None,
    *,
    page_size: int,
    pages_per_seq: int,
) -> tuple[jax.Array, jax.Array]:
    """Lengths and page table from the ragged form of AITER, vLLM, SGLang and FlashInfer.

    Args:
      kv_indptr: int32 `[batch + 1]`, where each sequence's pages begin in kv_indices.
      kv_indices: int32 `[pages in use]`, page ids; entries past kv_indptr[-1] are ignored.
      kv_last_page_lens: int32 `[batch]`, tokens in each sequence's last page. None: all full.
      page_size: tokens of a page.
      pages_per_seq: width of the table that is returned. A longer sequence raises ValueError, or
        loses its end where the arguments are traced and cannot be looked at.

    Returns:
      lengths int32 `[batch]` and page_indices int32 `[batch, pages_per_seq]`, 0 where unused.
    """
    op = "from_csr"
    names = {"kv_indptr": kv_indptr, "kv_indices": kv_indices}
    if kv_last_page_lens is not None:
        names["kv_last_page_lens"] = kv_last_page_lens
    for name, x in names.items():
        check_array(op, name, x)
        check_index(op, name, x)
        check_rank(op, name, x, "batch + 1" if name == "kv_indptr" else "batch")
    if kv_indptr.shape[0] < 1:
        raise ValueError(f"{op}: kv_indptr: expected [batch + 1], got shape {kv_indptr.shape}")
    check_positive_int(op, "page_size", page_size)
    check_positive_int(op, "pages_per_seq", pages_per_seq)
    batch = kv_indptr.shape[0] - 1
    if kv_last_page_lens is not None:
        got = kv_last_page_lens.shape[0]
        check_size(op, "kv_last_page_lens", "batch", got, batch, "kv_indptr")

    kv_indptr = jnp.asarray(kv_indptr)
    pages = kv_indptr[1:] - kv_indptr[:-1]
    if not isinstance(pages, jax.core.Tracer) and int(pages.max(initial=0)) > pages_per_seq:
        raise ValueError(
            f"{op}: pages_per_seq: expected at least {int(pages.max())}, the pages of sequence "
            f"{int(pages.argmax())}, got {pages_per_seq}"
        )
    unfilled = 0 if kv_last_page_lens is None else page_size - jnp.asarray(kv_last_page_lens)
    lengths = jnp.where(pages > 0, pages * page_size - unfilled, 0)
    column = jnp.arange(pages_per_seq, dtype=jnp.int32)
    entry = kv_indptr[:-1, None] + column
    # An empty kv_indices has no entry to read, and no sequence reads one.
    indices = jnp.pad(jnp.asarray(kv_indices), (0, 1))
    table = jnp.where(column < pages[:, None], indices.at[entry].get(mode="clip"), 0)
    return lengths, table


# --- Abstract values ------------------------------------------------------------------------------

mla_metadata_p = Primitive("mla_metadata")
mla_metadata_p.multiple_results = True


def _abstract(lengths: Any, page_indices: Any, *, page_size: int, num_pages: int) -> Any:
    batch, pages_per_seq = page_indices.shape
    # Derived from an operand, which keeps what it varies over. The packed indices mix sequences, so
    # no sharding of the batch survives.
    spec = jax.P(None)
    like = lengths.update(sharding=lengths.sharding.update(spec=spec))
    return (
        like.update(shape=(batch + 1,)),
        like.update(shape=(batch * pages_per_seq * page_size,)),
    )


# --- Lowerings ------------------------------------------------------------------------------------

mlir.register_lowering(mla_metadata_p, sharding.lower_fun(xla.token_indices))

# --- Transforms -----------------------------------------------------------------------------------


def _batch(
    args: tuple[jax.Array, jax.Array], dims: tuple[int | None, int | None], **params: int
) -> tuple[Any, Any]:
    """Maps over the operation: the packed indices of one example end in its own unused slots."""
    lengths, page_indices = args
    one = functools.partial(
        xla.token_indices, page_size=params["page_size"], num_pages=params["num_pages"]
    )
    return jax.vmap(one, in_axes=dims)(lengths, page_indices), (0, 0)


batching.primitive_batchers[mla_metadata_p] = _batch

# --- Registration ---------------------------------------------------------------------------------

mla_metadata_p.def_abstract_eval(_abstract)
mla_metadata_p.def_impl(functools.partial(xla_interpreter.apply_primitive, mla_metadata_p))
