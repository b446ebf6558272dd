# SPDX-License-Identifier: Apache-2.0
"""Our own decode on the CPU: every instruction set that this machine has."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import cases
import compare
import ir
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jax_mla
from jax_mla import native

if ("cpu", "kernel") not in native.LAUNCHES:
    pytest.skip(
        native.ABSENT or "this build or machine has no native code for the CPU",
        allow_module_level=True,
    )
from jax_mla import _native

INSTRUCTION_SETS = _native.instruction_sets()


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    _native.use_instruction_set(request.param)
    yield request.param
    _native.use_instruction_set(INSTRUCTION_SETS[0])


def run(case: cases.Case, **options: Any) -> tuple[jax.Array, jax.Array]:
    with jax.default_device(jax.devices("cpu")[0]):
        out = jax_mla.decode(
            *case.operands,
            **case.options,
            return_residuals=True,
            implementation="kernel",
            **options,
        )
    assert isinstance(out, tuple)
    return out


def check(case: cases.Case, **options: Any) -> None:
    compare.assert_close(*run(case, **options), *oracle.decode(case))


def rows_of(case: cases.Case, rows: Any) -> cases.Case:
    return dataclasses.replace(
        case, q=case.q[rows], lengths=case.lengths[rows], page_indices=case.page_indices[rows]
    )


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "q_len", "page_size", "dtypes"), cases.pairwise())
def test_against_float64(
    heads: int, q_len: int, page_size: int, dtypes: str, instruction_set: str
) -> None:
    check(cases.make(heads, q_len, page_size, dtypes))


@pytest.mark.parametrize("dtypes", cases.DTYPES)
def test_many_parts_of_long_and_short_sequences(dtypes: str, instruction_set: str) -> None:
    lengths = (2500, 0, 1, 511, 512, 513, 1024, 63, 64, 65, 2047)
    check(cases.make(5, 2, 48, dtypes, lengths, capacity=2500))


@pytest.mark.parametrize("num_kv_splits", [1, 2, 3, 16, 33])
def test_splits(num_kv_splits: int, instruction_set: str) -> None:
    case = cases.make(q_len=2, lengths=(1200, 0, 1, 511, 513), capacity=1200)
    check(case, num_kv_splits=num_kv_splits)


@pytest.mark.parametrize(("latent_dim", "rope"), [(512, 0), (256, 64), (256, 32), (64, 0)])
@pytest.mark.parametrize("dtypes", ["bf16", "f32", "bf16-fp8fn"])
def test_other_widths(latent_dim: int, rope: int, dtypes: str, instruction_set: str) -> None:
    check(cases.make(latent_dim=latent_dim, rope=rope, dtypes=dtypes))


@pytest.mark.parametrize("dtypes", ["bf16", "f32"])
def test_large_scores_do_not_overflow(dtypes: str, instruction_set: str) -> None:
    case = cases.make(dtypes=dtypes)
    case = dataclasses.replace(case, q=(case.q * 100).astype(case.q.dtype))
    expected_out, expected_lse = oracle.decode(case)
    out, lse = run(case)
    np.testing.assert_allclose(out.astype(np.float32), expected_out, rtol=8e-3, atol=1e-3)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-6)


@pytest.mark.parametrize("dtypes", ["fp8fn", "fp8fnuz", "bf16-fp8fn", "bf16-fp8fnuz"])
def test_every_float8_is_read_as_it_is(dtypes: str, instruction_set: str) -> None:
    """A sequence of one token gives its value back: each of the codes, NaN too."""
    case = cases.make(4, dtypes=dtypes, lengths=(1,), capacity=16)
    kv_dtype = case.kv_pages.dtype
    codes = np.arange(512).astype(np.uint8).view(kv_dtype)
    values = codes.astype(np.float32)
    pool = np.zeros_like(case.kv_pages)
    page = int(case.page_indices[0, 0])
    pool[page, 0, :512] = np.where(np.isnan(values), 0, codes.astype(np.float32)).astype(kv_dtype)
    case = dataclasses.replace(case, kv_pages=pool, kv_scale=np.ones((), np.float32))
    out, _ = run(case)
    np.testing.assert_array_equal(out[0, 0, 0].astype(np.float32), np.nan_to_num(values, nan=0.0))
    pool[page, 0, 0] = codes[np.isnan(values)][0]
    out, _ = run(dataclasses.replace(case, kv_pages=pool))
    assert np.isnan(out.astype(np.float32)).any()


def test_rounded_weights_have_no_bias(instruction_set: str) -> None:
    """Weights that bfloat16 rounds down alike, by 0.4 %: the mean of equal values is that value."""
    case = cases.make(lengths=(500,), capacity=512)
    q, pool = np.zeros_like(case.q), np.zeros_like(case.kv_pages)
    q[..., 512] = pool[..., :512] = 1
    pool[case.page_indices[0, 0], 0, 512] = 1  # the first token's weight is 1, others' 0.5019
    case = dataclasses.replace(case, q=q, kv_pages=pool, scale=-np.log(0.5019).item())
    out, lse = run(case)
    np.testing.assert_array_equal(out.astype(np.float32), 1)
    np.testing.assert_allclose(lse, oracle.decode(case)[1], rtol=1e-6)


@pytest.mark.parametrize("dtypes", ["bf16", "f32"])
@pytest.mark.parametrize("token", [0, 700, 1199])
def test_nan_in_a_key_that_is_seen_is_not_hidden(
    token: int, dtypes: str, instruction_set: str
) -> None:
    case = cases.make(dtypes=dtypes, lengths=(1200, 1200), capacity=1200)
    expected = run(case)
    pool = case.kv_pages.copy()
    pool[case.page_indices[1, token // 16], token % 16, 570] = np.nan  # of the rope
    got = run(dataclasses.replace(case, kv_pages=pool))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        assert np.isnan(a[1].astype(np.float32)).all()


@pytest.mark.parametrize("dtypes", ["bf16", "f32"])
def test_subnormal_numbers_are_zeros(dtypes: str, instruction_set: str) -> None:
    """However the thread that computes was set up, which differs between XLA's and the caller's."""
    case = cases.make(dtypes=dtypes, lengths=(2000,) * 6, capacity=2000)
    pool = np.full_like(case.kv_pages, 1e-39)
    assert (pool.astype(np.float64) > 0).all()
    out, _ = run(dataclasses.replace(case, kv_pages=pool))
    np.testing.assert_array_equal(out, np.zeros_like(out))


@pytest.mark.parametrize("dtypes", ["fp8fn", "bf16-fp8fn"])
def test_results_are_rounded_to_nearest_even(dtypes: str, instruction_set: str) -> None:
    """A sequence of one token gives its value times kv_scale, which float32 holds before."""
    case = cases.make(4, dtypes=dtypes, lengths=(1,), capacity=16)
    kv_scale = np.float32(1 + 2**-8)  # ties, of any value with few digits
    value = case.kv_pages[case.page_indices[0, 0], 0, :512].astype(np.float32)
    out, _ = run(dataclasses.replace(case, kv_scale=np.asarray(kv_scale)))
    np.testing.assert_array_equal(out[0, 0, 0], (value * kv_scale).astype(out.dtype))


@pytest.mark.parametrize("dtypes", ["bf16", "f32", "bf16-fp8fn"])
def test_bad_values_cannot_reach_outside(dtypes: str, instruction_set: str) -> None:
    """Lengths and pages are clamped: the bits are those of the nearest ones that are good."""
    case = cases.make(q_len=2, dtypes=dtypes, finite=True)
    lengths, table = case.lengths.copy(), case.page_indices.copy()
    lengths[1], lengths[3] = -(2**31), 2**31 - 1
    table[0, 2], table[0, 5], table[5, 0] = -1, cases.ABSURD_PAGE, -(2**31)
    bad = dataclasses.replace(case, lengths=lengths, page_indices=table)
    num_pages, page_size, _ = case.kv_pages.shape
    good = dataclasses.replace(
        case,
        lengths=lengths.clip(0, table.shape[1] * page_size),
        page_indices=table.clip(0, num_pages - 1),
    )
    check(good)
    for a, b in zip(run(bad), run(good), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("scale", [0.0, -0.05])
@pytest.mark.parametrize("dtypes", ["bf16", "f32"])
def test_what_is_masked_has_no_weight_at_any_scale(
    dtypes: str, scale: float, instruction_set: str
) -> None:
    check(dataclasses.replace(cases.make(q_len=3, dtypes=dtypes), scale=scale))


def test_empty_batch() -> None:
    out, lse = run(cases.make(lengths=()))
    assert out.shape == (0, 1, 4, 512) and lse.shape == (0, 1, 4)


# --- Bits that must not depend on the neighbours --------------------------------------------------


@pytest.mark.parametrize("num_kv_splits", [None, 4])
@pytest.mark.parametrize("dtypes", ["bf16", "f32", "bf16-fp8fn"])
def test_a_sequence_does_not_depend_on_its_batch(
    dtypes: str, num_kv_splits: int | None, instruction_set: str
) -> None:
    case = cases.make(5, 2, dtypes=dtypes, lengths=(1600, 0, 33, 512, 1192), capacity=1600)
    together = run(case, num_kv_splits=num_kv_splits)
    for rows in (slice(0, 1), slice(2, 3), slice(3, 5), [4, 0]):
        part = run(rows_of(case, rows), num_kv_splits=num_kv_splits)
        for alone, whole in zip(part, together, strict=True):
            np.testing.assert_array_equal(alone, whole[np.r_[rows]])


@pytest.mark.parametrize("dtypes", ["bf16", "f32", "bf16-fp8fn"])
@pytest.mark.parametrize("heads", [1, 2, 3, 4, 5, 8, 12, 16, 20])
def test_a_head_does_not_depend_on_the_others(
    heads: int, dtypes: str, instruction_set: str
) -> None:
    case = cases.make(33, 3, dtypes=dtypes, lengths=(600, 1, 130), capacity=600)
    whole = run(case)
    part = run(dataclasses.replace(case, q=case.q[:, :, :heads]))
    for alone, together in zip(part, whole, strict=True):
        np.testing.assert_array_equal(alone, together[:, :, :heads])


def test_a_sequence_does_not_depend_on_the_width_of_its_table(instruction_set: str) -> None:
    case = cases.make(lengths=(1600, 1111), capacity=1600)
    wide = np.pad(case.page_indices, ((0, 0), (0, 900)), constant_values=cases.ABSURD_PAGE)
    for a, b in zip(run(case), run(dataclasses.replace(case, page_indices=wide)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.full
@pytest.mark.parametrize(("dtypes", "page_size"), [("bf16", 64), ("bf16-fp8fn", 1)])
def test_a_cache_of_more_than_4_gib(dtypes: str, page_size: int, instruction_set: str) -> None:
    case = cases.make(4, 2, page_size, dtypes, lengths=(300, 450), capacity=512)
    check(cases.in_large_pool(case))


def test_poison_does_not_change_a_bit(instruction_set: str) -> None:
    poisoned, clean = (cases.make(q_len=2, finite=finite) for finite in (False, True))
    for a, b in zip(run(poisoned), run(clean), strict=True):
        np.testing.assert_array_equal(a, b)


THREADS = """
import os, sys
if sys.argv[1] == "1":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
import hashlib, numpy as np, jax
sys.path.insert(0, sys.argv[2])
import cases, jax_mla
digest = hashlib.sha256()
for dtypes in ("bf16", "f32", "bf16-fp8fn"):
    case = cases.make(20, 2, 16, dtypes, (2500, 0, 700, 1500), capacity=2500)
    for _ in range(340):
        for x in jax_mla.decode(
            *case.operands, **case.options, return_residuals=True, implementation="kernel"
        ):
            digest.update(np.asarray(x).tobytes())
