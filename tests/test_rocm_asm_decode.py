# SPDX-License-Identifier: Apache-2.0
"""Decode on AITER's kernels through jax.jit: right for all sizes, and where due to the bit."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import asm_decode
import cases
import jax
import numpy as np
import pytest
from asm_decode import DTYPES, LENGTHS, SERVED_MODES, decode, is_served, of_heads
from cases import Case

from jax_mla.kernels import MODES

pytestmark = [pytest.mark.rocm, asm_decode.needs_aiter]

# --- Against float64 ------------------------------------------------------------------------------

BATCHES, Q_LENS, PAGE_SIZES = (1, 3, 17), (1, 2, 3, 4), (1, 16, 64)
SHARES = 3  # of the head counts, in the gate


def lengths_of(batch: int, turn: int) -> tuple[int, ...]:
    """A mix of LENGTHS, another one each turn."""
    return tuple(LENGTHS[(turn + 3 * i) % len(LENGTHS)] for i in range(batch))


SIZES = list(itertools.product(BATCHES, Q_LENS, PAGE_SIZES, MODES, DTYPES))
SERVED = [sizes for sizes in SIZES if is_served(4, *sizes)]
GATE = cases.covering([(*sizes, share) for sizes in SERVED for share in range(SHARES)])


def test_what_is_served() -> None:
    """All but a bf16 q on an fp8 cache in split mode, whatever the other sizes."""
    cells = list(itertools.product(cases.HEADS, SIZES))
    unserved = [(heads, sizes) for heads, sizes in cells if not is_served(heads, *sizes)]
    assert (len(cells), len(unserved)) == (5400, 900)
    assert {sizes[3:] for _, sizes in unserved} == {("split", "bf16-fp8")}
    assert len(cases.HEADS) * len(SERVED) == 4500


def check_all(sizes: tuple[int, int, int, str, str], heads: Sequence[int]) -> None:
    """One program decodes with every number of heads."""
    batch, q_len, page_size, mode, dtypes = sizes
    lengths = lengths_of(batch, SIZES.index(sizes))
    case = asm_decode.make(lengths, q_len=q_len, page_size=page_size, dtypes=dtypes)

    def program(q: jax.Array, *others: jax.Array) -> list[Any]:
        return [decode(case, (q[:, :, :count], *others), mode) for count in heads]

    for count, result in zip(heads, jax.jit(program)(*case.operands), strict=True):
        of_count = of_heads(case, count)
        try:
            asm_decode.check(of_count, asm_decode.plan(of_count, mode), *result)
        except AssertionError as error:
            error.add_note(f"{count} heads, lengths {lengths}")
            raise


@pytest.mark.parametrize(
    ("batch", "q_len", "page_size", "mode", "dtypes", "share"), sorted(GATE, key=lambda r: r[:3])
)
def test_some_of_each(
    batch: int, q_len: int, page_size: int, mode: str, dtypes: str, share: int
) -> None:
    """Every pair of values occurs."""
    check_all((batch, q_len, page_size, mode, dtypes), cases.HEADS[share::SHARES])


@pytest.mark.full
@pytest.mark.parametrize(("batch", "q_len", "page_size", "mode", "dtypes"), SERVED)
def test_everything(batch: int, q_len: int, page_size: int, mode: str, dtypes: str) -> None:
    check_all((batch, q_len, page_size, mode, dtypes), cases.HEADS)


@pytest.mark.parametrize("q_len", [2, 3])
@pytest.mark.parametrize(("mode", "dtypes"), SERVED_MODES)
def test_groups_of_heads(mode: str, dtypes: str, q_len: int) -> None:
    """Each goes over the keys of every sequence, under the mask of its own queries."""
    case = asm_decode.make((1, 15, 127, 65), heads=128, q_len=q_len, dtypes=dtypes)
    plan = asm_decode.plan(case, mode)
    assert plan.heads.groups > 1 or plan.kernel.heads == 128
    asm_decode.check(case, plan, *asm_decode.run(case, mode))


@pytest.mark.parametrize("q_len", [1, 2])
@pytest.mark.parametrize("heads", [4, 16, 20])
@pytest.mark.parametrize("dtypes", ["bf16", "fp8"])
@pytest.mark.parametrize("num_kv_splits", [1, 2, 5])
def test_given_splits(heads: int, q_len: int, dtypes: str, num_kv_splits: int) -> None:
    """One split only where the kernel writes the log-sum-exp of a whole sequence."""
    case = asm_decode.make((127, 0, 65, 1, 300), heads=heads, q_len=q_len, dtypes=dtypes)
    if num_kv_splits < asm_decode.plan(case, "split").kernel.min_splits:
        message = "num_kv_splits of at least 2 .with one it writes no log-sum-exp., got 1"
        with pytest.raises(NotImplementedError, match=message):
            asm_decode.run(case, num_kv_splits=num_kv_splits)
        return
    out, lse = asm_decode.run(case, num_kv_splits=num_kv_splits)
    asm_decode.check(case, asm_decode.plan(case, "split", num_kv_splits), out, lse)


# --- Equal to the bit -----------------------------------------------------------------------------

RAGGED = (127, 0, 1, 65, 300, 17)


def assert_same(result: Any, expected: Any) -> None:
    """out and lse, bit for bit."""
    for x, y in zip(result, expected, strict=True):
        x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
        np.testing.assert_array_equal(x.view(np.uint8), y.view(np.uint8))


def first_heads(result: Any, heads: int) -> list[np.ndarray]:
    return [np.asarray(x)[:, :, :heads] for x in result]


@pytest.mark.parametrize("q_len", [1, 2])
@pytest.mark.parametrize(("mode", "dtypes"), SERVED_MODES)
def test_padded_heads_equal_those_of_16(mode: str, dtypes: str, q_len: int) -> None:
    case = asm_decode.make(RAGGED, heads=16, q_len=q_len, dtypes=dtypes)
    counts = (1, 2, 3, 4, 5, 8, 12, 15, 16)

    def program(q: jax.Array, *others: jax.Array) -> list[Any]:
        return [decode(case, (q[:, :, :count], *others), mode) for count in counts]

    *fewer, all_heads = jax.jit(program)(*case.operands)
    asm_decode.check(case, asm_decode.plan(case, mode), *all_heads)
    for count, result in zip(counts, fewer, strict=False):
        assert_same(result, first_heads(all_heads, count))


@pytest.mark.parametrize("dtypes", ["bf16", "fp8"])
def test_rows_in_place_of_padding(dtypes: str) -> None:
    case = asm_decode.make(RAGGED, heads=16, dtypes=dtypes)
    if not asm_decode.plan(case, "split").kernel.takes_rows:
        with pytest.raises(
            NotImplementedError, match=r"head_plan='rows': .* takes head_plan 'pad'"
        ):
            asm_decode.run(case, head_plan="rows")
        return
    counts = range(1, 17)

    def program(q: jax.Array, *others: jax.Array) -> list[Any]:
        return [decode(case, (q[:, :, :count], *others), head_plan="rows") for count in counts]

    padded = asm_decode.run(case)
    for count, result in zip(counts, jax.jit(program)(*case.operands), strict=True):
        assert_same(result, first_heads(padded, count))


@pytest.mark.parametrize("dtypes", ["bf16", "fp8"])
@pytest.mark.parametrize(("heads", "q_len"), [(4, 1), (4, 2), (20, 1), (40, 2)])
def test_given_splits_do_not_depend_on_the_batch(heads: int, q_len: int, dtypes: str) -> None:
    case = asm_decode.make(LENGTHS + LENGTHS[3:], heads=heads, q_len=q_len, dtypes=dtypes)
    out, lse = asm_decode.run(case, num_kv_splits=5)
    for rows in ([9], [2, 9, 5], [8, 16, 7]):
        some = sequences(case, rows)
        assert_same(asm_decode.run(some, num_kv_splits=5), (out[rows], lse[rows]))


def sequences(case: Case, rows: list[int]) -> Case:
    """Some of a case's, over the same cache."""
    arrays = {name: getattr(case, name)[rows] for name in ("q", "lengths", "page_indices")}
    return dataclasses.replace(case, **arrays)


