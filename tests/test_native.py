# SPDX-License-Identifier: Apache-2.0
"""The extension: when it is registered, what its handlers refuse, what it exports."""

import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_mla import _native, native


def test_built_with_the_oldest_api_and_loaded() -> None:
    assert _native.ffi_api == (0, 1)
    assert native.ABSENT is None


def test_newer_headers_are_refused_and_nothing_breaks(tmp_path: pathlib.Path) -> None:
    """Registered, such a handler would take the CPU backend down with it."""
    header = tmp_path / "xla/ffi/api/c_api.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define XLA_FFI_API_MAJOR 0\n#define XLA_FFI_API_MINOR 0\n")
    program = f"""
import jax, jax.numpy as jnp
jax.ffi.include_dir = lambda: {str(tmp_path)!r}
import jax_mla
from jax_mla import native
print(native.ABSENT)
pool = jax_mla.append(
    jnp.zeros((2, 4, 8)), jnp.ones((1, 1, 8)), jnp.ones(1, "int32"), jnp.ones((1, 1), "int32")
)
print(float(pool.sum()))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    reason, total = result.stdout.splitlines()
    assert reason == (
        "jax_mla._native was built with XLA FFI API 0.1 and this jaxlib has 0.0; upgrade jaxlib"
    )
    assert float(total) == 8  # append found its way without the handler


def test_a_missing_extension_is_a_reason_not_an_error() -> None:
    program = """
import sys
sys.modules["jax_mla._native"] = None
import jax_mla
from jax_mla import native
print(native.LAUNCHES, native.ABSENT)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("frozenset() jax_mla._native: ")


def test_only_the_module_is_exported() -> None:
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", str(pathlib.Path(_native.__file__))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[-1] for line in symbols.stdout.splitlines()] == ["PyInit__native"]


# --- The decode handler, on the CPU: it decodes the call before it would touch a GPU -------------

NAME = "jax_mla_test_decode_call"
B, T, HEADS, PADDED, PAGES, PAGE, SLOTS, SPLITS = 2, 1, 4, 16, 5, 8, 3, 2
struct = jax.ShapeDtypeStruct


@pytest.fixture(scope="module")
def call() -> Callable[..., Any]:
    """Makes the custom call with parts of it changed."""
    _, handler = _native.handlers()["jax_mla_decode_rocm_v1"]
    jax.ffi.register_ffi_target(NAME, handler, platform="cpu")

    def run(**changes: Any) -> Any:
        operands = {
            "q": jnp.zeros((B, T, PADDED, 576), jnp.bfloat16),
            "kv_pages": jnp.zeros((PAGES, PAGE, 576), jnp.bfloat16),
            "lengths": jnp.zeros(B, jnp.int32),
            "page_indices": jnp.zeros((B, SLOTS), jnp.int32),
            "kv_indptr": jnp.zeros(B + 1, jnp.int32),
            "kv_indices": jnp.zeros(B * SLOTS * PAGE, jnp.int32),
            "work_indptr": None,
            "work_info": None,
            "reduce_indptr": None,
        }
        results = {
            "out": struct((B, T, HEADS, 512), jnp.bfloat16),
            "lse": struct((B, T, HEADS), jnp.float32),
            "workspace": struct((B * T * SPLITS * PADDED * 513 * 4,), jnp.uint8),
        }
        attributes = {
            "heads": np.int64(HEADS),
            "padded_heads": np.int64(PADDED),
            "head_stride": np.int64(4),
            "implementation": "asm",
            "mode": "split",
            "num_kv_splits": np.int64(SPLITS),
            "scale": np.float32(0.1),
            "arch": "gfx942",
            "compute_units": np.int64(304),
        }
        for name, value in changes.items():
            part = next((p for p in (operands, results) if name in p), attributes)
            if name in ("q_scale", "kv_scale"):
                part = operands
            part[name] = value
        kept = [x for x in operands.values() if x is not None]
        return jax.ffi.ffi_call(NAME, [r for r in results.values() if r is not None])(
            *kept, **attributes
        )

    return run


def test_a_good_call_is_refused_for_want_of_device_code(call: Callable[..., Any]) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"FAILED_PRECONDITION.*'asm' for gfx942"):
        call()


UNITS = 5
WORKS = B + UNITS - 1
PERSISTENT = {
    "mode": "persistent",
    "num_kv_splits": np.int64(1),
    "work_indptr": jnp.zeros(UNITS + 1, jnp.int32),
    "work_info": jnp.zeros((WORKS, 8), jnp.int32),
    "reduce_indptr": jnp.zeros(B + 1, jnp.int32),
    "workspace": struct((WORKS * T * PADDED * 513 * 4,), jnp.uint8),
}