print(digest.hexdigest())
"""


def test_neither_threads_nor_runs_change_a_bit() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: there is no other number of threads")
    tests = os.path.dirname(os.path.abspath(__file__))
    one, all_of_them = (
        subprocess.run(
            [sys.executable, "-c", THREADS, threads, tests],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        ).stdout
        for threads in ("1", "all")
    )
    assert one == all_of_them and len(one) == 65


# --- The call -------------------------------------------------------------------------------------


def test_it_is_what_the_cpu_gets() -> None:
    case = cases.make()
    said = jax_mla.explain(*case.operands, platform="cpu", **case.options)
    assert said.implementation == "kernel" and said.passed_over == {}


def test_other_widths_go_to_xla_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    case = cases.make(latent_dim=8, rope=3, dtypes="f32")
    with pytest.raises(NotImplementedError, match=r"latent_dim that is a multiple of 64.*got 8"):
        run(case)
    said = jax_mla.explain(*case.operands, platform="cpu", **case.options)
    assert said.implementation == "xla" and "multiple of 64" in said.passed_over["kernel"]
    step = jax.jit(lambda *x: jax_mla.decode(*x, **case.options))
    assert not ir.custom_calls(step.trace(*case.operands).lower(lowering_platforms=("cpu",)))
    assert not recwarn.list


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no instruction set 'sse9'"):
        _native.use_instruction_set("sse9")


def test_more_sequences_than_slots(instruction_set: str) -> None:
    """256 parts are under way at once, of 85 sequences of up to three, or of two of 128."""
    lengths = tuple(int(x) for x in np.random.default_rng(0).integers(0, 1200, 300))
    case = cases.make(1, 1, 16, lengths=lengths, capacity=1200)
    check(case)
    check(rows_of(case, slice(0, 9)), num_kv_splits=128)


def test_nothing_of_size_is_allocated() -> None:
    """The keys are read where they lie: temporaries are the partial results."""
    struct = jax.ShapeDtypeStruct
    step = jax.jit(lambda *x: jax_mla.decode(*x, scale=0.1, implementation="kernel"))
    compiled = step.lower(
        struct((8, 16, 576), jnp.bfloat16),
        struct((8192, 64, 576), jnp.bfloat16),
        struct((8,), jnp.int32),
        struct((8, 64), jnp.int32),
    ).compile()
    partials = 8 * (4096 // 512) * 16 * (512 + 16) * 4
    keys = 8 * 4096 * 1152
    assert compiled.memory_analysis().temp_size_in_bytes <= partials + keys / 100


# --- Calls that decode does not make --------------------------------------------------------------


def call_by_hand(**changes: Any) -> Any:
    """The custom call on zeros, with any part changed."""
    operands = {
        "q": jnp.zeros((2, 1, 4, 576), jnp.bfloat16),
        "kv_pages": jnp.zeros((5, 8, 576), jnp.bfloat16),
        "lengths": jnp.full(2, 9, jnp.int32),
        "page_indices": jnp.zeros((2, 3), jnp.int32),
    }
    attributes = {
        "num_kv_splits": np.int64(2),
        "part_tokens": np.int64(64),
        "scale": np.float32(1),
    }
    latent_dim, extra = changes.pop("latent_dim", 512), changes.pop("extra", ())
    operands |= {name: x for name, x in changes.items() if name in operands}
    attributes |= {name: x for name, x in changes.items() if name in attributes}
    results = (
        jax.ShapeDtypeStruct((2, 1, 4, latent_dim), jnp.bfloat16),
        jax.ShapeDtypeStruct((2, 1, 4), jnp.float32),
        jax.ShapeDtypeStruct((2 * 2 * 4 * (latent_dim + 16) * 4,), jnp.uint8),
    )
    call = jax.ffi.ffi_call("jax_mla_decode_kernel_cpu_v1", results)
    with jax.default_device(jax.devices("cpu")[0]):
        return jax.block_until_ready(call(*operands.values(), *extra, **attributes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_kv_splits": np.int64(0)}, "num_kv_splits, part_tokens: expected positive"),
        ({"part_tokens": np.int64(0), "lengths": jnp.zeros(2, jnp.int32)}, "expected positive"),
        ({"lengths": jnp.zeros(3, jnp.int32)}, "lengths: expected shape"),
        ({"kv_pages": jnp.zeros((0, 8, 576), jnp.bfloat16)}, "kv_pages: empty"),
        ({"kv_pages": jnp.zeros((5, 8, 576), jnp.int8)}, "kv_pages: no such dtype"),
        ({"kv_pages": jnp.zeros((5, 8, 576), jnp.float8_e4m3fn)}, "q_scale, kv_scale: expected"),
        ({"extra": (jnp.zeros((), jnp.float32),)}, "too many operands"),
        ({"latent_dim": 480}, "a latent_dim that is a multiple of 64"),
        ({"num_kv_splits": np.int64(3)}, "workspace: expected a multiple of 25344 bytes"),
    ],
)
def test_a_broken_call_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"INVALID_ARG.*{message}"):
        call_by_hand(**changes)
    out, lse, _ = call_by_hand()  # and nothing is broken
    np.testing.assert_array_equal(out, 0)
    np.testing.assert_allclose(lse, np.log(9), rtol=1e-6)
