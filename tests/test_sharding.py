# SPDX-License-Identifier: Apache-2.0
"""On eight virtual devices."""

import functools
import re
import warnings
from typing import Any

import cases
import compare
import ir
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.sharding import AxisType, NamedSharding

import jax_mla

P = jax.P
EVERYWHERE, HEADS, BATCH = P(), P(None, None, "x"), P("x")
# How q, kv_pages, lengths and page_indices lie on the devices, and how out and lse do.
BY_HEADS = ((HEADS, EVERYWHERE, EVERYWHERE, EVERYWHERE), (HEADS, HEADS))
BY_BATCH = ((BATCH, EVERYWHERE, BATCH, BATCH), (BATCH, BATCH))


@pytest.fixture(scope="module")
def auto_mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))


@pytest.fixture(scope="module", params=[AxisType.Auto, AxisType.Explicit], ids=str)
def mesh(request: pytest.FixtureRequest) -> jax.sharding.Mesh:
    return jax.make_mesh((8,), ("x",), axis_types=(request.param,))


def eight_sequences(**options: Any) -> cases.Case:
    return cases.make(64, lengths=(192, 0, 1, 77, 16, 33, 150, 191), **options)


def sharded(
    mesh: jax.sharding.Mesh, specs: Any, case: cases.Case, **options: Any
) -> tuple[Any, list[jax.Array]]:
    """decode in shard_map, and the operands where it wants them."""
    ins, outs = specs
    decode = functools.partial(jax_mla.decode, **case.options, return_residuals=True, **options)
    step = jax.jit(jax.shard_map(decode, mesh=mesh, in_specs=ins, out_specs=outs))
    placed = [
        jax.device_put(x, NamedSharding(mesh, spec))
        for x, spec in zip(case.operands, ins, strict=True)
    ]
    return step, placed


