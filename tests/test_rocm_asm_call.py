# SPDX-License-Identifier: Apache-2.0
"""The custom call of AITER's kernels: which calls are in order, and what is said of the others."""

from typing import Any

import asm_call
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asm_call import BATCH, PADDED, PAGE, PAGES, SPLITS, WORKS, indices, struct, workspace

from jax_mla import native

pytestmark = [
    pytest.mark.rocm,
    pytest.mark.skipif(("rocm", "asm") not in native.LAUNCHES, reason="built without device code"),
]

GROUPS = {
    "qo_indptr": indices(1, 2 * BATCH + 1),
    "q": jnp.zeros((2 * BATCH, 1, PADDED, 576), jnp.bfloat16),
    "heads": np.int64(20),
    "padded_heads": np.int64(2 * PADDED),
    "head_stride": np.int64(1),
    "out": struct((BATCH, 1, 20, 512), jnp.bfloat16),
    "lse": struct((BATCH, 1, 20), jnp.float32),
    "workspace": workspace(2 * BATCH * SPLITS * PADDED),
}


def fp8(*names: str) -> dict[str, Any]:
    dtype = jnp.float8_e4m3fnuz
    made = {
        "q": jnp.zeros((BATCH, 1, PADDED, 576), dtype),
        "kv_pages": jnp.zeros((PAGES, PAGE, 576), dtype),
        "q_scale": jnp.ones(()),
        "kv_scale": jnp.ones(()),
    }
    return {name: made[name] for name in names or made}


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (asm_call.split_call, {}),
        (asm_call.split_call, fp8()),
        (asm_call.split_call, fp8("kv_pages", "kv_scale")),
        (asm_call.split_call, GROUPS),
        (asm_call.persistent_call, {}),
    ],
    ids=["split", "fp8", "bf16 on fp8", "groups", "persistent"],
)
def test_a_call_in_order_ends_at_the_code_object(make: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError) as error:
        asm_call.run(make() | changes)
    said = str(error.value)
    assert "FAILED_PRECONDITION: jax_mla decode: the program needs AITER's code object" in said
    assert asm_call.NO_SUCH_CODE in said and "python -m jax_mla doctor" in said


def test_a_program_for_another_arch() -> None:
    with pytest.raises(
        jax.errors.JaxRuntimeError, match=r"FAILED_PREC.*lowered for gfx90a and ROC"
    ):
        asm_call.run(asm_call.split_call() | {"arch": "gfx90a"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"q": jnp.zeros((BATCH, 1, 6, 576), jnp.bfloat16)},
            "q: expected rows that divide padded_heads 16, got 6",
        ),
        (
            {"q": jnp.zeros((3, 1, 8, 576), jnp.bfloat16)},
            "q: expected sequences of 2 groups, got 3",
        ),
        ({"q": jnp.zeros((BATCH, PADDED, 576), jnp.bfloat16)}, "q: expected shape"),
        ({"kv_pages": jnp.zeros((PAGES, PAGE, 500), jnp.bfloat16)}, r"kv_pages: .*any, any, 576"),
        ({"kv_pages": jnp.zeros((PAGES, PAGE, 576), jnp.float16)}, "no such pair of dtypes"),
        ({"lengths": jnp.zeros(BATCH)}, "lengths: expected dtype S32, got F32"),
        ({"lengths": indices(3)}, r"lengths: expected shape \[2\], got \[3\]"),
        ({"page_indices": indices(3, 3)}, "page_indices: expected shape"),
        ({"kv_indptr": indices(BATCH)}, "kv_indptr: expected shape"),
        ({"kv_indices": indices(7)}, r"kv_indices: expected shape \[48\], got \[7\]"),
        ({"num_kv_splits_indptr": None}, "num_kv_splits_indptr: missing"),
        ({"qo_indptr": indices(1)}, "qo_indptr: expected shape"),
        ({"kv_scale": jnp.ones(())}, "expected 8 operands, got 9"),
        ({"out": struct((BATCH, 1, PADDED, 512), jnp.bfloat16)}, r"out: .*\[2, 1, 4, any\]"),
        ({"out": struct((BATCH, 1, 4, 512), jnp.float32)}, "out: expected dtype BF16, got F32"),
        ({"out": struct((BATCH, 1, 4, 600), jnp.bfloat16)}, "out: expected at most 576"),
        (
            {
                "out": struct((BATCH, 1, 4, 256), jnp.bfloat16),
                "workspace": struct((BATCH * SPLITS * PADDED * 257 * 4,), jnp.uint8),
            },
            "rows of 576 with 512 of latent, got 576 with 256",
        ),
        ({"lse": struct((BATCH, 1), jnp.float32)}, "lse: expected shape"),
        ({"workspace": struct((64,), jnp.uint8)}, r"workspace: expected shape \[131328\]"),
        ({"workspace": None}, "workspace: missing"),
        ({"head_stride": np.int64(2)}, "heads 4, padded_heads 16, head_stride 2: no such plan"),
        ({"heads": np.int64(0)}, "heads 0"),
        ({"num_kv_splits": np.int64(0)}, "num_kv_splits: expected a positive number"),
        ({"kv_block": np.int64(0)}, "kv_block: expected a positive number, got 0"),
        ({"mode": "both"}, "mode: expected split or persistent, got both"),
        ({"mode": "persistent"}, r"work_indptr: expected shape"),
    ],
)
def test_a_broken_call_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"INVALID_ARGUMENT.*{message}"):
        asm_call.run(asm_call.split_call() | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"work_info": None}, r"work_info: expected shape \[6, 8\], got \[3\]"),
        ({"work_info": indices(WORKS, 7)}, "work_info: expected shape"),
        ({"work_indptr": indices(1)}, "work_indptr: expected a unit"),
        ({"reduce_indptr": indices(2)}, "reduce_indptr: expected shape"),
        ({"mode": "split"}, r"qo_indptr: expected shape \[1, 3\], got \[6\]"),
    ],
)
def test_a_broken_persistent_call_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"INVALID_ARGUMENT.*{message}"):
        asm_call.run(asm_call.persistent_call() | changes)
