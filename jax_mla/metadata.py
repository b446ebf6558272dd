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

from jax_mla import asm, compat, native, persistent, sharding, xla
from jax_mla.call import Call, Unserved
from jax_mla.kernels import MODES
from jax_mla.target import Target, resolve
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

# --- Public functions -----------------------------------------------------------------------------


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("kv_indptr", "kv_indices", "work_indptr", "work_info", "reduce_indptr"),
    meta_fields=("spec",),
)
@dataclasses.dataclass(frozen=True)
class DecodeMetadata:
    """Result of `make_metadata`, a pytree: pass it to `decode`, do not look inside.

    Attributes:
      kv_indptr: int32 `[batch + 1]`, where each sequence's tokens begin in kv_indices.
      kv_indices: int32 `[batch * pages_per_seq * page_size]`, token indices into the pool, packed.
      work_indptr, work_info, reduce_indptr: the plan of persistent mode (jax_mla/persistent.py);
        None in split mode.
      spec: the static arguments that it was made for.
    """

    kv_indptr: jax.Array
    kv_indices: jax.Array
    work_indptr: jax.Array | None
    work_info: jax.Array | None
    reduce_indptr: jax.Array | None
    spec: "MetadataSpec"

    @property
    def arrays(self) -> tuple[jax.Array, ...]:
        """Those that are there, in the order that custom calls take them."""
        plan = (self.work_indptr, self.work_info, self.reduce_indptr)
        return self.kv_indptr, self.kv_indices, *(x for x in plan if x is not None)


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
      mode: "split" cuts every sequence into the same number of parts. "persistent" gives every
        compute unit its share of the batch's tokens, for ragged batches; "asm" alone makes use of
        it, and results then depend on the batch in their last bits.
      num_kv_splits: fixed number of parts that split mode cuts each sequence into; see `decode`.
      target: the GPU to plan for; see `decode`. Sizes in persistent mode depend on it, so there it
        is resolved here, for the ROCm platform.

    Returns:
      DecodeMetadata of static size: int32 `batch + 1` and `batch * pages_per_seq * page_size`, in
      persistent mode `units + 1`, `8 * (batch * groups + units - 1)` and `batch * groups + 1` as
      well, with groups (1 up to 16 heads) and units (at most target.compute_units) of `explain`.

    Raises:
      TypeError, ValueError: an argument is not as described, or token indices would pass int32.
      NotImplementedError: mode is "persistent" and AITER has no kernel for the rest; the message
        says what it has.
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
    batch, pages_per_seq = page_indices.shape
    _check_int32(op, "num_pages * page_size", num_pages * page_size)
    _check_int32(op, "batch * capacity", batch * pages_per_seq * page_size)
    works = None
    if mode == "persistent":
        target = resolve(target, "rocm")
        call = Call(
            batch=batch,
            q_len=q_len,
            heads=heads,
            width=asm.LATENT_DIM + asm.ROPE,
            latent_dim=asm.LATENT_DIM,
            num_pages=num_pages,
            page_size=page_size,
            pages_per_seq=pages_per_seq,
            q_dtype=q_dtype,
            kv_dtype=kv_dtype,
        )
        try:
            works = asm.plan(call, target, mode=mode, num_kv_splits=num_kv_splits).works
        except Unserved as reason:
            raise NotImplementedError(f"{op}: mode='persistent': {reason}") from None
    spec = MetadataSpec(
        page_size, num_pages, heads, q_len, q_dtype, kv_dtype, mode, num_kv_splits, target
    )
    kv_indptr, kv_indices, *plan = metadata_arrays(
        lengths, page_indices, page_size=page_size, num_pages=num_pages, works=works
    )
    work_indptr, work_info, reduce_indptr = plan or (None, None, None)
    return DecodeMetadata(kv_indptr, kv_indices, work_indptr, work_info, reduce_indptr, spec)


def _check_int32(op: str, name: str, value: Any) -> None:
    if isinstance(value, int) and value >= 2**31:
        raise ValueError(f"{op}: {name}: expected below 2**31 (int32 token indices), got {value}")


