# SPDX-License-Identifier: Apache-2.0
"""Checks of operands, in one order everywhere: types, dtypes, ranks, sizes, values.

Every message names the op, the argument, what was expected and what was got.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MAX_HEADS = 128

FP8_DTYPES = (jnp.dtype(jnp.float8_e4m3fn), jnp.dtype(jnp.float8_e4m3fnuz))
_FLOAT_DTYPES = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16), jnp.dtype(jnp.float32))


def is_fp8(dtype: np.dtype) -> bool:
    return dtype in FP8_DTYPES


def out_dtype(q_dtype: np.dtype) -> np.dtype:
    """Output dtype of decode: bfloat16 for an fp8 q, else q's own."""
    return jnp.dtype(jnp.bfloat16) if is_fp8(q_dtype) else q_dtype


def check_array(op: str, name: str, x: Any) -> None:
    if not isinstance(x, jax.Array | np.ndarray | np.generic):
        raise TypeError(f"{op}: {name}: expected an array, got {type(x).__name__}")


def check_rank(op: str, name: str, x: jax.Array, axes: str) -> None:
    rank = len(axes.split(","))
    if x.ndim != rank:
        raise ValueError(f"{op}: {name}: expected [{axes}], got {rank_text(x)}")


def rank_text(x: jax.Array) -> str:
    return f"{x.ndim} dimension{'' if x.ndim == 1 else 's'}, shape {tuple(x.shape)}"


def check_size(op: str, name: str, axis: str, got: Any, expected: Any, source: str) -> None:
    if got != expected:
        raise ValueError(f"{op}: {name}: expected {axis} {expected} as in {source}, got {got}")


def check_index(op: str, name: str, x: jax.Array) -> None:
    if x.dtype != jnp.int32:
        raise TypeError(
            f"{op}: {name}: expected int32, got {x.dtype}; convert it with .astype('int32')"
        )


def check_choice(op: str, name: str, value: Any, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        names = ", ".join(map(repr, choices))
        raise ValueError(f"{op}: {name}: expected None or one of {names}, got {value!r}")


def check_positive_int(op: str, name: str, value: Any, *, at_most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{op}: {name}: expected a Python int, got {_static_type(value)}")
    if value < 1 or (at_most is not None and value > at_most):
        bound = "a positive int" if at_most is None else f"1..{at_most}"
        raise ValueError(f"{op}: {name}: expected {bound}, got {value}")


def check_scale(op: str, value: Any) -> None:
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{op}: scale: expected a Python float known at trace time, got a traced value; make "
            "it static (static_argnames) or multiply q by it"
        )
    if isinstance(value, bool) or not isinstance(value, float | int | np.floating | np.integer):
        raise TypeError(f"{op}: scale: expected a Python float, got {_static_type(value)}")
    if not np.isfinite(value):
        raise ValueError(f"{op}: scale: expected a finite number, got {value}")


def _static_type(value: Any) -> str:
    return "a traced value" if isinstance(value, jax.core.Tracer) else type(value).__name__


def check_dtypes(op: str, q_dtype: np.dtype, kv_dtype: np.dtype) -> None:
    """The served pairs: the same dtype for both, or bfloat16 queries on an fp8 cache."""
    served = (*_FLOAT_DTYPES, *FP8_DTYPES)
    for name, dtype in (("q", q_dtype), ("kv_pages", kv_dtype)):
        if dtype not in served:
            names = ", ".join(d.name for d in served)
            raise TypeError(f"{op}: {name}: expected one of {names}, got {dtype}")
    if q_dtype != kv_dtype and not (q_dtype == jnp.bfloat16 and is_fp8(kv_dtype)):
        raise TypeError(
            f"{op}: kv_pages: expected {q_dtype} like q"
            f"{', or float8 for a bfloat16 q' if q_dtype == jnp.bfloat16 else ''}, got {kv_dtype}"
        )


def check_fp8_scale(op: str, name: str, scale: Any, operand: str, dtype: np.dtype) -> None:
    """fp8 operands need a scale, others must have none."""
    if not is_fp8(dtype):
        if scale is not None:
            raise ValueError(f"{op}: {name}: expected None for {dtype} {operand}, got a scale")
        return
    if scale is None:
        raise ValueError(f"{op}: {name}: expected a float32 scalar for {dtype} {operand}, got None")
    check_array(op, name, scale)
    if scale.dtype != jnp.float32:
        raise TypeError(f"{op}: {name}: expected float32, got {scale.dtype}")
    if tuple(scale.shape) not in ((), (1,)):
        raise ValueError(f"{op}: {name}: expected shape () or (1,), got {tuple(scale.shape)}")


def check_table(op: str, lengths: Any, page_indices: Any) -> None:
    """lengths int32 `[batch]` and page_indices int32 `[batch, pages_per_seq]`."""
    for name, x in (("lengths", lengths), ("page_indices", page_indices)):
        check_array(op, name, x)
        check_index(op, name, x)
    check_rank(op, "lengths", lengths, "batch")
    check_rank(op, "page_indices", page_indices, "batch, pages_per_seq")
    check_size(op, "page_indices", "batch", page_indices.shape[0], lengths.shape[0], "lengths")
    if page_indices.shape[1] == 0:
        raise ValueError(f"{op}: page_indices: expected at least one page a sequence, got 0")


def check_pool(op: str, kv_pages: Any) -> None:
    """kv_pages `[pages, page_size, width]`, not empty."""
    check_rank(op, "kv_pages", kv_pages, "pages, page_size, width")
    if 0 in kv_pages.shape:
        raise ValueError(
            f"{op}: kv_pages: expected no empty dimension, got {tuple(kv_pages.shape)}"
        )


def check_decode(
    q: Any,
    kv_pages: Any,
    lengths: Any,
    page_indices: Any,
    *,
    scale: Any,
    latent_dim: Any,
    q_scale: Any,
    kv_scale: Any,
    num_kv_splits: Any,
    op: str = "decode",
) -> None:
    """Everything that decode and reference require of their operands."""
    check_array(op, "q", q)
    check_array(op, "kv_pages", kv_pages)
    check_dtypes(op, q.dtype, kv_pages.dtype)
    if q.ndim not in (3, 4):
        raise ValueError(
            f"{op}: q: expected [batch, heads, width] or [batch, q_len, heads, width], "
            f"got {rank_text(q)}"
        )
    check_pool(op, kv_pages)
    check_table(op, lengths, page_indices)
    check_size(op, "q", "batch", q.shape[0], lengths.shape[0], "lengths")
    check_size(op, "q", "width", q.shape[-1], kv_pages.shape[2], "kv_pages")
    check_positive_int(op, "heads of q", q.shape[-2], at_most=MAX_HEADS)
    if q.ndim == 4:
        check_positive_int(op, "q_len of q", q.shape[1])
    check_positive_int(op, "latent_dim", latent_dim, at_most=q.shape[-1])
    check_scale(op, scale)
    check_fp8_scale(op, "q_scale", q_scale, "q", q.dtype)
    check_fp8_scale(op, "kv_scale", kv_scale, "kv_pages", kv_pages.dtype)
    if num_kv_splits is not None:
        check_positive_int(op, "num_kv_splits", num_kv_splits)
