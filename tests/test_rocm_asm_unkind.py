# SPDX-License-Identifier: Apache-2.0
"""Decode on AITER's kernels with values that nobody should pass: no harm to the others."""

import dataclasses
from typing import Any

import asm_decode
import cases
import numpy as np
import pytest
from cases import Case

from jax_mla.kernels import MODES

pytestmark = [pytest.mark.rocm, asm_decode.needs_aiter]

RAGGED = (65, 200, 17, 127, 300)
VICTIM = 1  # the sequence with the values


def finite(q_len: int, dtypes: str) -> Case:
    """A case in whose pool is no NaN, as any page of it may be read."""
    case = asm_decode.make(RAGGED, heads=4, q_len=q_len, dtypes=dtypes, capacity=320)
    pool = np.where(np.isnan(case.kv_pages.astype(np.float32)), 0.5, case.kv_pages)
    return dataclasses.replace(case, kv_pages=pool.astype(case.kv_pages.dtype))


def changed(case: Case, **values: dict[Any, int]) -> Case:
    """With other values at some places of lengths and page_indices."""
    arrays = {name: getattr(case, name).copy() for name in values}
    for name, places in values.items():
        for place, value in places.items():
            arrays[name][place] = value
    return dataclasses.replace(case, **arrays)


def assert_confined(case: Case, clamped: Case, mode: str) -> None:
    """The emulator ends a launch that leaves its operands; what is clamped has the same result."""
    out, lse = asm_decode.run(case, mode)
    assert np.isfinite(out.astype(np.float32)).all() and not np.isnan(lse).any()
    for x, y in zip((out, lse), asm_decode.run(clamped, mode), strict=True):
        np.testing.assert_array_equal(x, y)
    others = [row for row in range(len(RAGGED)) if row != VICTIM]
    asm_decode.check(clamped, asm_decode.plan(clamped, mode), out, lse, others)


@pytest.mark.parametrize("q_len", [1, 2])
@pytest.mark.parametrize("dtypes", ["bf16", "fp8"])
@pytest.mark.parametrize("mode", MODES)
def test_pages_that_there_are_not(mode: str, dtypes: str, q_len: int) -> None:
    """In a sequence; those of the others stay as they are, bit for bit."""
    case = finite(q_len, dtypes)
    pages = case.kv_pages.shape[0]
    absurd = {(VICTIM, 0): cases.ABSURD_PAGE, (VICTIM, 3): -1, (VICTIM, 7): pages}
    near = {(VICTIM, 0): pages - 1, (VICTIM, 3): 0, (VICTIM, 7): pages - 1}
    strange = changed(case, page_indices=absurd)
    assert_confined(strange, changed(case, page_indices=near), mode)
    others = np.arange(len(RAGGED)) != VICTIM
    for x, y in zip(asm_decode.run(strange, mode), asm_decode.run(case, mode), strict=True):
        np.testing.assert_array_equal(x[others], y[others])
        assert not np.array_equal(x[VICTIM], y[VICTIM])


@pytest.mark.parametrize("length", [-1, -(2**31), 321, 2**31 - 1])
@pytest.mark.parametrize("dtypes", ["bf16", "fp8"])
@pytest.mark.parametrize("mode", MODES)
def test_lengths_that_cannot_be(mode: str, dtypes: str, length: int) -> None:
    """Of a sequence; the pages past its own are absurd too."""
    case = changed(finite(1, dtypes), lengths={VICTIM: length})
    last = case.kv_pages.shape[0] - 1
    pages = np.where(case.page_indices == cases.ABSURD_PAGE, last, case.page_indices)
    clamped = changed(case, lengths={VICTIM: min(max(length, 0), 320)})
    clamped = dataclasses.replace(clamped, page_indices=pages.astype(np.int32))
    assert_confined(case, clamped, mode)


@pytest.mark.parametrize(("mode", "dtypes"), asm_decode.SERVED_MODES)
def test_what_is_not_of_a_sequence_does_not_matter(mode: str, dtypes: str) -> None:
    """NaN everywhere in the pool but in live tokens and its first row, against a half."""
    case = asm_decode.make(RAGGED, heads=4, dtypes=dtypes, capacity=320)
    assert np.isnan(case.kv_pages.astype(np.float32)).any()
    for x, y in zip(
        asm_decode.run(case, mode), asm_decode.run(finite(1, dtypes), mode), strict=True
    ):
        np.testing.assert_array_equal(x, y)
