# SPDX-License-Identifier: Apache-2.0
"""The custom call of AITER's kernels made by hand, so that any part of it can be wrong."""

from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np

from jax_mla import aiter, asm, lowering
from jax_mla.metadata import metadata_arrays
from jax_mla.target import resolve

TARGET = "jax_mla_decode_asm_rocm_v1"
OPERANDS = (
    "q", "kv_pages", "lengths", "page_indices", "kv_indptr", "kv_indices", "work_indptr",
    "work_info", "reduce_indptr", "qo_indptr", "num_kv_splits_indptr", "q_scale", "kv_scale",
)  # fmt: skip
RESULTS = ("out", "lse", "workspace")
BATCH, HEADS, PADDED, PAGES, PAGE, SLOTS, SPLITS, UNITS = 2, 4, 16, 5, 8, 3, 2, 5
WORKS = BATCH + UNITS - 1
struct = jax.ShapeDtypeStruct

#: Of a code object that there is none of, so that a call which is in order ends there.
NO_SUCH_CODE = "0" * 64


def indices(*shape: int) -> jax.Array:
    return jnp.zeros(shape, jnp.int32)


def workspace(rows: int, extra: int = 0) -> jax.ShapeDtypeStruct:
    return struct((extra + rows * 513 * 4,), jnp.uint8)


def split_call() -> dict[str, Any]:
    """Operands, results and attributes of a call in split mode, by name."""
    return {
        "q": jnp.zeros((BATCH, 1, PADDED, 576), jnp.bfloat16),
        "kv_pages": jnp.zeros((PAGES, PAGE, 576), jnp.bfloat16),
        "lengths": indices(BATCH),
        "page_indices": indices(BATCH, SLOTS),
        "kv_indptr": indices(BATCH + 1),
        "kv_indices": indices(BATCH * SLOTS * PAGE),
        "qo_indptr": jnp.arange(BATCH + 1, dtype=jnp.int32)[None],
        "num_kv_splits_indptr": SPLITS * jnp.arange(BATCH + 1, dtype=jnp.int32)[None],
        "out": struct((BATCH, 1, HEADS, 512), jnp.bfloat16),
        "lse": struct((BATCH, 1, HEADS), jnp.float32),
        "workspace": workspace(BATCH * SPLITS * PADDED),
        "heads": np.int64(HEADS),
        "padded_heads": np.int64(PADDED),
        "head_stride": np.int64(4),
        "mode": "split",
        "num_kv_splits": np.int64(SPLITS),
        "scale": np.float32(0.1),
        "arch": jax.devices()[0].compute_capability.split(":")[0],
        "compute_units": np.int64(304),
        "code_object": NO_SUCH_CODE,
        "workgroup_rows": np.int64(16),
        "row_argument": np.int64(16),
        "kv_block": np.int64(64),
        "scale_out": False,
    }


def persistent_call() -> dict[str, Any]:
    """The same in persistent mode."""
    return split_call() | {
        "mode": "persistent",
        "num_kv_splits": np.int64(1),
        "num_kv_splits_indptr": None,
        "work_indptr": indices(UNITS + 1),
        "work_info": indices(WORKS, 8),
        "reduce_indptr": indices(BATCH + 1),
        "workspace": workspace(WORKS * PADDED, extra=256),
    }


def of(
    case: cases.Case, *, mode: str = "split", num_kv_splits: int | None = None
) -> dict[str, Any]:
    """The call that decode makes of a case on the device at hand."""
    target = resolve(None, "rocm")
    call = lowering.make_call(case.q, case.kv_pages, case.page_indices, case.latent_dim)
    plan = asm.plan(call, target, mode=mode, num_kv_splits=num_kv_splits)
    q, kv_pages, lengths, page_indices = case.operands
    names = ("kv_indptr", "kv_indices", "work_indptr", "work_info", "reduce_indptr")
    arrays = metadata_arrays(
        lengths,
        page_indices,
        page_size=call.page_size,
        num_pages=call.num_pages,
        works=plan.works,
    )
    steps = jnp.arange(call.batch + 1, dtype=jnp.int32)[None]
    places = jnp.arange(plan.heads.groups * call.batch + 1, dtype=jnp.int32)[None]
    rows = (call.batch, call.q_len, call.heads)
    scales = {"q_scale": case.q_scale, "kv_scale": case.kv_scale}
    return {
        "q": plan.heads.apply(q),
        "kv_pages": kv_pages,
        "lengths": lengths,
        "page_indices": page_indices,
        **dict(zip(names, arrays, strict=False)),
        "qo_indptr": places * call.q_len,
        "num_kv_splits_indptr": steps * plan.num_kv_splits if mode == "split" else None,
        **{name: jnp.float32(x.item()) for name, x in scales.items() if x is not None},
        "out": struct((*rows, case.latent_dim), jnp.bfloat16),
        "lse": struct(rows, jnp.float32),
        "workspace": struct((plan.workspace_bytes,), jnp.uint8),
        "heads": np.int64(plan.heads.heads),
        "padded_heads": np.int64(plan.heads.padded_heads),
        "head_stride": np.int64(plan.heads.head_stride),
        "mode": mode,
        "num_kv_splits": np.int64(plan.num_kv_splits),
        "scale": np.float32(case.scale),
        "arch": target.arch,
        "compute_units": np.int64(target.compute_units),
        "code_object": aiter.find(plan.kernel).sha256,
        "workgroup_rows": np.int64(plan.kernel.rows),
        "row_argument": np.int64(plan.row_argument),
        "kv_block": np.int64(plan.kernel.kv_block),
        "scale_out": plan.kernel.kv_scale == "scores",
    }


def run(call: dict[str, Any], target: str = TARGET) -> list[np.ndarray]:
    """Runs a call; what is None in it is left out."""
    operands = [call[name] for name in OPERANDS if call.get(name) is not None]
    results = [call[name] for name in RESULTS if call[name] is not None]
    attributes = {k: v for k, v in call.items() if k not in OPERANDS + RESULTS and v is not None}
    made = jax.ffi.ffi_call(target, results)(*operands, **attributes)
    return [np.asarray(x) for x in jax.block_until_ready(made)]
