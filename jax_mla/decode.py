# SPDX-License-Identifier: Apache-2.0
"""`decode`, the operation of this package, and its primitive."""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.interpreters import xla as xla_interpreter

from jax_mla import compat, lowering, sharding
from jax_mla.batching import fold, mapped_first
from jax_mla.metadata import DecodeMetadata
from jax_mla.reference import evaluate
from jax_mla.target import Target, resolve
from jax_mla.validation import check_choice, check_decode, is_fp8, out_dtype

# --- Public function ------------------------------------------------------------------------------


def decode(
    q: jax.Array,
    kv_pages: jax.Array,
    lengths: jax.Array,
    page_indices: jax.Array,
    *,
    scale: float,
    latent_dim: int = 512,
    metadata: DecodeMetadata | None = None,
    q_scale: jax.Array | None = None,
    kv_scale: jax.Array | None = None,
    return_residuals: bool = False,
    num_kv_splits: int | None = None,
    head_plan: Literal["pad", "rows"] | None = None,
    implementation: Literal["asm", "kernel", "xla"] | None = None,
    target: Target | None = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Multi-head latent attention of new tokens over a paged cache, for 1 to 128 heads.

    A row of the cache is one token for all heads: `latent_dim` numbers that are both key and value,
    then the rotary part of the key. With s = scale * q . k,
    out = sum_k softmax(s)_k * k[:latent_dim], over the keys that the query may see.

    Args:
      q: `[batch, q_len, heads, width]`, or `[batch, heads, width]` for one token per sequence. The
        key up-projection is absorbed in it. bfloat16, float16, float32, float8_e4m3fn or
        float8_e4m3fnuz.
      kv_pages: `[pages, page_size, width]`, the cache with the new tokens in it. q's dtype, or
        float8 for a bfloat16 q.
      lengths: int32 `[batch]`, tokens of each sequence, the q_len new ones counted. Query t sees
        the keys before length - q_len + t + 1. Values are clamped to 0..pages_per_seq * page_size.
      page_indices: int32 `[batch, pages_per_seq]`, pages of each sequence in order. Entries within
        the length are clamped to 0..pages - 1 (`check` finds such); those beyond it are not read.
      scale: factor of the scores, static. The model's 1 / sqrt(qk_nope_head_dim +
        qk_rope_head_dim), times its yarn factor; *not* 1 / sqrt(width).
      latent_dim: leading part of a cache row that is the value, 512 in DeepSeek and its kin.
      metadata: result of `make_metadata` for this step, so that layers share it. None: made inside,
        for split mode.
      q_scale: float32 `[]` or `[1]`, factor of an fp8 q; required for one, else None.
      kv_scale: float32 `[]` or `[1]`, factor of an fp8 cache; required for one, else None.
      return_residuals: return the log-sum-exp of the scores as well.
      num_kv_splits: number of parts that each sequence's keys are cut into. A fixed number makes a
        sequence's result independent of the batch that it is in, to the bit ("xla" promises that
        on the CPU only). None: from static shapes for AITER's kernels; ours on GPUs share the keys
        of all sequences evenly, by their lengths. With metadata of mode "persistent", None.
      head_plan: how AITER's kernels get a head count that they have no code for. None or "pad":
        heads are padded to the next native count. "rows": not padded, where the kernel takes the
        number of rows. The other implementations need neither and ignore it.
      implementation: "asm" (AITER's kernels, ROCm), "kernel" (ours), "xla" (any platform, width and
        dtype). None: the first of these that can run on the platform lowered for.
      target: the GPU to lower for. None: the metadata's, else the platform's default device, else
        MI300X.

    Returns:
      out, shaped like q with width replaced by latent_dim, in q's dtype (bfloat16 for an fp8 q).
      With return_residuals, (out, lse), lse float32 of shape out.shape[:-1], the natural logarithm.
      A query that sees no key gets out 0 and lse -inf.

    Raises:
      TypeError, ValueError: an operand is not as described; the message names it.
      NotImplementedError: while lowering, when an explicit implementation or head_plan has no
        kernel for the call; the message names what is served.

    Whatever lies beyond a sequence's length, in the table or in the cache, may hold anything, NaN
    included, and changes neither values nor gradients. (AITER's kernels read the first row of the
    pool for such slots, with weight 0: with "asm" it must be finite, as `init_cache` makes it.)

    Derivatives are those of `reference`, which gathers the cache and holds all scores.

    Use `jax.shard_map` for sharded operands: a compiler that meets a custom call with sharded
    operands gathers them, cache and all, on every device.
    """
    full_rank, params = prepare(
        q,
        kv_pages,
        lengths,
        page_indices,
        scale=scale,
        latent_dim=latent_dim,
        metadata=metadata,
        q_scale=q_scale,
        kv_scale=kv_scale,
        num_kv_splits=num_kv_splits,
        head_plan=head_plan,
        implementation=implementation,
        target=target,
    )
    sharding.warn_if_sharded(
        "decode", q=q, kv_pages=kv_pages, lengths=lengths, page_indices=page_indices
    )
    arrays = () if metadata is None else metadata.arrays
    scales = tuple(s.reshape(()) for s in (q_scale, kv_scale) if s is not None)
    operands = [
        jnp.asarray(x) for x in (full_rank, kv_pages, lengths, page_indices, *arrays, *scales)
    ]
    # Results vary over whatever an operand varies over; abstract evaluation reads it off q.
    axes = frozenset().union(*map(compat.varying_axes, operands))
    out, lse = mla_decode_p.bind(*(compat.vary_over(x, axes) for x in operands), **params)
    if q.ndim == 3:
        out, lse = out[:, 0], lse[:, 0]
    return (out, lse) if return_residuals else out


def prepare(
    q: jax.Array,
    kv_pages: jax.Array,
    lengths: jax.Array,
    page_indices: jax.Array,
    *,
    scale: float,
    latent_dim: int = 512,
    metadata: DecodeMetadata | None = None,
    q_scale: jax.Array | None = None,
    kv_scale: jax.Array | None = None,
    num_kv_splits: int | None = None,
    head_plan: str | None = None,
    implementation: str | None = None,
    target: Target | None = None,
) -> tuple[jax.Array, dict[str, Any]]:
    """Checks the arguments of decode; q in its full rank and the primitive's parameters."""
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
    )
    check_choice("decode", "head_plan", head_plan, lowering.HEAD_PLANS)
    check_choice("decode", "implementation", implementation, lowering.IMPLEMENTATIONS)
    if target is not None and not isinstance(target, Target):
        raise TypeError(f"decode: target: expected a Target, got {type(target).__name__}")
    q = q if q.ndim == 4 else q[:, None]
    if metadata is not None:
        num_kv_splits, target = _merge_metadata(
            metadata, q, kv_pages, page_indices, num_kv_splits, target
        )
    return q, {
        "scale": float(scale),
        "latent_dim": int(latent_dim),
        "num_kv_splits": None if num_kv_splits is None else int(num_kv_splits),
        "head_plan": head_plan,
        "implementation": implementation,
        "mode": "split" if metadata is None else metadata.spec.mode,
        "target": target,
    }


