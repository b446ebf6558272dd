# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools
from typing import Any

import cases
import compare
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax import export
from jax.test_util import check_grads

import jax_mla
from jax_mla import xla

# The values are those of "xla": test_decode_cpu.py has our own code's, test_rocm_decode.py AITER's.
XLA: dict[str, Any] = {"implementation": "xla"}

on_cpu = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="promised, and arranged for, on the CPU"
)

SOME = cases.pairwise()
REST = [c for c in cases.product() if c not in SOME]


def run(case: cases.Case, **options: Any) -> tuple[jax.Array, jax.Array]:
    out = jax_mla.decode(*case.operands, **case.options, return_residuals=True, **options)
    assert isinstance(out, tuple)
    return out


def check(case: cases.Case, **options: Any) -> None:
    compare.assert_close(*run(case, **XLA, **options), *oracle.decode(case))


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heads", "q_len", "page_size", "dtypes"),
    [*SOME, *(pytest.param(*c, marks=pytest.mark.full) for c in REST)],
)
def test_against_float64(heads: int, q_len: int, page_size: int, dtypes: str) -> None:
    check(cases.make(heads, q_len, page_size, dtypes))


@pytest.mark.parametrize("page_size", [3, 48, 100, 2048])
def test_any_page_size(page_size: int) -> None:
    check(cases.make(page_size=page_size, lengths=(1300, 0, 2, page_size, 700), capacity=1300))


@pytest.mark.parametrize("num_kv_splits", [1, 2, 3, 16, 33])
def test_splits(num_kv_splits: int) -> None:
    case = cases.make(q_len=2, lengths=(1200, 0, 1, 511, 513), capacity=1200)
    check(case, num_kv_splits=num_kv_splits)


@pytest.mark.parametrize(("latent_dim", "rope"), [(512, 0), (256, 64), (256, 32), (8, 3), (1, 0)])
def test_other_widths(latent_dim: int, rope: int) -> None:
    check(cases.make(latent_dim=latent_dim, rope=rope, dtypes="f32"))


def test_one_query_without_its_axis() -> None:
    case = cases.make()
    out, lse = run(case)
    short = dataclasses.replace(case, q=case.q[:, 0])
    out_short, lse_short = run(short)
    np.testing.assert_array_equal(out_short, out[:, 0])
    np.testing.assert_array_equal(lse_short, lse[:, 0])
    np.testing.assert_array_equal(jax_mla.decode(*short.operands, **short.options), out_short)


def test_empty_batch() -> None:
    case = cases.make(lengths=())
    out, lse = run(case)
    assert out.shape == (0, 1, 4, 512) and lse.shape == (0, 1, 4)


def test_large_scores_do_not_overflow() -> None:
    case = cases.make(dtypes="f32")
    case = dataclasses.replace(case, q=case.q * np.float32(100))
    expected_out, expected_lse = oracle.decode(case)
    out, lse = run(case, **XLA)
    np.testing.assert_allclose(out, expected_out, rtol=0, atol=1e-3)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-6)


def test_bad_values_cannot_reach_outside() -> None:
    """Clamped lengths and pages: other rows are right, and nothing is NaN if the pool is finite."""
    case = cases.make(dtypes="f32", finite=True)
    expected = oracle.decode(case)
    lengths, table = case.lengths.copy(), case.page_indices.copy()
    lengths[1], lengths[3] = -(2**31), 2**31 - 1
    table[0, 2], table[0, 5], table[5, 0] = -1, cases.ABSURD_PAGE, -(2**31)
    out, lse = run(dataclasses.replace(case, lengths=lengths, page_indices=table), **XLA)
    assert np.isfinite(out).all()
    good = [1, 2, 4]  # row 1 is empty in both
    compare.assert_close(out[np.array(good)], lse[np.array(good)], *(x[good] for x in expected))


def test_poison_does_not_change_a_bit() -> None:
    poisoned, clean = (cases.make(q_len=2, finite=finite) for finite in (False, True))
    for a, b in zip(run(poisoned, **XLA), run(clean, **XLA), strict=True):
        np.testing.assert_array_equal(a, b)


# --- Bits that must not depend on the neighbours --------------------------------------------------


@on_cpu
@pytest.mark.parametrize("num_kv_splits", [None, 4])
@pytest.mark.parametrize("dtypes", ["bf16", "f32"])
def test_a_sequence_does_not_depend_on_its_batch(dtypes: str, num_kv_splits: int | None) -> None:
    case = cases.make(5, dtypes=dtypes, lengths=(600, 0, 33, 512, 192), capacity=600)
    together = run(case, **XLA, num_kv_splits=num_kv_splits)
    for rows in (slice(0, 1), slice(2, 3), slice(3, 5)):
        part = dataclasses.replace(
            case,
            q=case.q[rows],
            lengths=case.lengths[rows],
            page_indices=case.page_indices[rows],
        )
        for alone, whole in zip(
            run(part, **XLA, num_kv_splits=num_kv_splits), together, strict=True
        ):
            np.testing.assert_array_equal(alone, whole[rows])


