# SPDX-License-Identifier: Apache-2.0
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mla
from jax_mla import cache

DTYPES = ["bfloat16", "float16", "float32", "float8_e4m3fn", "float8_e4m3fnuz"]


def inputs(dtype: Any, q_len: int = 3) -> tuple[jax.Array, ...]:
    """A pool, rows and a table with every kind of row: fits, crosses pages, starts, bad."""
    rng = np.random.default_rng(0)
    pool = jnp.asarray(rng.standard_normal((9, 4, 8)), dtype)
    rows = jnp.asarray(rng.standard_normal((7, q_len, 8)), dtype)
    table = np.array(
        [[1, 2], [3, 4], [5, 6], [7, cases.ABSURD_PAGE], [-1, 8], [0, 0], [8, 0]], np.int32
    )
    # In order: crosses a page, shorter than q_len, empty, past the table, bad page for the first
    # rows, negative, and a page id beyond the length that must not be looked at.
    lengths = np.array([5, 2, 0, 10, 5, -7, 4], np.int32)
    return pool, rows, jnp.asarray(lengths), jnp.asarray(table)


def expected(pool: jax.Array, rows: jax.Array, lengths: jax.Array, table: jax.Array) -> np.ndarray:
    result = np.array(pool)
    pages, page_size, _ = result.shape
    for row, length in enumerate(np.asarray(lengths).tolist()):
        for t in range(rows.shape[1]):
            position = length - rows.shape[1] + t
            if not 0 <= position < table.shape[1] * page_size:
                continue
            page = int(table[row, position // page_size])
            if 0 <= page < pages:
                result[page, position % page_size] = rows[row, t]
    return result


def same_bits(a: Any, b: Any) -> None:
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("q_len", [1, 3])
def test_append(dtype: str, q_len: int) -> None:
    operands = inputs(dtype, q_len)
    before = np.array(operands[0])
    same_bits(jax_mla.append(*operands), expected(*operands))
    same_bits(operands[0], before)  # not donated: the caller's pool is untouched
    same_bits(jax.jit(cache._scatter)(*operands)[0], expected(*operands))


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place_without_a_temporary_byte(dtype: str) -> None:
    pool = jax.ShapeDtypeStruct((512, 64, 576), jnp.dtype(dtype))
    rows = jax.ShapeDtypeStruct((8, 2, 576), jnp.dtype(dtype))
    table = [jax.ShapeDtypeStruct(s, jnp.int32) for s in ((8,), (8, 16))]
    compiled = jax.jit(jax_mla.append, donate_argnums=0).lower(pool, rows, *table).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes == 0
    assert memory.alias_size_in_bytes == memory.output_size_in_bytes


def test_vmap_over_pools() -> None:
    pool, rows, lengths, table = inputs("float32")
    pools = jnp.stack([pool, pool + 1])
    mapped = jax.vmap(jax_mla.append, in_axes=(0, None, None, None))(pools, rows, lengths, table)
    for i in range(2):
        same_bits(mapped[i], expected(pools[i], rows, lengths, table))


def test_gradient_reaches_the_rows_and_the_pool() -> None:
    pool, rows, lengths, table = inputs("float32")
    weight = jnp.arange(pool.size, dtype=jnp.float32).reshape(pool.shape)

    def loss(pool: jax.Array, rows: jax.Array) -> jax.Array:
        return (weight * jax_mla.append(pool, rows, lengths, table)).sum()

    moved = jax.grad(loss, argnums=(0, 1))(pool, rows)
    ones = expected(jnp.zeros_like(pool), jnp.ones_like(rows), lengths, table)
    np.testing.assert_array_equal(moved[0], np.where(ones == 1, 0, weight))
    written = np.sort(np.unique(np.asarray(moved[1])))
    np.testing.assert_array_equal(written[1:], np.unique(weight[ones == 1]))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e4m3fnuz"])
def test_rows_are_quantised(dtype: str) -> None:
    pool = jax_mla.init_cache(2, 4, width=8, dtype=dtype)
    rows = jnp.array([[[0.5, -1, 2, 3, 1e6, -1e6, 0, 0.1]]], jnp.bfloat16)
    where = jnp.ones(1, jnp.int32), jnp.ones((1, 1), jnp.int32)
    out = jax_mla.append(pool, rows, *where, kv_scale=np.float32(0.5))
    same_bits(out, jax_mla.append(pool, rows, *where, kv_scale=jnp.full(1, 0.5)))
    largest = float(jnp.finfo(dtype).max)
    exact = np.clip(np.asarray(rows[0, 0], np.float32) / 0.5, -largest, largest)
    same_bits(out[1, 0], exact.astype(jnp.dtype(dtype)))
    assert not np.asarray(out, np.float32)[0].any()


def test_append_then_decode() -> None:
    """A sequence that grows token by token is the sequence that was there from the start."""
    case = cases.make(dtypes="f32", lengths=(40, 7), capacity=48, finite=True)
    _, full, lengths, table = case.operands
    pool = jax_mla.init_cache(full.shape[0], full.shape[1], dtype=full.dtype)
    step = jax.jit(jax_mla.append, donate_argnums=0)
    tokens = np.arange(48)
    rows = full[table[:, tokens // 16], tokens % 16]
    for t in range(40):
        now = jnp.minimum(t + 1, lengths)
        pool = step(pool, rows[jnp.arange(2), now - 1][:, None], now, table)
    grown = jax_mla.decode(case.operands[0], pool, lengths, table, scale=case.scale)
    np.testing.assert_array_equal(grown, jax_mla.decode(*case.operands, **case.options))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rows": np.zeros((7, 8), np.float32)}, ValueError, r"rows: expected \[batch, q_len, wid"),
        (
            {"rows": np.zeros((7, 1, 9), np.float32)},
            ValueError,
            "rows: expected width 8 as in kv_p",
        ),
        ({"rows": np.zeros((6, 1, 8), np.float32)}, ValueError, "rows: expected batch 7 as in len"),
        ({"rows": np.zeros((7, 1, 8), np.float16)}, TypeError, "rows: expected float32 like kv_pa"),
        ({"lengths": np.zeros(7, np.int64)}, TypeError, "lengths: expected int32"),
        ({"kv_scale": np.ones((), np.float32)}, ValueError, "kv_scale: expected None"),
    ],
)
def test_append_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    names = ("kv_pages", "rows", "lengths", "page_indices")
    arguments = dict(zip(names, inputs("float32"), strict=True)) | change
    with pytest.raises(error, match=f"^append: {message}"):
        jax_mla.append(**arguments)


def test_fp8_rows_need_a_scale() -> None:
    _, rows, lengths, table = inputs("float32")
    pool = jax_mla.init_cache(9, 4, width=8, dtype=jnp.float8_e4m3fn)
    with pytest.raises(ValueError, match=r"^append: kv_scale: expected a float32 scalar"):
        jax_mla.append(pool, rows, lengths, table)


def test_init_cache() -> None:
    pool = jax_mla.init_cache(3, 64)
    assert pool.shape == (3, 64, 576) and pool.dtype == jnp.bfloat16 and not pool.any()
    with pytest.raises(ValueError, match=r"^init_cache: page_size: expected a positive int, got 0"):
        jax_mla.init_cache(3, 0)


def test_check_names_every_bad_row() -> None:
    table = np.array([[0, 1], [9, 5], [1, -1], [7, 7], [0, 0]], np.int32)
    lengths = np.array([8, 3, 6, -1, 9], np.int32)
    with pytest.raises(ValueError) as caught:
        jax_mla.check(lengths, table, page_size=4, num_pages=8)
    assert str(caught.value) == (
        "check: 4 problem(s): row 1: page_indices[0]: expected 0..7, got 9; "
        "row 2: page_indices[1]: expected 0..7, got -1; row 3: length: expected 0..8, got -1; "
        "row 4: length: expected 0..8, got 9"
    )
    case = cases.make()
    num_pages, page_size, _ = case.kv_pages.shape
    jax_mla.check(case.lengths, case.page_indices, page_size=page_size, num_pages=num_pages)


def test_check_is_not_for_traced_values() -> None:
    with pytest.raises(TypeError, match="call it outside of jit"):
        jax.jit(lambda n: jax_mla.check(n, n[:, None], page_size=4, num_pages=8))(
            jnp.zeros(2, jnp.int32)
        )