def _merge_metadata(
    metadata: DecodeMetadata,
    q: jax.Array,
    kv_pages: jax.Array,
    page_indices: jax.Array,
    num_kv_splits: int | None,
    target: Target | None,
) -> tuple[int | None, Target | None]:
    """num_kv_splits and target, the metadata's where not given; every mismatch in one error."""
    if not isinstance(metadata, DecodeMetadata):
        raise TypeError(
            f"decode: metadata: expected a DecodeMetadata, got {type(metadata).__name__}"
        )
    spec = metadata.spec
    num_kv_splits = spec.num_kv_splits if num_kv_splits is None else num_kv_splits
    target = spec.target if target is None else target
    batch, q_len, heads, _ = q.shape
    num_pages, page_size, _ = kv_pages.shape
    call = dataclasses.replace(
        spec,
        page_size=page_size,
        num_pages=num_pages,
        heads=heads,
        q_len=q_len,
        q_dtype=q.dtype,
        kv_dtype=kv_pages.dtype,
        num_kv_splits=num_kv_splits,
        target=target,
    )
    made_for = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    given = {name: getattr(call, name) for name in made_for}
    made_for["batch"] = metadata.kv_indptr.shape[0] - 1
    given["batch"] = batch
    made_for["batch * pages_per_seq * page_size"] = metadata.kv_indices.shape[0]
    given["batch * pages_per_seq * page_size"] = batch * page_indices.shape[1] * page_size
    wrong = [
        f"{name}: made for {made_for[name]}, got {given[name]}"
        for name in made_for
        if made_for[name] != given[name]
    ]
    if wrong:
        raise ValueError("decode: metadata: does not fit this call: " + "; ".join(wrong))
    return num_kv_splits, target