@pytest.mark.parametrize(
    "changes",
    [
        {"implementation": "kernel", "kv_indptr": None, "kv_indices": None},
        {
            "q": jnp.zeros((B, T, PADDED, 576), jnp.float8_e4m3fnuz),
            "kv_pages": jnp.zeros((PAGES, PAGE, 576), jnp.float8_e4m3fnuz),
            "q_scale": jnp.ones(()),
            "kv_scale": jnp.ones(()),
        },
        {
            "kv_pages": jnp.zeros((PAGES, PAGE, 576), jnp.float8_e4m3fn),
            "kv_scale": jnp.ones(()),
        },
        PERSISTENT,
        {
            "q": jnp.zeros((2 * B, T, PADDED, 576), jnp.bfloat16),
            "heads": np.int64(20),
            "padded_heads": np.int64(2 * PADDED),
            "head_stride": np.int64(1),
            "out": struct((B, T, 20, 512), jnp.bfloat16),
            "lse": struct((B, T, 20), jnp.float32),
            "workspace": struct((2 * B * T * SPLITS * PADDED * 513 * 4,), jnp.uint8),
        },
    ],
    ids=["kernel", "fp8", "bf16 on fp8", "persistent", "groups"],
)
def test_other_good_calls(call: Callable[..., Any], changes: dict[str, Any]) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match="no device code"):
        call(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"q": jnp.zeros((B, T, 6, 576), jnp.bfloat16)},
            "q: expected rows that divide padded_heads 16, got 6",
        ),
        (
            {"q": jnp.zeros((3, T, 8, 576), jnp.bfloat16)},
            "q: expected sequences of 2 groups, got 3",
        ),
        ({"q": jnp.zeros((B, PADDED, 576), jnp.bfloat16)}, "q: expected shape"),
        ({"kv_pages": jnp.zeros((PAGES, PAGE, 500), jnp.bfloat16)}, r"kv_pages: .*any, any, 576"),
        ({"kv_pages": jnp.zeros((PAGES, PAGE, 576), jnp.float16)}, "no such pair of dtypes"),
        ({"lengths": jnp.zeros(B, jnp.float32)}, "lengths: expected dtype S32, got F32"),
        ({"lengths": jnp.zeros(3, jnp.int32)}, r"lengths: expected shape \[2\], got \[3\]"),
        ({"page_indices": jnp.zeros((3, SLOTS), jnp.int32)}, "page_indices: expected shape"),
        ({"kv_indptr": jnp.zeros(B, jnp.int32)}, "kv_indptr: expected shape"),
        ({"kv_indices": jnp.zeros(7, jnp.int32)}, r"kv_indices: expected shape \[48\], got \[7\]"),
        ({"kv_indices": None}, "kv_indices: missing"),
        ({"implementation": "kernel"}, "expected 4 operands, got 6"),
        ({"kv_scale": jnp.ones(())}, "expected 6 operands, got 7"),
        ({"out": struct((B, T, PADDED, 512), jnp.bfloat16)}, r"out: .*\[2, 1, 4, any\]"),
        ({"out": struct((B, T, HEADS, 512), jnp.float32)}, "out: expected dtype BF16, got F32"),
        ({"out": struct((B, T, HEADS, 600), jnp.bfloat16)}, "out: expected at most 576"),
        ({"lse": struct((B, T), jnp.float32)}, "lse: expected shape"),
        ({"workspace": struct((64,), jnp.uint8)}, r"workspace: expected shape \[131328\]"),
        ({"workspace": None}, "workspace: missing"),
        ({"head_stride": np.int64(2)}, "heads 4, padded_heads 16, head_stride 2: no such plan"),
        ({"heads": np.int64(0)}, "heads 0"),
        ({"num_kv_splits": np.int64(0)}, "num_kv_splits: expected a positive number"),
        ({"implementation": "xla"}, "implementation: expected asm or kernel, got xla"),
        ({"mode": "both"}, "mode: expected split, or persistent for asm, got both"),
        (PERSISTENT | {"implementation": "kernel"}, "mode: .* got persistent"),
        (PERSISTENT | {"work_info": None}, r"work_info: expected shape \[6, 8\], got \[3\]"),
        (PERSISTENT | {"work_info": jnp.zeros((WORKS, 7), jnp.int32)}, "work_info: expected shape"),
        (PERSISTENT | {"reduce_indptr": jnp.zeros(2, jnp.int32)}, "reduce_indptr: expected shape"),
        (PERSISTENT | {"mode": "split"}, "expected 6 operands, got 9"),
    ],
)
def test_a_broken_call_is_named(
    call: Callable[..., Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"INVALID_ARGUMENT.*{message}"):
        call(**changes)
