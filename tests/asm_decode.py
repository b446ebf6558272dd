# SPDX-License-Identifier: Apache-2.0
"""Decode on AITER's kernels and what it has to be: what the tests of it have in common."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import cases
import compare
import jax
import numpy as np
import oracle
import planner_oracle
import pytest
from cases import Case

import jax_mla
from jax_mla import aiter, asm, lowering
from jax_mla.asm import AsmPlan
from jax_mla.call import Call, Unserved
from jax_mla.kernels import MODES
from jax_mla.target import resolve

TARGET = resolve(None, "rocm")
FP8 = "fp8fnuz" if TARGET.arch == "gfx942" else "fp8fn"
#: (q, cache) as jax_mla's tables name them, and as cases.make does.
DTYPES = {"bf16": "bf16", "bf16-fp8": f"bf16-{FP8}", "fp8": FP8}
Q_SCALE, KV_SCALE = 1.7, 0.37
#: Around pages and blocks of keys.
LENGTHS = (0, 1, 15, 16, 17, 63, 64, 65, 127, 1000)
CAPACITY = 1024

absent = aiter.discover(TARGET.arch).absent
needs_aiter = pytest.mark.skipif(absent is not None, reason=f"no code objects to run: {absent}")


@functools.lru_cache(maxsize=8)  # a pool takes longer to make than to decode
def make(
    lengths: tuple[int, ...],
    *,
    heads: int = 128,
    q_len: int = 1,
    page_size: int = 16,
    dtypes: str = "bf16",
    capacity: int = CAPACITY,
) -> Case:
    """NaN everywhere in the pool but in live tokens and, as AITER's kernels read it, row 0."""
    case = cases.make(
        heads, q_len, page_size, DTYPES[dtypes], lengths, capacity=capacity, first_row=True
    )
    scales: dict[str, np.ndarray] = {}
    if case.q_scale is not None:
        scales["q_scale"] = np.asarray(Q_SCALE, np.float32)
    if case.kv_scale is not None:
        scales["kv_scale"] = np.asarray([KV_SCALE], np.float32)
    return dataclasses.replace(case, **scales)


def of_heads(case: Case, heads: int | slice) -> Case:
    """The first of its heads, or some of them."""
    some = heads if isinstance(heads, slice) else slice(heads)
    return dataclasses.replace(case, q=case.q[:, :, some])


def make_call(
    heads: int, batch: int, q_len: int, page_size: int, dtypes: str, capacity: int = CAPACITY
) -> Call:
    """The static side of such a case."""
    q_dtype, kv_dtype = map(np.dtype, cases.DTYPES[DTYPES[dtypes]])
    pages_per_seq = -(-capacity // page_size)
    return Call(
        batch=batch,
        q_len=q_len,
        heads=heads,
        width=576,
        latent_dim=512,
        num_pages=batch * pages_per_seq,
        page_size=page_size,
        pages_per_seq=pages_per_seq,
        q_dtype=q_dtype,
        kv_dtype=kv_dtype,
    )


def plan(
    case: Case, mode: str, num_kv_splits: int | None = None, head_plan: str | None = None
) -> AsmPlan:
    """What a decode of the case comes to; raises Unserved."""
    call = lowering.make_call(case.q, case.kv_pages, case.page_indices, case.latent_dim)
    return asm.plan(call, TARGET, mode=mode, num_kv_splits=num_kv_splits, head_plan=head_plan)


def is_served(heads: int, batch: int, q_len: int, page_size: int, mode: str, dtypes: str) -> bool:
    """Whether AITER has a kernel for such a case."""
    try:
        asm.plan(make_call(heads, batch, q_len, page_size, dtypes), TARGET, mode=mode)
    except Unserved:
        return False
    return True


SERVED_MODES = [(mode, dtypes) for mode in MODES for dtypes in DTYPES
                if is_served(1, 1, 1, 1, mode, dtypes)]  # fmt: skip


def decode(
    case: Case,
    operands: tuple[jax.Array, ...],
    mode: str = "split",
    metadata: Any = None,
    num_kv_splits: int | None = None,
    **options: Any,
) -> tuple[jax.Array, jax.Array]:
    """out and lse of a case's operands, in a program; with metadata of its own if persistent."""
    if mode == "persistent" and metadata is None:
        metadata = make_metadata(operands, mode)
    out, lse = jax_mla.decode(
        *operands,
        **case.options,
        metadata=metadata,
        num_kv_splits=num_kv_splits,
        implementation="asm",
        return_residuals=True,
        **options,
    )
    return out, lse


def make_metadata(
    operands: tuple[jax.Array, ...], mode: str, **options: Any
) -> jax_mla.DecodeMetadata:
    """The step's metadata for a case's operands."""
    q, kv_pages, lengths, page_indices = operands
    return jax_mla.make_metadata(
        lengths,
        page_indices,
        page_size=kv_pages.shape[1],
        num_pages=kv_pages.shape[0],
        heads=q.shape[2],
        q_len=q.shape[1],
        q_dtype=q.dtype,
        kv_dtype=kv_pages.dtype,
        mode=mode,
        **options,
    )


def run(case: Case, mode: str = "split", **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a case as it is."""
    out, lse = jax.jit(lambda *operands: decode(case, operands, mode, **options))(*case.operands)
    return np.asarray(out), np.asarray(lse)


def expected(case: Case, plan: AsmPlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """out, lse and what is in doubt, going over the keys as the plan does."""
    rows, dtype = plan.heads.group_heads, case.q.dtype
    groups = [
        oracle.decode_rounding(
            of_heads(case, slice(group * rows, (group + 1) * rows)),
            parts(case, plan, group),
            plan.kernel.kv_block,
            dtype,
        )
        for group in range(plan.heads.groups)
    ]
    out, lse, doubt = (np.concatenate(arrays, axis=2) for arrays in zip(*groups, strict=True))
    return out, lse, doubt


def parts(case: Case, plan: AsmPlan, group: int) -> list[np.ndarray]:
    """For each sequence, the part of the plan that each of its keys is in."""
    lengths, works = case.lengths.tolist(), plan.works
    if works is None:
        blocks = [np.arange(length) // plan.kernel.kv_block for length in lengths]
        return [block % plan.num_kv_splits for block in blocks]
    _, work_info, reduce_indptr = planner_oracle.all_partial(
        lengths, groups=works.groups, q_len=works.q_len, block=works.block, units=works.units
    )
    begins = np.concatenate([[0], np.cumsum(lengths)])
    result = [np.zeros(length, np.int32) for length in lengths]
    for number, work in enumerate(work_info[: reduce_indptr[-1]].tolist()):
        place, _, _, _, begin, end, _, _ = work
        its_group, sequence = divmod(place, len(lengths))
        if its_group == group:
            result[sequence][begin - begins[sequence] : end - begins[sequence]] = number
    return result


def check(case: Case, plan: AsmPlan, out: Any, lse: Any, rows: Sequence[int] | None = None) -> None:
    """Holds a result, or some of its sequences, against float64.

    Closely with the weights of the keys rounded as the kernel does.
    """
    some = slice(None) if rows is None else list(rows)

    def of_rows(*arrays: Any) -> list[np.ndarray]:
        return [np.asarray(x)[some] for x in arrays]

    result = of_rows(out, lse)
    compare.assert_close(*result, *of_rows(*expected(case, plan)))
    bar = compare.ROUNDED_WEIGHTS[plan.kernel.q_dtype]
    compare.assert_close(*result, *of_rows(*oracle.decode(case)), bar=bar)