@pytest.mark.parametrize("dtypes", ["bf16", "f32"])
@pytest.mark.parametrize("specs", [BY_HEADS, BY_BATCH], ids=["heads", "batch"])
def test_shard_map_moves_nothing_and_changes_no_bit(
    specs: Any, dtypes: str, mesh: jax.sharding.Mesh
) -> None:
    case = eight_sequences(dtypes=dtypes)
    step, operands = sharded(mesh, specs, case)
    text = step.lower(*operands).compile().as_text()
    assert not re.findall(r"all-gather|all-reduce|all-to-all|collective-permute", text)
    whole = jax_mla.decode(*case.operands, **case.options, return_residuals=True)
    for a, b in zip(step(*operands), whole, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("specs", "shape"),
    [(BY_HEADS, (8, 1, 16, 576)), (BY_BATCH, (1, 1, 64, 576))],
    ids=["heads", "batch"],
)
def test_rocm_pads_each_shard(specs: Any, shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> None:
    """64 heads over 8 devices are 8 each, which become 16."""
    step, operands = sharded(mesh, specs, eight_sequences(), implementation="asm")
    (call,) = ir.custom_calls(step.trace(*operands).lower(lowering_platforms=("rocm",)))
    assert call.operands[0] == (shape, "bf16")
    assert call.attributes["heads"] == ("8 : i64" if specs is BY_HEADS else "64 : i64")


@pytest.mark.parametrize("specs", [BY_HEADS, BY_BATCH], ids=["heads", "batch"])
def test_wrong_out_specs_are_refused(specs: Any, mesh: jax.sharding.Mesh) -> None:
    step, operands = sharded(mesh, (specs[0], (P(), P())), eight_sequences())
    with pytest.raises(ValueError, match="out_specs"):
        step.lower(*operands)


def test_metadata_and_gradient_inside_shard_map(auto_mesh: jax.sharding.Mesh) -> None:
    case = eight_sequences(dtypes="f32", finite=True)
    q, kv_pages, lengths, page_indices = case.operands

    def loss(q: jax.Array, kv_pages: jax.Array) -> jax.Array:
        def local(
            q: jax.Array, kv_pages: jax.Array, lengths: jax.Array, table: jax.Array
        ) -> jax.Array:
            metadata = jax_mla.make_metadata(
                lengths,
                table,
                page_size=kv_pages.shape[1],
                num_pages=kv_pages.shape[0],
                heads=q.shape[2],
                q_dtype=q.dtype,
                kv_dtype=kv_pages.dtype,
            )
            return jax_mla.decode(q, kv_pages, lengths, table, scale=cases.SCALE, metadata=metadata)

        in_specs, out_specs = BY_HEADS[0], BY_HEADS[1][0]
        out = jax.shard_map(local, mesh=auto_mesh, in_specs=in_specs, out_specs=out_specs)(
            q, kv_pages, lengths, page_indices
        )
        return jnp.sin(out).sum()

    def whole(q: jax.Array, kv_pages: jax.Array) -> jax.Array:
        out = jax_mla.reference(q, kv_pages, lengths, page_indices, scale=cases.SCALE)
        assert isinstance(out, jax.Array)
        return jnp.sin(out).sum()

    got = jax.jit(jax.grad(loss, argnums=(0, 1)))(q, kv_pages)
    expected = jax.grad(whole, argnums=(0, 1))(q, kv_pages)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_keys_over_devices(auto_mesh: jax.sharding.Mesh) -> None:
    """Context parallel: each device holds an eighth of every sequence's pages."""
    case = cases.make(5, page_size=8, dtypes="f32", lengths=(192, 0, 1, 77), finite=True)
    q, kv_pages, lengths, page_indices = case.operands
    local_tokens = 192 // 8

    def local(q: jax.Array, kv_pages: jax.Array, lengths: jax.Array, table: jax.Array) -> Any:
        first = jax.lax.axis_index("x") * local_tokens
        here = jnp.clip(lengths - first, 0, local_tokens)
        out, lse = jax_mla.decode(
            q, kv_pages, here, table, scale=cases.SCALE, return_residuals=True
        )
        return jax_mla.merge_over("x", out, lse)

    step = jax.shard_map(
        local, mesh=auto_mesh, in_specs=(P(), P(), P(), P(None, "x")), out_specs=(P(), P())
    )
    out, lse = jax.jit(step)(q, kv_pages, lengths, page_indices)
    compare.assert_close(out, lse, *oracle.decode(case))


def test_sharded_operands_outside_of_shard_map_are_warned_about(mesh: jax.sharding.Mesh) -> None:
    case = eight_sequences()
    operands = list(case.operands)
    operands[0] = jax.device_put(operands[0], NamedSharding(mesh, HEADS))
    with pytest.warns(UserWarning, match=r"decode: q: sharded over devices.*jax\.shard_map"):
        out = jax_mla.decode(*operands, **case.options)
    pool = jax.device_put(jnp.zeros((8, 16, 576)), NamedSharding(mesh, BATCH))
    with pytest.warns(UserWarning, match="append: kv_pages: sharded over devices"):
        jax_mla.append(pool, jnp.ones((8, 1, 576)), *case.operands[2:])
    expected = jax_mla.decode(*case.operands, **case.options)
    np.testing.assert_allclose(
        np.asarray(out, np.float32), np.asarray(expected, np.float32), rtol=2e-2, atol=1e-3
    )


def test_explicit_axes_are_known_while_tracing() -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    case = eight_sequences()
    operands = [
        jax.device_put(x, NamedSharding(mesh, spec))
        for x, spec in zip(case.operands, BY_HEADS[0], strict=True)
    ]
    with jax.set_mesh(mesh), pytest.warns(UserWarning, match="decode: q: sharded over devices"):
        out = jax.jit(functools.partial(jax_mla.decode, **case.options))(*operands)
    assert out.sharding.spec == P(None, None, "x", None)
    expected = jax_mla.decode(*case.operands, **case.options)
    np.testing.assert_allclose(
        np.asarray(out, np.float32), np.asarray(expected, np.float32), rtol=2e-2, atol=1e-3
    )


def test_unsharded_operands_are_not_warned_about(mesh: jax.sharding.Mesh) -> None:
    case = eight_sequences()
    replicated = [jax.device_put(x, NamedSharding(mesh, P())) for x in case.operands]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax_mla.decode(*case.operands, **case.options)
        jax_mla.decode(*replicated, **case.options)
        step, operands = sharded(mesh, BY_HEADS, case)
        step(*operands)
