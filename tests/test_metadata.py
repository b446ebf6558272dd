# SPDX-License-Identifier: Apache-2.0
import functools
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
import planner_oracle
import pytest

import jax_mla
from jax_mla import Target

OPTIONS = {"heads": 4, "q_dtype": jnp.bfloat16, "kv_dtype": jnp.bfloat16}


def expand(case: cases.Case) -> tuple[np.ndarray, np.ndarray]:
    """kv_indptr and kv_indices, token by token."""
    page_size, capacity = (
        case.kv_pages.shape[1],
        case.page_indices.shape[1] * case.kv_pages.shape[1],
    )
    indices: list[int] = []
    indptr = [0]
    for row, length in enumerate(case.lengths):
        for t in range(length):
            indices.append(case.page_indices[row, t // page_size] * page_size + t % page_size)
        indptr.append(len(indices))
    padding = len(case.lengths) * capacity - len(indices)
    return np.array(indptr), np.array(indices + [0] * padding)


@pytest.mark.parametrize("page_size", [1, 3, 16])
def test_token_indices(page_size: int) -> None:
    case = cases.make(page_size=page_size)
    metadata = jax.jit(
        lambda lengths, table: jax_mla.make_metadata(
            lengths, table, page_size=page_size, num_pages=case.kv_pages.shape[0], **OPTIONS
        )
    )(case.lengths, case.page_indices)
    indptr, indices = expand(case)
    np.testing.assert_array_equal(metadata.kv_indptr, indptr)
    np.testing.assert_array_equal(metadata.kv_indices, indices)
    assert metadata.kv_indices.dtype == jnp.int32


def test_bad_values_are_clamped() -> None:
    lengths = jnp.array([-5, 2**31 - 1, 3], jnp.int32)
    table = jnp.array([[0, 0], [-1, cases.ABSURD_PAGE], [1, cases.ABSURD_PAGE]], jnp.int32)
    metadata = jax_mla.make_metadata(lengths, table, page_size=2, num_pages=3, **OPTIONS)
    np.testing.assert_array_equal(metadata.kv_indptr, [0, 0, 4, 7])
    np.testing.assert_array_equal(metadata.kv_indices, [0, 1, 4, 5, 2, 3, 4, 0, 0, 0, 0, 0])


def test_vmap() -> None:
    lengths = jnp.array([[3, 0], [1, 4]], jnp.int32)
    table = jnp.arange(8, dtype=jnp.int32).reshape(2, 2, 2)

    def make(lengths: jax.Array, table: jax.Array) -> jax_mla.DecodeMetadata:
        return jax_mla.make_metadata(lengths, table, page_size=2, num_pages=8, **OPTIONS)

    mapped = jax.vmap(make)(lengths, table)
    for i in range(2):
        one = make(lengths[i], table[i])
        np.testing.assert_array_equal(mapped.kv_indptr[i], one.kv_indptr)
        np.testing.assert_array_equal(mapped.kv_indices[i], one.kv_indices)


# --- Persistent mode ------------------------------------------------------------------------------

LENGTHS = (160, 0, 7, 1, 33, 160)


def persistent_case(heads: int, q_len: int) -> tuple[cases.Case, dict[str, Any]]:
    case = cases.make(heads, q_len, 16, lengths=LENGTHS, capacity=160)
    options = OPTIONS | {"heads": heads, "q_len": q_len, "mode": "persistent"}
    return case, options | {"page_size": 16, "num_pages": case.kv_pages.shape[0]}


@pytest.mark.parametrize("target", [Target("gfx942", 304), Target("gfx942", 4)])
@pytest.mark.parametrize(
    ("heads", "groups", "q_len"), [(4, 1, 1), (12, 1, 4), (16, 1, 2), (20, 2, 3), (128, 8, 1)]
)
def test_persistent(heads: int, groups: int, q_len: int, target: Target) -> None:
    """The oracle's integers, on whatever platform this is."""
    case, options = persistent_case(heads, q_len)
    make = functools.partial(jax_mla.make_metadata, **options, target=target)
    metadata = jax.jit(make)(case.lengths, case.page_indices)
    indptr, indices = expand(case)
    np.testing.assert_array_equal(metadata.kv_indptr, indptr)
    np.testing.assert_array_equal(metadata.kv_indices, indices)

    assert metadata.work_indptr is not None
    units = metadata.work_indptr.shape[0] - 1
    assert 1 <= units <= target.compute_units
    expected = planner_oracle.all_partial(
        LENGTHS, groups=groups, q_len=q_len, block=16, units=units
    )
    plan = (metadata.work_indptr, metadata.work_info, metadata.reduce_indptr)
    for mine, theirs in zip(plan, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert metadata.work_info is not None and metadata.work_info.dtype == jnp.int32
    assert metadata.work_info.shape == (len(LENGTHS) * groups + units - 1, 8)
    assert metadata.spec.target == target


def test_persistent_is_planned_for_mi300x_where_there_is_no_device() -> None:
    case, options = persistent_case(4, 1)
    metadata = jax_mla.make_metadata(case.lengths, case.page_indices, **options)
    assert metadata.spec.target == Target("gfx942", 304)


def test_persistent_in_vmap() -> None:
    case, options = persistent_case(4, 2)
    lengths = jnp.asarray(case.lengths).reshape(2, 3)
    table = jnp.asarray(case.page_indices).reshape(2, 3, -1)
    make = functools.partial(jax_mla.make_metadata, **options)
    mapped = jax.vmap(make)(lengths, table)
    for i in range(2):
        one = make(lengths[i], table[i])
        for a, b in zip(mapped.arrays, one.arrays, strict=True):
            np.testing.assert_array_equal(a[i], b)


@pytest.mark.parametrize("heads", [4, 20])
def test_xla_takes_persistent_metadata_and_needs_none(heads: int) -> None:
    case, options = persistent_case(heads, 2)
    metadata = jax_mla.make_metadata(case.lengths, case.page_indices, **options)
    step = jax.jit(functools.partial(jax_mla.decode, **case.options))
    np.testing.assert_array_equal(step(*case.operands, metadata=metadata), step(*case.operands))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"mode": "persistent", "q_len": 9},
            NotImplementedError,
            "mode='persistent': AITER has no kernel .* with q_len 9",
        ),
        (
            {"mode": "persistent", "num_kv_splits": 3},
            NotImplementedError,
            "expected num_kv_splits None .* got 3",
        ),
        (
            {"mode": "persistent", "num_pages": 2**24},
            NotImplementedError,
            "at most 2.*24 tokens in the cache, got 33554432",
        ),
        ({"mode": "both"}, ValueError, "mode: expected one of 'split', 'persistent', got 'both'"),
        ({"page_size": 0}, ValueError, "page_size: expected a positive int, got 0"),
        ({"num_pages": 2.0}, TypeError, "num_pages: expected a Python int, got float"),
        ({"heads": 129}, ValueError, r"heads: expected 1\.\.128, got 129"),
        ({"q_len": -1}, ValueError, "q_len: expected a positive int, got -1"),
        ({"q_dtype": jnp.float32}, TypeError, "kv_pages: expected float32 like q, got bfloat16"),
        ({"num_pages": 2**31}, ValueError, r"num_pages \* page_size: .* got 4294967296"),
        ({"page_size": 2**30}, ValueError, "int32 token indices"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    options = {"page_size": 2, "num_pages": 3} | OPTIONS | change
    with pytest.raises(error, match=f"^make_metadata: .*{message}"):
        jax_mla.make_metadata(jnp.ones(2, jnp.int32), jnp.ones((2, 2), jnp.int32), **options)


def test_from_csr() -> None:
    indptr = jnp.array([0, 2, 2, 5], jnp.int32)
    indices = jnp.array([7, 3, 9, 1, 4, 88, 88], jnp.int32)
    last = jnp.array([5, 0, 16], jnp.int32)
    for convert in (jax_mla.from_csr, jax.jit(jax_mla.from_csr, static_argnames=STATIC)):
        lengths, table = convert(indptr, indices, last, page_size=16, pages_per_seq=4)
        np.testing.assert_array_equal(lengths, [21, 0, 48])
        np.testing.assert_array_equal(table, [[7, 3, 0, 0], [0, 0, 0, 0], [9, 1, 4, 0]])
        assert lengths.dtype == table.dtype == jnp.int32


STATIC = ("page_size", "pages_per_seq")


def test_from_csr_of_single_tokens() -> None:
    lengths, table = jax_mla.from_csr(
        np.array([0, 0, 3], np.int32), np.array([5, 6, 2], np.int32), page_size=1, pages_per_seq=3
    )
    np.testing.assert_array_equal(lengths, [0, 3])
    np.testing.assert_array_equal(table, [[0, 0, 0], [5, 6, 2]])
    nothing = jax_mla.from_csr(
        np.zeros(3, np.int32), np.zeros(0, np.int32), page_size=1, pages_per_seq=2
    )
    np.testing.assert_array_equal(nothing[0], [0, 0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kv_indptr": np.zeros(3)}, TypeError, "kv_indptr: expected int32, got float64"),
        ({"kv_indices": np.zeros((2, 2), np.int32)}, ValueError, "kv_indices: expected"),
        (
            {"kv_last_page_lens": np.ones(3, np.int32)},
            ValueError,
            "kv_last_page_lens: expected bat",
        ),
        ({"page_size": 0}, ValueError, "page_size: expected a positive int"),
        ({"pages_per_seq": 1}, ValueError, "pages_per_seq: expected at least 2, the pages of seq"),
    ],
)
def test_from_csr_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {
        "kv_indptr": np.array([0, 1, 3], np.int32),
        "kv_indices": np.arange(3, dtype=np.int32),
        "kv_last_page_lens": np.ones(2, np.int32),
        "page_size": 4,
        "pages_per_seq": 2,
    } | change
    with pytest.raises(error, match=f"^from_csr: {message}"):
        jax_mla.from_csr(**arguments)