@pytest.mark.parametrize(("mode", "dtypes"), SERVED_MODES)
def test_run_to_run(mode: str, dtypes: str) -> None:
    """On hardware the order in which workgroups end differs each time."""
    case = asm_decode.make(RAGGED, heads=24, q_len=2, dtypes=dtypes)
    program = jax.jit(lambda *operands: decode(case, operands, mode))
    first = program(*case.operands)
    for _ in range(3):
        assert_same(program(*case.operands), first)


@pytest.mark.parametrize("dtypes", ["bf16", "fp8"])
def test_metadata_made_outside(dtypes: str) -> None:
    case = asm_decode.make(RAGGED, heads=4, dtypes=dtypes)
    metadata = jax.jit(lambda *operands: asm_decode.make_metadata(operands, "split"))(
        *case.operands
    )
    assert_same(asm_decode.run(case, metadata=metadata), asm_decode.run(case))


@pytest.mark.parametrize(("mode", "dtypes"), SERVED_MODES)
def test_page_sizes(mode: str, dtypes: str) -> None:
    """The same tokens in pages of 64, 16 and 1."""
    case = asm_decode.make(RAGGED, heads=4, q_len=2, page_size=64, dtypes=dtypes)
    expected = asm_decode.run(case, mode)
    for page_size in (16, 1):
        assert_same(asm_decode.run(repaged(case, page_size), mode), expected)


def repaged(case: Case, page_size: int) -> Case:
    """The same cache in smaller pages."""
    _, old_size, width = case.kv_pages.shape
    ratio = old_size // page_size
    pages = case.page_indices[:, :, None] * ratio + np.arange(ratio, dtype=np.int32)
    pages[case.page_indices == cases.ABSURD_PAGE] = cases.ABSURD_PAGE
    return dataclasses.replace(
        case,
        kv_pages=case.kv_pages.reshape(-1, page_size, width),
        page_indices=pages.reshape(len(pages), -1),
    )
