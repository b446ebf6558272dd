# SPDX-License-Identifier: Apache-2.0
"""Runs decode on the default device and holds it against the reference: `doctor --selftest`."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_mla import aiter, native
from jax_mla.decode import decode
from jax_mla.explain import explain_sizes
from jax_mla.metadata import make_metadata
from jax_mla.reference import reference
from jax_mla.target import Target, platform_of, resolve
from jax_mla.validation import is_fp8

HEADS = (1, 3, 4, 8, 12, 16, 24)
DTYPES = ("bf16", "fp8", "bf16-fp8")
_LENGTHS = (130, 0, 17)
_PAGE_SIZE = 16
_PAGES_PER_SEQ = 9
_ABSURD_PAGE = 2147480000
_SCALE = 192**-0.5


@dataclasses.dataclass(frozen=True)
class Check:
    """One call of decode.

    Attributes:
      name: implementation, dtypes, mode and heads.
      passed: whether the result was right; None if the call is not served here.
      detail: how far off it was, or why it was not run.
    """

    name: str
    passed: bool | None
    detail: str


def run() -> Iterator[Check]:
    """Every implementation that this installation has for the default device, call after call.

    A kernel that takes fewer heads without padding is run both ways, for the same bits.
    """
    platform = platform_of(jax.devices()[0])
    # On the CPU the target only says which float8 it is.
    target = resolve(None, "rocm" if platform == "rocm" else "cuda")
    ours = [name for name in ("asm", "kernel") if (platform, name) in native.LAUNCHES]
    for implementation in (*ours, "xla"):
        # The others do the same in both modes.
        modes = ("split", "persistent") if implementation == "asm" else ("split",)
        for dtypes, mode, heads in itertools.product(DTYPES, modes, HEADS):
            yield from _check(platform, target, implementation, dtypes, mode, heads)


def _check(
    platform: str, target: Target, implementation: str, dtypes: str, mode: str, heads: int
) -> Iterator[Check]:
    name = f"{implementation}, {dtypes}, {mode}, {heads} heads"
    try:
        plan = explain_sizes(
            heads,
            target=target,
            dtypes=dtypes,
            mode=mode,
            batch=len(_LENGTHS),
            tokens=_PAGES_PER_SEQ * _PAGE_SIZE,
            page_size=_PAGE_SIZE,
            platform=platform,
            implementation=implementation,
        ).asm
        if plan is not None:
            aiter.find(plan.kernel)
    except NotImplementedError as reason:
        yield Check(name, None, str(reason))
        return
    try:
        case = _make(target, dtypes)
        padded = case.decode(heads, implementation, mode)
        right = [x[:, :heads] for x in case.expected]
        # AITER's kernels round the probabilities to q's fp8; ours and the reference do not.
        bar = _FP8_BAR if dtypes == "fp8" and implementation == "asm" else _BAR
        share = _share_of_bar(bar, *padded, *right)
        yield Check(name, share <= 1, f"{share:.2f} of the allowed error")
        if plan is not None and plan.kernel.takes_rows and heads < plan.kernel.heads:
            rows = case.decode(heads, implementation, mode, head_plan="rows")
            same = all(map(np.array_equal, rows, padded))
            said = "the same bits as with padding" if same else "other bits than with padding"
            yield Check(f"{name}, not padded", same, said)
    except Exception as error:  # whatever it is, it is what the test has found
        yield Check(name, False, f"{type(error).__name__}: {error}")


# --- Cases ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Case:
    """Operands of decode for the most heads, on no device yet."""

    q: np.ndarray
    kv_pages: np.ndarray
    lengths: np.ndarray
    page_indices: np.ndarray
    scales: Mapping[str, Any]

    def decode(
        self, heads: int, implementation: str, mode: str, **options: Any
    ) -> tuple[np.ndarray, ...]:
        """out and lse of the first heads, from the default device."""
        options |= {**self.scales, "implementation": implementation}
        lengths, page_indices = jnp.asarray(self.lengths), jnp.asarray(self.page_indices)
        if mode == "persistent":
            options["metadata"] = make_metadata(
                lengths,
                page_indices,
                page_size=_PAGE_SIZE,
                num_pages=len(self.kv_pages),
                heads=heads,
                q_dtype=self.q.dtype,
                kv_dtype=self.kv_pages.dtype,
                mode=mode,
            )
        run = functools.partial(decode, scale=_SCALE, return_residuals=True, **options)
        q, kv_pages = jnp.asarray(self.q[:, :heads]), jnp.asarray(self.kv_pages)
        with jax.default_matmul_precision("highest"):
            results = jax.jit(run)(q, kv_pages, lengths, page_indices)
        return tuple(map(np.asarray, results))

    @functools.cached_property
    def expected(self) -> tuple[np.ndarray, ...]:
        """out and lse in float32, from the CPU where JAX has one."""
        operands = (
            self.q.astype(np.float32) * self.scales.get("q_scale", 1),
            self.kv_pages.astype(np.float32) * self.scales.get("kv_scale", 1),
            self.lengths,
            self.page_indices,
        )
        with jax.default_device(_reference_device()):
            results = reference(*map(jnp.asarray, operands), scale=_SCALE, return_residuals=True)
        return tuple(map(np.asarray, results))


def _reference_device() -> jax.Device:
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        return jax.devices()[0]


@functools.cache
def _make(target: Target, dtypes: str) -> _Case:
    """A case whose cache and table hold NaN and absurd pages wherever decode must not look."""
    rng = np.random.default_rng(0)
    q_dtype = target.fp8_dtype if dtypes == "fp8" else jnp.dtype(jnp.bfloat16)
    kv_dtype = target.fp8_dtype if "fp8" in dtypes else jnp.dtype(jnp.bfloat16)
    shape = (len(_LENGTHS), _PAGES_PER_SEQ)
    page_indices = rng.permutation(shape[0] * shape[1]).reshape(shape).astype(np.int32)
    kv_pages = rng.standard_normal((page_indices.size, _PAGE_SIZE, 576)).astype(kv_dtype)
    unused = np.ones(kv_pages.shape[:2], bool)
    for row, length in enumerate(_LENGTHS):
        token = np.arange(length)
        unused[page_indices[row, token // _PAGE_SIZE], token % _PAGE_SIZE] = False
        page_indices[row, -(-length // _PAGE_SIZE) :] = _ABSURD_PAGE
    kv_pages[unused] = np.nan
    if unused[0, 0]:
        kv_pages[0, 0] = 0  # AITER's kernels read it for slots beyond a sequence
    scales = {"q_scale": (q_dtype, 1.7), "kv_scale": (kv_dtype, 0.37)}
    return _Case(
        q=rng.standard_normal((len(_LENGTHS), max(HEADS), 576)).astype(q_dtype),
        kv_pages=kv_pages,
        lengths=np.array(_LENGTHS, np.int32),
        page_indices=page_indices,
        scales={k: np.float32(value) for k, (dtype, value) in scales.items() if is_fp8(dtype)},
    )


# --- How close is close enough --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Bar:
    """How far a (sequence, head) vector, whose largest reference value is m, may be off.

    Attributes:
      absolute: every element by this times m, ...
      relative: ... or by this times itself.
      largest: no element by more than this times m.
      cosine: bound of 1 - cosine of the angle to the reference.
    """

    absolute: float
    relative: float
    largest: float
    cosine: float


_BAR = _Bar(3e-3, 2.01 / 128, 6e-3, 5e-6)
_FP8_BAR = _Bar(1.0, 0.0, 1.0, 3e-2)
_LSE_BAR = 1e-4


def _share_of_bar(
    bar: _Bar, out: np.ndarray, lse: np.ndarray, right_out: np.ndarray, right_lse: np.ndarray
) -> float:
    """The largest error as a share of what is allowed; infinite for one that no bar allows."""
    seen = np.isfinite(right_lse)
    out, right_out = out.astype(np.float64), right_out.astype(np.float64)
    finite = np.isfinite(out).all() and np.isfinite(lse[seen]).all()
    if not finite or out[~seen].any() or not np.isneginf(lse[~seen]).all():
        return float("inf")
    out, right_out = out[seen], right_out[seen]
    error, most = np.abs(out - right_out), np.abs(right_out).max(axis=-1, keepdims=True)
    norms = np.linalg.norm(out, axis=-1) * np.linalg.norm(right_out, axis=-1)
    cosine = (out * right_out).sum(axis=-1) / np.maximum(norms, 1e-300)
    shares = (
        error / np.maximum(bar.absolute * most, bar.relative * np.abs(right_out)),
        error / (bar.largest * most),
        (1 - cosine) / bar.cosine,
        np.abs(lse[seen] - right_lse[seen]) / _LSE_BAR,
    )
    return max(float(share.max()) for share in shares)
