# SPDX-License-Identifier: Apache-2.0
"""Bad input of every kind: the type of the error, and that the message names what is wrong."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mla
from jax_mla import Target

Change = dict[str, Any]


def arguments(dtypes: str = "bf16") -> dict[str, Any]:
    case = cases.make(dtypes=dtypes)
    names = ("q", "kv_pages", "lengths", "page_indices")
    return dict(zip(names, case.operands, strict=True)) | case.options


def call(op: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    names = ("q", "kv_pages", "lengths", "page_indices")
    options = {k: v for k, v in arguments.items() if k not in names}
    return op(*(arguments[name] for name in names), **options)


GOOD = arguments()
BAD: list[tuple[str, Change, type[Exception], str]] = [
    ("q is a list", {"q": [[1.0]]}, TypeError, r"q: expected an array, got list"),
    (
        "q rank",
        {"q": GOOD["q"][0, 0]},
        ValueError,
        r"q: expected \[batch, heads, width\] or .*2 dim",
    ),
    ("q dtype", {"q": GOOD["q"].astype(jnp.int8)}, TypeError, "q: expected one of bfloat16.*int8"),
    ("q float64", {"q": np.zeros((6, 4, 576))}, TypeError, "q: expected one of .*got float64"),
    (
        "pair",
        {"q": GOOD["q"].astype(jnp.float32)},
        TypeError,
        "kv_pages: expected float32 like q, got bfloat16",
    ),
    (
        "e5m2",
        {"kv_pages": GOOD["kv_pages"].astype(jnp.float8_e5m2)},
        TypeError,
        "kv_pages: expected one of .*got float8_e5m2",
    ),
    (
        "pool rank",
        {"kv_pages": GOOD["kv_pages"][0]},
        ValueError,
        r"kv_pages: expected \[pages, page_size, width\], got 2 dimensions",
    ),
    ("no pages", {"kv_pages": GOOD["kv_pages"][:0]}, ValueError, "kv_pages: expected no empty dim"),
    (
        "lengths int64",
        {"lengths": np.ones(6, np.int64)},
        TypeError,
        r"lengths: expected int32, got int64; convert it with \.astype\('int32'\)",
    ),
    (
        "table int64",
        {"page_indices": np.ones((6, 12), np.int64)},
        TypeError,
        "page_indices: expected int32, got int64",
    ),
    (
        "lengths rank",
        {"lengths": GOOD["lengths"][None]},
        ValueError,
        r"lengths: expected \[batch\]",
    ),
    (
        "table rank",
        {"page_indices": GOOD["page_indices"][0]},
        ValueError,
        r"page_indices: expected \[batch, pages_per_seq\], got 1 dimension",
    ),
    (
        "batch of table",
        {"page_indices": GOOD["page_indices"][:2]},
        ValueError,
        "page_indices: expected batch 6 as in lengths, got 2",
    ),
    ("batch of q", {"q": GOOD["q"][:3]}, ValueError, "q: expected batch 6 as in lengths, got 3"),
    (
        "empty table",
        {"page_indices": GOOD["page_indices"][:, :0]},
        ValueError,
        "page_indices: expected at least one page",
    ),
    (
        "width",
        {"q": GOOD["q"][..., :500]},
        ValueError,
        "q: expected width 576 as in kv_pages, got 500",
    ),
    ("0 heads", {"q": GOOD["q"][:, :, :0]}, ValueError, r"heads of q: expected 1\.\.128, got 0"),
    (
        "129 heads",
        {"q": jnp.zeros((6, 1, 129, 576), jnp.bfloat16)},
        ValueError,
        r"heads of q: expected 1\.\.128, got 129",
    ),
    ("no query", {"q": GOOD["q"][:, :0]}, ValueError, "q_len of q: expected a positive int, got 0"),
    ("latent_dim 0", {"latent_dim": 0}, ValueError, r"latent_dim: expected 1\.\.576, got 0"),
    ("latent_dim", {"latent_dim": 577}, ValueError, r"latent_dim: expected 1\.\.576, got 577"),
    (
        "latent_dim type",
        {"latent_dim": 512.0},
        TypeError,
        "latent_dim: expected a Python int, got fl",
    ),
    ("scale None", {"scale": None}, TypeError, "scale: expected a Python float, got NoneType"),
    ("scale NaN", {"scale": float("nan")}, ValueError, "scale: expected a finite number, got nan"),
    (
        "scale array",
        {"scale": jnp.ones(())},
        TypeError,
        "scale: expected a Python float, got Array",
    ),
    (
        "superfluous kv_scale",
        {"kv_scale": jnp.ones(())},
        ValueError,
        "kv_scale: expected None for bfloat16 kv_pages, got a scale",
    ),
    (
        "superfluous q_scale",
        {"q_scale": jnp.ones(())},
        ValueError,
        "q_scale: expected None for bfloat16 q, got a scale",
    ),
    ("0 splits", {"num_kv_splits": 0}, ValueError, "num_kv_splits: expected a positive int, got 0"),
    ("splits type", {"num_kv_splits": 2.0}, TypeError, "num_kv_splits: expected a Python int"),
    ("splits bool", {"num_kv_splits": True}, TypeError, "num_kv_splits: expected a Python int"),
]
BAD_FP8: list[tuple[str, Change, type[Exception], str]] = [
    (
        "missing kv_scale",
        {"kv_scale": None},
        ValueError,
        "kv_scale: expected a float32 scalar for float8_e4m3fn kv_pages, got None",
    ),
    (
        "missing q_scale",
        {"q_scale": None},
        ValueError,
        "q_scale: expected a float32 scalar for float8_e4m3fn q, got None",
    ),
    ("scale is a float", {"kv_scale": 1.0}, TypeError, "kv_scale: expected an array, got float"),
    (
        "scale dtype",
        {"kv_scale": jnp.ones((), jnp.bfloat16)},
        TypeError,
        "kv_scale: expected float32, got bfloat16",
    ),
    (
        "scale shape",
        {"q_scale": jnp.ones(2)},
        ValueError,
        r"q_scale: expected shape \(\) or \(1,\), got \(2,\)",
    ),
    (
        "other fp8",
        {"kv_pages": jnp.zeros((3, 16, 576), jnp.float8_e4m3fnuz)},
        TypeError,
        "kv_pages: expected float8_e4m3fn like q, got float8_e4m3fnuz",
    ),
]
ONLY_DECODE: list[tuple[str, Change, type[Exception], str]] = [
    (
        "implementation",
        {"implementation": "triton"},
        ValueError,
        "implementation: expected None or one of 'asm', 'kernel', 'xla', got 'triton'",
    ),
    (
        "head_plan",
        {"head_plan": "fold"},
        ValueError,
        "head_plan: expected None or one of 'pad', 'ro",
    ),
    ("target", {"target": "gfx942"}, TypeError, "target: expected a Target, got str"),
    ("metadata", {"metadata": ()}, TypeError, "metadata: expected a DecodeMetadata, got tuple"),
]


def ids(table: list[tuple[str, Change, type[Exception], str]]) -> list[str]:
    return [row[0] for row in table]


@pytest.mark.parametrize("op", [jax_mla.decode, jax_mla.reference], ids=["decode", "reference"])
@pytest.mark.parametrize(("_", "change", "error", "message"), BAD, ids=ids(BAD))
def test_bad_input(
    op: Callable[..., Any], _: str, change: Change, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{op.__name__}: {message}"):
        call(op, GOOD | change)


@pytest.mark.parametrize(("_", "change", "error", "message"), BAD_FP8, ids=ids(BAD_FP8))
def test_bad_fp8_input(_: str, change: Change, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^decode: {message}"):
        call(jax_mla.decode, arguments("fp8fn") | change)


@pytest.mark.parametrize(("_", "change", "error", "message"), ONLY_DECODE, ids=ids(ONLY_DECODE))
def test_bad_choice(_: str, change: Change, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^decode: {message}"):
        call(jax_mla.decode, GOOD | change)


def test_traced_statics_say_how_to_mend_it() -> None:
    with pytest.raises(
        TypeError, match=r"scale: .* traced value; make it static \(static_argnames"
    ):
        jax.jit(lambda scale: call(jax_mla.decode, GOOD | {"scale": scale}))(0.1)
    with pytest.raises(TypeError, match="num_kv_splits: expected a Python int, got a traced value"):
        jax.jit(lambda n: call(jax_mla.decode, GOOD | {"num_kv_splits": n}))(2)


def test_int64_is_refused_under_x64(x64: None) -> None:
    with pytest.raises(TypeError, match="lengths: expected int32, got int64"):
        call(jax_mla.decode, GOOD | {"lengths": GOOD["lengths"].astype(jnp.int64)})


# --- Metadata that was made for something else ----------------------------------------------------

MADE_FOR = {
    "page_size": 16,
    "num_pages": 75,
    "heads": 4,
    "q_len": 1,
    "q_dtype": jnp.dtype(jnp.bfloat16),
    "kv_dtype": jnp.dtype(jnp.bfloat16),
}


@pytest.mark.parametrize(
    ("made_for", "call_with", "message"),
    [
        ({"heads": 8}, {}, "heads: made for 8, got 4"),
        ({"page_size": 32}, {}, "page_size: made for 32, got 16"),
        ({"num_pages": 74}, {}, "num_pages: made for 74, got 75"),
        ({"q_len": 2}, {}, "q_len: made for 2, got 1"),
        ({"kv_dtype": jnp.float8_e4m3fn}, {}, "kv_dtype: made for float8_e4m3fn, got bfloat16"),
        (
            {"q_dtype": jnp.float16, "kv_dtype": jnp.float16},
            {},
            "q_dtype: made for float16, got bfloat16; kv_dtype: made for float16, got bfloat16",
        ),
        ({"num_kv_splits": 4}, {"num_kv_splits": 8}, "num_kv_splits: made for 4, got 8"),
        (
            {"target": Target("gfx950", 256)},
            {"target": Target("gfx942", 304)},
            "target: made for .*gfx950.*got .*gfx942",
        ),
        ({"heads": 8, "q_len": 2}, {}, "heads: made for 8, got 4; q_len: made for 2, got 1"),
    ],
)
def test_metadata_of_another_call(made_for: Change, call_with: Change, message: str) -> None:
    make = functools.partial(jax_mla.make_metadata, GOOD["lengths"], GOOD["page_indices"])
    metadata = make(**(MADE_FOR | made_for))
    with pytest.raises(ValueError, match=f"^decode: metadata: does not fit this call: {message}"):
        call(jax_mla.decode, GOOD | call_with | {"metadata": metadata})


def test_metadata_of_another_batch() -> None:
    metadata = jax_mla.make_metadata(GOOD["lengths"][:3], GOOD["page_indices"][:3], **MADE_FOR)
    with pytest.raises(ValueError, match="batch: made for 3, got 6"):
        call(jax_mla.decode, GOOD | {"metadata": metadata})


def test_metadata_lends_its_splits_and_target() -> None:
    target = Target("gfx950", 256)
    metadata = jax_mla.make_metadata(
        GOOD["lengths"], GOOD["page_indices"], **MADE_FOR, num_kv_splits=3, target=target
    )
    assert dataclasses.asdict(metadata.spec)["num_kv_splits"] == 3
    jaxpr = jax.make_jaxpr(lambda m: call(jax_mla.decode, GOOD | {"metadata": m}))(metadata)
    (equation,) = (e for e in jaxpr.eqns if e.primitive.name == "mla_decode")
    assert equation.params["num_kv_splits"] == 3 and equation.params["target"] == target