@on_cpu
@pytest.mark.parametrize("heads", [1, 2, 3, 4, 8, 12, 16, 20])
def test_a_head_does_not_depend_on_the_others(heads: int) -> None:
    case = cases.make(64, q_len=2)
    whole = run(case, **XLA)
    part = run(dataclasses.replace(case, q=case.q[:, :, :heads]), **XLA)
    for alone, together in zip(part, whole, strict=True):
        np.testing.assert_array_equal(alone, together[:, :, :heads])


def test_lengths_are_data_not_shape() -> None:
    """One compiled step serves other lengths and tables, bit for bit."""
    step = jax.jit(functools.partial(run_operands, scale=cases.SCALE))
    for lengths in ((5, 80, 0), (192, 1, 77)):
        case = cases.make(lengths=lengths)
        for a, b in zip(step(*case.operands), run(case), strict=True):
            np.testing.assert_array_equal(a, b)
    assert step._cache_size() == 1


def run_operands(*operands: jax.Array, scale: float, **options: Any) -> tuple[jax.Array, jax.Array]:
    return jax_mla.decode(*operands, scale=scale, return_residuals=True, **options)


# --- Transforms -----------------------------------------------------------------------------------


def test_vmap_over_the_batch_and_over_pools() -> None:
    case = cases.make(3, q_len=2, dtypes="f32")
    out = run(case)
    q, kv_pages, lengths, page_indices = case.operands
    one = functools.partial(run_operands, scale=cases.SCALE)
    for axes, args in (
        ((0, None, 0, 0), (q[:, None], kv_pages, lengths[:, None], page_indices[:, None])),
        ((1, None, 0, 1), (q[None], kv_pages, lengths[:, None], page_indices[None])),
    ):
        mapped = jax.vmap(one, in_axes=axes)(*args)
        for a, b in zip(mapped, out, strict=True):
            np.testing.assert_array_equal(a.reshape(b.shape), b)
    # Two pools, the second one moved by one page; q is the same for both.
    pools = jnp.stack([kv_pages, jnp.roll(kv_pages, 1, axis=0)], axis=1)
    moved = jnp.where(page_indices < kv_pages.shape[0], page_indices + 1, page_indices)
    moved = jnp.where(moved == kv_pages.shape[0], 0, moved)
    mapped = jax.vmap(one, in_axes=(None, 1, None, 0))(
        q, pools, lengths, jnp.stack([page_indices, moved])
    )
    for a, b in zip(mapped, out, strict=True):
        np.testing.assert_array_equal(a[0], b)
        np.testing.assert_array_equal(a[1], b)


def test_vmap_rebuilds_the_metadata() -> None:
    case = cases.make(dtypes="f32")
    q, kv_pages, lengths, page_indices = case.operands

    def one(q: jax.Array, lengths: jax.Array, page_indices: jax.Array) -> jax.Array:
        metadata = jax_mla.make_metadata(lengths, page_indices, **metadata_options(case))
        return run_operands(
            q, kv_pages, lengths, page_indices, scale=cases.SCALE, metadata=metadata
        )[0]

    mapped = jax.vmap(one)(q[:, None], lengths[:, None], page_indices[:, None])
    np.testing.assert_array_equal(mapped[:, 0], run(case)[0])


def test_vmap_refuses_scales_of_each_example() -> None:
    case = cases.make(dtypes="bf16-fp8fn")
    q, kv_pages, lengths, page_indices = case.operands
    with pytest.raises(NotImplementedError, match="vmap over q_scale or kv_scale"):
        jax.vmap(
            lambda s: jax_mla.decode(
                q, kv_pages, lengths, page_indices, scale=cases.SCALE, kv_scale=s
            )
        )(jnp.ones(3))


def metadata_options(case: cases.Case) -> dict[str, Any]:
    return {
        "page_size": case.kv_pages.shape[1],
        "num_pages": case.kv_pages.shape[0],
        "heads": case.q.shape[2],
        "q_len": case.q.shape[1],
        "q_dtype": case.q.dtype,
        "kv_dtype": case.kv_pages.dtype,
    }


