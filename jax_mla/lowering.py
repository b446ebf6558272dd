# SPDX-License-Identifier: Apache-2.0
"""Which implementation serves a call on a platform, and the custom calls of those that are ours."""

import dataclasses
import functools
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_mla import aiter, asm, cpu, kernel_plan, native, xla
from jax_mla.call import Call, Unserved
from jax_mla.kernel_plan import KernelPlan
from jax_mla.kernels import Kernel
from jax_mla.metadata import metadata_arrays
from jax_mla.target import Target
from jax_mla.validation import is_fp8, out_dtype

IMPLEMENTATIONS = ("asm", "kernel", "xla")
HEAD_PLANS = ("pad", "rows")

# What each platform can be lowered to, best first; every other platform has "xla" only.
_BY_PLATFORM = {
    "rocm": ("asm", "kernel", "xla"),
    "cuda": ("kernel", "xla"),
    "cpu": ("kernel", "xla"),
}


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
    mode: str,
    target: Target | None,
) -> tuple[jax.Array, jax.Array]:
    """mla_decode_p on `platform`, traced when a program is lowered; target is set on GPUs.

    `rest` holds the metadata arrays (all or none), then the scales that the dtypes call for.
    """
    num_scales = int(is_fp8(q.dtype)) + int(is_fp8(kv_pages.dtype))
    metadata, scales = rest[: len(rest) - num_scales], rest[len(rest) - num_scales :]
    call = make_call(q, kv_pages, page_indices, latent_dim)
    choice = choose(
        implementation,
        platform,
        target,
        call,
        mode=mode,
        num_kv_splits=num_kv_splits,
        head_plan=head_plan,
    )
    if implementation is None and choice.passed_over and platform != "cpu":
        _warn_fallback(platform, choice.implementation, next(iter(choice.passed_over.values())))

    if choice.implementation == "xla":
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

    operands = (q, kv_pages, lengths, page_indices)
    if platform == "cpu":
        return _decode_cpu(call, (*operands, *scales), num_kv_splits, scale)
    assert target is not None
    if choice.asm is not None:
        metadata = metadata or metadata_arrays(
            lengths,
            page_indices,
            page_size=call.page_size,
            num_pages=call.num_pages,
            works=choice.asm.works,
        )
        return _decode_asm(call, operands, metadata, scales, choice.asm, scale, target)
    assert choice.kernel is not None
    return _decode_kernel(call, (*operands, *scales), choice.kernel, scale, platform, target)


def make_call(q: Any, kv_pages: Any, page_indices: Any, latent_dim: int) -> Call:
    """The static side of a call on operands in their full ranks."""
    batch, q_len, num_heads, width = q.shape
    num_pages, page_size, _ = kv_pages.shape
    return Call(
        batch=batch,
        q_len=q_len,
        heads=num_heads,
        width=width,
        latent_dim=latent_dim,
        num_pages=num_pages,
        page_size=page_size,
        pages_per_seq=page_indices.shape[1],
        q_dtype=q.dtype,
        kv_dtype=kv_pages.dtype,
    )


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a call is lowered to.

    Attributes:
      implementation: "asm", "kernel" or "xla".
      asm: the plan of "asm", else None.
      kernel: that of "kernel", else None.
      passed_over: the better ones, best first, and why not.
    """

    implementation: str
    asm: asm.AsmPlan | None
    kernel: KernelPlan | None
    passed_over: Mapping[str, str]


def choose(
    implementation: str | None,
    platform: str,
    target: Target | None,
    call: Call,
    *,
    mode: str,
    num_kv_splits: int | None,
    head_plan: str | None,
) -> Choice:
    """The implementation to lower to.

    An explicit choice is held against what there are kernels for, not against this machine: the
    program may be lowered here and run elsewhere.

    Raises:
      NotImplementedError: the explicit implementation cannot serve the call.
    """
    candidates = _BY_PLATFORM.get(platform, ("xla",))
    refused: dict[str, str] = {}
    plan, own = None, None
    for name in candidates:
        try:
            if name == "asm":
                assert target is not None
                plan = asm.plan(
                    call, target, mode=mode, num_kv_splits=num_kv_splits, head_plan=head_plan
                )
            elif name == "kernel" and platform == "cpu":
                cpu.check(call)
            elif name == "kernel":
                assert target is not None
                own = kernel_plan.plan(call, target, num_kv_splits=num_kv_splits)
            if implementation is None:
                _check_here(platform, name, plan)
        except Unserved as error:
            refused[name] = str(error)

    if implementation is None:
        chosen = next(name for name in candidates if name not in refused)
    else:
        chosen = implementation
        if chosen in refused or chosen not in candidates:
            reason = refused.get(chosen, f"there is none for platform {platform!r}")
            served = ", ".join(repr(name) for name in candidates if name not in refused)
            raise NotImplementedError(
                f"decode: implementation={chosen!r}: {reason}; served for this call: {served}"
            )
    better = candidates[: candidates.index(chosen)]
    passed_over = {name: reason for name, reason in refused.items() if name in better}
    return Choice(
        chosen,
        plan if chosen == "asm" else None,
        own if chosen == "kernel" else None,
        passed_over,
    )


def _check_here(platform: str, name: str, plan: asm.AsmPlan | None) -> None:
    """Refuses what this installation cannot launch."""
    if name != "xla" and (platform, name) not in native.LAUNCHES:
        raise Unserved(
            native.ABSENT or f"this build of jax_mla has no device code of {name!r} for {platform}"
        )
    if name == "asm" and plan is not None:
        aiter.find(plan.kernel)


@functools.cache
def _warn_fallback(platform: str, chosen: str, reason: str) -> None:
    warnings.warn(
        f"decode: lowering for {platform} with implementation={chosen!r}: {reason}", stacklevel=2
    )


def _decode_asm(
    call: Call,
    operands: tuple[jax.Array, ...],
    metadata: tuple[jax.Array, ...],
    scales: tuple[jax.Array, ...],
    plan: asm.AsmPlan,
    scale: float,
    target: Target,
) -> tuple[jax.Array, jax.Array]:
    """The custom call of AITER's kernels, which says all that the handler has to know of them."""
    q, *others = operands
    # Constants of the program, of rank 2: XLA would launch a kernel to make such a vector.
    steps = [_multiples(plan.heads.groups * call.batch, call.q_len)]
    if plan.mode == "split":
        steps.append(_multiples(call.batch, plan.num_kv_splits))
    return _custom_call(
        "jax_mla_decode_asm_rocm_v1",
        call,
        (plan.heads.apply(q), *others, *metadata, *steps, *scales),
        plan.workspace_bytes,
        heads=np.int64(plan.heads.heads),
        padded_heads=np.int64(plan.heads.padded_heads),
        head_stride=np.int64(plan.heads.head_stride),
        mode=plan.mode,
        num_kv_splits=np.int64(plan.num_kv_splits),
        scale=np.float32(scale),
        arch=target.arch,
        compute_units=np.int64(target.compute_units),
        code_object=_code_object(plan.kernel),
        workgroup_rows=np.int64(plan.kernel.rows),
        row_argument=np.int64(plan.row_argument),
        kv_block=np.int64(plan.kernel.kv_block),
        scale_out=plan.kernel.kv_scale == "scores",
    )