def metadata_arrays(
    lengths: jax.Array,
    page_indices: jax.Array,
    *,
    page_size: int,
    num_pages: int,
    works: persistent.Plan | None,
) -> tuple[jax.Array, ...]:
    """kv_indptr and kv_indices, and in persistent mode work_indptr, work_info, reduce_indptr."""
    axes = compat.varying_axes(lengths) | compat.varying_axes(page_indices)
    arrays = mla_metadata_p.bind(
        compat.vary_over(jnp.asarray(lengths), axes),
        compat.vary_over(jnp.asarray(page_indices), axes),
        page_size=int(page_size),
        num_pages=int(num_pages),
        works=works,
    )
    return tuple(arrays)


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


def _abstract(
    lengths: Any,
    page_indices: Any,
    *,
    page_size: int,
    num_pages: int,
    works: persistent.Plan | None,
) -> Any:
    # Derived from an operand, which keeps what it varies over. The packed indices mix sequences, so
    # no sharding of the batch survives.
    return [
        lengths.update(shape=s, sharding=lengths.sharding.update(spec=jax.P(*[None] * len(s))))
        for s in _shapes(page_indices, page_size, works)
    ]


def _shapes(
    page_indices: Any, page_size: int, works: persistent.Plan | None
) -> list[tuple[Any, ...]]:
    batch, pages_per_seq = page_indices.shape
    shapes: list[tuple[Any, ...]] = [(batch + 1,), (batch * pages_per_seq * page_size,)]
    if works is not None:
        shapes += [
            (works.units + 1,),
            (works.max_works(batch), persistent.WORK_FIELDS),
            (batch * works.groups + 1,),
        ]
    return shapes


# --- Lowerings ------------------------------------------------------------------------------------


def _arrays(
    lengths: jax.Array,
    page_indices: jax.Array,
    *,
    page_size: int,
    num_pages: int,
    works: persistent.Plan | None,
) -> tuple[jax.Array, ...]:
    indptr, indices = xla.token_indices(
        lengths, page_indices, page_size=page_size, num_pages=num_pages
    )
    if works is None:
        return indptr, indices
    return indptr, indices, *persistent.make_plan(indptr, works)


def _arrays_on_rocm(
    lengths: jax.Array,
    page_indices: jax.Array,
    *,
    page_size: int,
    num_pages: int,
    works: persistent.Plan | None,
) -> tuple[jax.Array, ...]:
    """One launch, and in persistent mode a second."""
    batch = lengths.shape[0]
    if ("rocm", "asm") not in native.LAUNCHES or (isinstance(batch, int) and batch == 0):
        return _arrays(lengths, page_indices, page_size=page_size, num_pages=num_pages, works=works)
    plan = {} if works is None else dataclasses.asdict(works)
    fields = {name: np.int64(plan.get(name, 0)) for name in ("groups", "q_len", "block", "units")}
    shapes = _shapes(page_indices, page_size, works)
    arrays = jax.ffi.ffi_call(
        "jax_mla_metadata_rocm_v1", [jax.ShapeDtypeStruct(s, jnp.int32) for s in shapes]
    )(
        lengths,
        page_indices,
        page_size=np.int64(page_size),
        num_pages=np.int64(num_pages),
        **fields,
    )
    return tuple(arrays)


mlir.register_lowering(mla_metadata_p, sharding.lower_fun(_arrays))
mlir.register_lowering(mla_metadata_p, sharding.lower_fun(_arrays_on_rocm), platform="rocm")

# --- Transforms -----------------------------------------------------------------------------------


def _batch(
    args: tuple[jax.Array, jax.Array], dims: tuple[int | None, int | None], **params: Any
) -> tuple[Any, Any]:
    """Maps over the operation: the packed indices of one example end in its own unused slots."""
    lengths, page_indices = args
    arrays: Any = functools.partial(_arrays, **params)
    mapped = jax.vmap(arrays, in_axes=dims)(lengths, page_indices)
    return mapped, [0] * len(mapped)


batching.primitive_batchers[mla_metadata_p] = _batch

# --- Registration ---------------------------------------------------------------------------------

mla_metadata_p.def_abstract_eval(_abstract)
mla_metadata_p.def_impl(functools.partial(xla_interpreter.apply_primitive, mla_metadata_p))