def test_scan_and_remat() -> None:
    case = cases.make(dtypes="f32")
    _, kv_pages, lengths, page_indices = case.operands
    q = jnp.stack([jnp.asarray(case.q), jnp.asarray(case.q)[:, :, ::-1]])

    @jax.checkpoint
    def one(carry: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = jax_mla.decode(q, kv_pages, lengths, page_indices, scale=cases.SCALE)
        return carry + out.sum(), out

    total, out = jax.lax.scan(one, jnp.float32(0), q)
    expected = run(case)[0]
    np.testing.assert_array_equal(out[0], expected)
    np.testing.assert_array_equal(out[1], expected[:, :, ::-1])
    np.testing.assert_allclose(total, 2 * expected.sum(), rtol=1e-4)


def test_gradients() -> None:
    case = cases.make(2, q_len=2, dtypes="f32", lengths=(20, 0, 1, 33), capacity=40, finite=True)
    q, kv_pages, lengths, page_indices = case.operands

    def loss(q: jax.Array, kv_pages: jax.Array) -> tuple[jax.Array, jax.Array]:
        out, lse = run_operands(q, kv_pages, lengths, page_indices, scale=cases.SCALE)
        return out, jnp.where(lse == -jnp.inf, 0.0, lse)

    check_grads(loss, (q, kv_pages), order=1, modes=("fwd", "rev"), atol=1e-2, rtol=1e-2, eps=1e-2)


def test_poison_does_not_change_a_gradient() -> None:
    def gradients(case: cases.Case) -> tuple[jax.Array, jax.Array]:
        _, _, lengths, page_indices = case.operands

        def loss(q: jax.Array, kv_pages: jax.Array) -> jax.Array:
            out, lse = run_operands(q, kv_pages, lengths, page_indices, scale=cases.SCALE)
            return jnp.sin(out).sum() + jnp.where(lse == -jnp.inf, 0.0, lse).sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1)))(*case.operands[:2])

    poisoned, clean = (
        gradients(cases.make(q_len=2, dtypes="f32", finite=finite)) for finite in (False, True)
    )
    for a, b in zip(poisoned, clean, strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)
    assert np.abs(clean[1]).max() > 0


def test_gradient_of_the_scales() -> None:
    case = cases.make(dtypes="fp8fn")

    def loss(q_scale: jax.Array, kv_scale: jax.Array) -> jax.Array:
        options = case.options | {"q_scale": q_scale, "kv_scale": kv_scale}
        return jax_mla.decode(*case.operands, **options).astype(jnp.float32).sum()

    at = jnp.float32(case.q_scale), jnp.float32(case.kv_scale[0])
    moved = jax.grad(loss, argnums=(0, 1))(*at)
    h = 0.05
    for i in range(2):
        up, down = ([v + s * h * (j == i) for j, v in enumerate(at)] for s in (1, -1))
        np.testing.assert_allclose(moved[i], (loss(*up) - loss(*down)) / (2 * h), rtol=0.1)


def test_export_with_a_symbolic_batch() -> None:
    case = cases.make(dtypes="f32")
    (batch,) = export.symbolic_shape("b")
    shapes = [
        jax.ShapeDtypeStruct(x.shape if i == 1 else (batch, *x.shape[1:]), x.dtype)
        for i, x in enumerate(case.operands)
    ]
    step = jax.jit(functools.partial(run_operands, scale=cases.SCALE))
    name = "jax_mla_decode_kernel_cpu_v1"
    checks = [export.DisabledSafetyCheck.custom_call(name)]
    blob = export.export(step, disabled_checks=checks)(*shapes).serialize()
    for a, b in zip(export.deserialize(blob).call(*case.operands), run(case), strict=True):
        np.testing.assert_array_equal(a, b)


# --- Memory ---------------------------------------------------------------------------------------


@on_cpu
@pytest.mark.parametrize("dtypes", ["bf16", "f16", "f32", "bf16-fp8fn"])
def test_memory_of_a_step(dtypes: str) -> None:
    """A donated decode step needs a block and less than 1 % of the pool, and no copy of it."""
    q_dtype, kv_dtype = cases.DTYPES[dtypes]
    batch, heads, page_size, pages = 8, 16, 64, 8192
    struct = jax.ShapeDtypeStruct
    scale = jnp.ones((), jnp.float32) if "fp8" in dtypes else None

    def step(
        kv_pages: jax.Array, q: jax.Array, rows: jax.Array, lengths: jax.Array, table: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        kv_pages = jax_mla.append(kv_pages, rows, lengths, table)
        metadata = jax_mla.make_metadata(
            lengths,
            table,
            page_size=page_size,
            num_pages=pages,
            heads=heads,
            q_dtype=q_dtype,
            kv_dtype=kv_dtype,
        )
        out = jax_mla.decode(
            q, kv_pages, lengths, table, scale=0.1, metadata=metadata, kv_scale=scale, **XLA
        )
        return kv_pages, out

    pool = struct((pages, page_size, 576), kv_dtype)
    compiled = (
        jax.jit(step, donate_argnums=0)
        .lower(
            pool,
            struct((batch, heads, 576), q_dtype),
            struct((batch, 1, 576), kv_dtype),
            struct((batch,), jnp.int32),
            struct((batch, 64), jnp.int32),
        )
        .compile()
    )
    memory = compiled.memory_analysis()
    itemsize = np.dtype(kv_dtype).itemsize
    pool_bytes = pages * page_size * 576 * itemsize
    assert memory.alias_size_in_bytes == pool_bytes
    block = xla.BLOCK_TOKENS * 576 * (itemsize + 4)  # of one sequence after the other
    assert memory.temp_size_in_bytes - block < 0.01 * pool_bytes, memory.temp_size_in_bytes