# --- Abstract values ------------------------------------------------------------------------------

mla_decode_p = Primitive("mla_decode")
mla_decode_p.multiple_results = True


def _abstract(q: Any, *_: Any, latent_dim: int, **__: Any) -> Any:
    # Derived from q, which keeps its sharding and the mesh axes that it varies over.
    spec = q.sharding.spec
    out = q.update(
        shape=(*q.shape[:3], latent_dim),
        dtype=out_dtype(q.dtype),
        sharding=q.sharding.update(spec=jax.P(*spec[:3], None)),
    )
    lse = q.update(
        shape=q.shape[:3],
        dtype=jnp.dtype(jnp.float32),
        sharding=q.sharding.update(spec=jax.P(*spec[:3])),
    )
    return out, lse


# --- Lowerings ------------------------------------------------------------------------------------


def _lower_for(platform: str) -> Any:
    lower = sharding.lower_fun(functools.partial(lowering.decode, platform=platform))

    def rule(ctx: Any, *args: Any, target: Target | None, **params: Any) -> Any:
        if platform in ("rocm", "cuda"):
            target = resolve(target, platform, compat.mesh_devices(ctx))
        return lower(ctx, *args, target=target, **params)

    return rule


for _platform in ("cpu", "rocm", "cuda", "tpu"):
    mlir.register_lowering(mla_decode_p, _lower_for(_platform), platform=_platform)
mlir.register_lowering(mla_decode_p, _lower_for("other"))

# --- Transforms -----------------------------------------------------------------------------------


def _batch(args: Any, dims: Any, **params: Any) -> tuple[Any, Any]:
    """Folds the mapped axis into the batch, and that of a mapped pool into its pages."""
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    q, kv_pages, lengths, page_indices = (
        mapped_first(x, d, size) if i != 1 else (x if d is None else jnp.moveaxis(x, d, 0))
        for i, (x, d) in enumerate(zip(args[:4], dims[:4], strict=True))
    )
    num_scales = int(is_fp8(q.dtype)) + int(is_fp8(kv_pages.dtype))
    first_scale = len(args) - num_scales
    if any(d is not None for d in dims[first_scale:]):
        raise NotImplementedError(
            "decode: vmap over q_scale or kv_scale: expected one scale for all examples"
        )
    if dims[1] is not None:
        num_pages = kv_pages.shape[1]
        first = num_pages * jnp.arange(size, dtype=jnp.int32)
        page_indices = jnp.clip(page_indices, 0, num_pages - 1) + first[:, None, None]
        kv_pages = fold(kv_pages)

    # The metadata is left out: it is of one example, and the lowering makes it where it is needed.
    out = mla_decode_p.bind(
        fold(q), kv_pages, fold(lengths), fold(page_indices), *args[first_scale:], **params
    )
    return [x.reshape(size, x.shape[0] // size, *x.shape[1:]) for x in out], [0, 0]


batching.primitive_batchers[mla_decode_p] = _batch


def _jvp(primals: Any, tangents: Any, **params: Any) -> tuple[Any, Any]:
    """The tangent is the reference's; the primal stays the kernel's."""
    out = mla_decode_p.bind(*primals, **params)
    moving = [i for i, t in enumerate(tangents) if not isinstance(t, ad.Zero)]

    def of_moving(*values: jax.Array) -> tuple[jax.Array, jax.Array]:
        operands = list(primals)
        for i, value in zip(moving, values, strict=True):
            operands[i] = value
        return evaluate(operands, scale=params["scale"], latent_dim=params["latent_dim"])

    _, tangents_out = jax.jvp(
        of_moving, [primals[i] for i in moving], [tangents[i] for i in moving]
    )
    return out, list(tangents_out)


ad.primitive_jvps[mla_decode_p] = _jvp

# --- Registration ---------------------------------------------------------------------------------

mla_decode_p.def_abstract_eval(_abstract)
mla_decode_p.def_impl(functools.partial(xla_interpreter.apply_primitive, mla_decode_p))
