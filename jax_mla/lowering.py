# SPDX-License-Identifier: Apache-2.0
"""Which implementation serves a call on a platform, and the custom call of the GPU ones."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from jax_mla import heads, native, xla
from jax_mla.metadata import default_num_kv_splits, split_metadata
from jax_mla.target import Target, resolve
from jax_mla.validation import is_fp8, out_dtype

IMPLEMENTATIONS = ("asm", "kernel", "xla")
HEAD_PLANS = ("pad", "rows")

# What each platform can be lowered to, best first; every other platform has "xla" only.
_BY_PLATFORM = {"rocm": ("asm", "kernel", "xla"), "cuda": ("kernel", "xla")}
# (latent_dim, rope) of the cache rows that there are kernels for.
_WIDTHS = {"asm": ((512, 64),), "kernel": ((512, 64), (256, 64), (256, 32), (512, 0))}
_UNSERVED_DTYPES = {"asm": (jnp.float16, jnp.float32), "kernel": (jnp.float32,)}


def decode(
    q: jax.Array,
    kv_pages: jax.Array,
    lengths: jax.Array,
    page_indices: jax.Array,
    *rest: jax.Array,
    platform: str,
    scale: float,
    latent_dim: int,
    num_kv_splits: int | None,
    head_plan: str | None,
    implementation: str | None,
    target: Target | None,
) -> tuple[jax.Array, jax.Array]:
    """mla_decode_p on `platform`, traced when a program is lowered.

    `rest` holds the metadata arrays (all or none), then the scales that the dtypes call for.
    """
    num_scales = int(is_fp8(q.dtype)) + int(is_fp8(kv_pages.dtype))
    metadata, scales = rest[: len(rest) - num_scales], rest[len(rest) - num_scales :]
    if platform in _BY_PLATFORM:
        target = resolve(target, platform)
    chosen = _choose(implementation, platform, target, q, kv_pages, latent_dim)

    if chosen == "xla":
        out, lse = xla.decode(
            q,
            kv_pages,
            lengths,
            page_indices,
            q_scale=scales[0] if is_fp8(q.dtype) else None,
            kv_scale=scales[-1] if is_fp8(kv_pages.dtype) else None,
            scale=scale,
            latent_dim=latent_dim,
            num_kv_splits=num_kv_splits or 1,
            sequential=platform == "cpu",
        )
        return out.astype(out_dtype(q.dtype)), lse

    assert target is not None
    num_pages, page_size, _ = kv_pages.shape
    if chosen == "asm":
        plan = _asm_head_plan(head_plan, q, kv_pages, target)
        metadata = metadata or split_metadata(
            lengths, page_indices, page_size=page_size, num_pages=num_pages
        )
    else:
        plan, metadata = heads.unpadded(q.shape[2]), ()
    capacity = page_indices.shape[1] * page_size
    return _custom_call(
        f"jax_mla_decode_{platform}_v1",
        (plan.apply(q), kv_pages, lengths, page_indices, *metadata, *scales),
        plan,
        latent_dim=latent_dim,
        scale=scale,
        num_kv_splits=num_kv_splits or default_num_kv_splits(q.shape[0], capacity, target),
        implementation=chosen,
        target=target,
    )


def _choose(
    implementation: str | None,
    platform: str,
    target: Target | None,
    q: jax.Array,
    kv_pages: jax.Array,
    latent_dim: int,
) -> str:
    """The implementation to lower to; what an explicit one cannot serve is refused here.

    An explicit choice is held against what there are kernels for, not against this machine: the
    program may be lowered here and run elsewhere.
    """
    candidates = _BY_PLATFORM.get(platform, ("xla",))
    reasons = {
        name: reason
        for name in candidates
        if (reason := _refusal(name, target, q, kv_pages, latent_dim)) is not None
    }
    served = [name for name in candidates if name not in reasons]
    if implementation is None:
        ready = [name for name in served if name == "xla" or (platform, name) in native.LAUNCHES]
        if ready[0] != candidates[0]:
            _warn_fallback(
                platform, ready[0], reasons.get(candidates[0]) or _why_not_ready(platform)
            )
        return ready[0]
    if implementation not in served:
        reason = reasons.get(implementation, f"there is none for platform {platform!r}")
        names = ", ".join(map(repr, served))
        raise NotImplementedError(
            f"decode: implementation={implementation!r}: {reason}; served for this call: {names}"
        )
    return implementation


def _refusal(
    implementation: str, target: Target | None, q: jax.Array, kv_pages: jax.Array, latent_dim: int
) -> str | None:
    """Why `implementation` has no kernel for these operands on `target`; None if it has."""
    if implementation == "xla":
        return None
    assert target is not None
    if implementation == "asm" and target.arch not in ("gfx942", "gfx950"):
        return f"expected arch gfx942 or gfx950, got {target.arch}"
    widths = _WIDTHS[implementation]
    width = (latent_dim, q.shape[3] - latent_dim)
    if width not in widths:
        names = ", ".join(f"{latent}+{rope}" for latent, rope in widths)
        return f"expected latent_dim + rope of {names}, got {width[0]}+{width[1]}"
    if q.dtype in _UNSERVED_DTYPES[implementation]:
        return f"expected a bfloat16 or float8 q, got {q.dtype}"
    fp8 = jnp.float8_e4m3fnuz if target.arch == "gfx942" else jnp.float8_e4m3fn
    for name, dtype in (("q", q.dtype), ("kv_pages", kv_pages.dtype)):
        if is_fp8(dtype) and dtype != fp8:
            return f"{name}: expected {jnp.dtype(fp8)} on {target.arch}, got {dtype}"
    return None


def _why_not_ready(platform: str) -> str:
    return native.ABSENT or f"this version of jax_mla has no device code for {platform}"


@functools.cache
def _warn_fallback(platform: str, chosen: str, reason: str) -> None:
    warnings.warn(
        f"decode: lowering for {platform} with implementation={chosen!r}: {reason}", stacklevel=2
    )


def _asm_head_plan(
    head_plan: str | None, q: jax.Array, kv_pages: jax.Array, target: Target
) -> heads.HeadPlan:
    """Pads, unless the kernel that runs takes the number of rows and the caller asks for that."""
    _, q_len, num_heads, _ = q.shape
    if head_plan != "rows":
        return heads.padded(num_heads)
    takes_rows = q.dtype == jnp.bfloat16 == kv_pages.dtype or (
        is_fp8(q.dtype) and target.arch == "gfx942"
    )
    if not takes_rows or q_len != 1 or num_heads > heads.NATIVE_HEADS[0]:
        raise NotImplementedError(
            f"decode: head_plan='rows': expected at most {heads.NATIVE_HEADS[0]} heads, "
            f"q_len 1 and bfloat16 (on gfx942 also float8) for q and kv_pages, got {num_heads} "
            f"heads, q_len {q_len}, {q.dtype} and {kv_pages.dtype} on {target.arch}; served: 'pad'"
        )
    return heads.unpadded(num_heads)


def _custom_call(
    name: str,
    operands: tuple[jax.Array, ...],
    plan: heads.HeadPlan,
    *,
    latent_dim: int,
    scale: float,
    num_kv_splits: int,
    implementation: str,
    target: Target,
) -> tuple[jax.Array, jax.Array]:
    """GPU custom call v1: real heads come out; the workspace is a result that nobody reads.

    The name and the attributes are a file format once a program is exported. Attributes are typed
    strictly, hence the NumPy scalars.
    """
    q = operands[0]
    batch, q_len = q.shape[:2]
    rows = batch * q_len * num_kv_splits * plan.padded_heads
    out, lse, _ = jax.ffi.ffi_call(
        name,
        (
            jax.ShapeDtypeStruct((batch, q_len, plan.heads, latent_dim), out_dtype(q.dtype)),
            jax.ShapeDtypeStruct((batch, q_len, plan.heads), jnp.float32),
            # One float32 partial output and log-sum-exp per split.
            jax.ShapeDtypeStruct((rows * (latent_dim + 1) * 4,), jnp.uint8),
        ),
    )(
        *operands,
        heads=np.int64(plan.heads),
        padded_heads=np.int64(plan.padded_heads),
        head_stride=np.int64(plan.head_stride),
        implementation=implementation,
        num_kv_splits=np.int64(num_kv_splits),
        scale=np.float32(scale),
        arch=target.arch,
        compute_units=np.int64(target.compute_units),
    )
    return out, lse