def _multiples(last: Any, step: int) -> Any:
    """int32 `[1, last + 1]`: 0, step, 2 * step and so on to last * step."""
    if isinstance(last, int):
        return np.arange(last + 1, dtype=np.int32)[None] * np.int32(step)
    return jax.lax.broadcasted_iota(jnp.int32, (1, last + 1), 1) * step


def _code_object(kernel: Kernel) -> str:
    """SHA-256 of the file to launch: the one that is here, or else the one of the table."""
    try:
        return aiter.find(kernel).sha256
    except Unserved:
        return kernel.sha256


def _decode_kernel(
    call: Call,
    operands: tuple[jax.Array, ...],
    plan: KernelPlan,
    scale: float,
    platform: str,
    target: Target,
) -> tuple[jax.Array, jax.Array]:
    """The custom call of our own kernels, which take any number of heads."""
    return _custom_call(
        f"jax_mla_decode_kernel_{platform}_v1",
        call,
        operands,
        plan.workspace_bytes,
        source=plan.source,
        heads=np.int64(call.heads),
        num_kv_splits=np.int64(plan.num_kv_splits),
        workers=np.int64(plan.workers),
        scale=np.float32(scale),
        arch=target.arch,
        compute_units=np.int64(target.compute_units),
    )


def _decode_cpu(
    call: Call,
    operands: tuple[jax.Array, ...],
    num_kv_splits: int | None,
    scale: float,
) -> tuple[jax.Array, jax.Array]:
    """The custom call of the native code for CPUs."""
    splits, part_tokens = cpu.cuts(call, num_kv_splits)
    return _custom_call(
        "jax_mla_decode_kernel_cpu_v1",
        call,
        operands,
        cpu.workspace_bytes(call, splits),
        num_kv_splits=np.int64(splits),
        part_tokens=np.int64(part_tokens),
        scale=np.float32(scale),
    )


def _custom_call(
    name: str,
    call: Call,
    operands: tuple[jax.Array, ...],
    workspace_bytes: Any,
    **attributes: Any,
) -> tuple[jax.Array, jax.Array]:
    """Real heads come out; the workspace is a result that nobody reads.

    The name and the attributes are a file format once a program is exported. Attributes are typed
    strictly, hence the NumPy scalars.
    """
    rows = (call.batch, call.q_len, call.heads)
    out, lse, _ = jax.ffi.ffi_call(
        name,
        (
            jax.ShapeDtypeStruct((*rows, call.latent_dim), out_dtype(call.q_dtype)),
            jax.ShapeDtypeStruct(rows, jnp.float32),
            jax.ShapeDtypeStruct((workspace_bytes,), jnp.uint8),
        ),
    )(*operands, **attributes)
    return out, lse
