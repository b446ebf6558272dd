# SPDX-License-Identifier: Apache-2.0
"""Hopper's decode kernels on the CPU, in whatever order its threads and copies run."""

import dataclasses

import cases
import compare
import hopper
import numpy as np
import oracle
import pytest
from cases import Case

DTYPES = ("bf16", "f16", "fp8fn", "bf16-fp8fn")


def check(case: Case, units: int, **options: object) -> None:
    out, lse = hopper.decode(case, units, **options)  # type: ignore[arg-type]
    bar = compare.ROUNDED_WEIGHTS["f16" if case.q.dtype == np.float16 else "bf16"]
    compare.assert_close(out, lse, *oracle.decode(case), bar=bar)


@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize(
    ("heads", "q_len", "page_size"), [(4, 1, 64), (3, 3, 2), (16, 1, 16), (20, 2, 8)]
)
def test_decode_against_float64(heads: int, q_len: int, page_size: int, dtypes: str) -> None:
    """Sequences over some tiles, without keys, shorter than q_len, and a key past a step."""
    case = cases.make(heads, q_len, page_size, dtypes, (150, 0, 1, 65), capacity=160)
    check(case, 3, seed=heads)


def test_pages_of_one_key() -> None:
    check(cases.make(4, 1, 1, "bf16", (70, 3), capacity=72), 2)


@pytest.mark.parametrize("merge", hopper.MERGES)
@pytest.mark.parametrize("units", [2, 9, 30])
def test_each_merge(merge: str, units: int) -> None:
    """Of sequences in up to ten, and of one in thirty parts, of which 8x1 takes 160 at once."""
    lengths = (640, 0, 100, 64, 600) if units < 30 else (1900,)
    case = cases.make(8, 1, 64, "bf16", lengths, capacity=max(lengths))
    check(case, units, merge=merge)


@pytest.mark.parametrize("page_size", [1, 16])
def test_many_short_sequences(page_size: int) -> None:
    """More than are dealt ahead, or than a wave has lanes; with pages of one key a long table."""
    lengths = tuple(np.random.default_rng(70).integers(0, 40, 70).tolist())
    check(cases.make(4, 1, page_size, "bf16", lengths, capacity=40), 5)


@pytest.mark.parametrize("dtypes", ["bf16", "fp8fn"])
def test_the_order_of_threads_and_copies_does_not_matter(dtypes: str) -> None:
    case = cases.make(12, 1, 16, dtypes, (300, 90), capacity=304)
    first, *others = (hopper.decode(case, 2, seed=seed) for seed in range(4))
    for other in others:
        np.testing.assert_array_equal(other.out, first.out)
        np.testing.assert_array_equal(other.lse, first.lse)


@pytest.mark.parametrize("splits", [1, 2, 5, 33])
def test_fixed_splits_have_the_same_bits_in_any_batch(splits: int) -> None:
    case = cases.make(4, 2, 16, "bf16", (200, 0, 33), capacity=208)
    check(case, 4, num_kv_splits=splits)
    out, lse = hopper.decode(case, 4, num_kv_splits=splits)
    one = dataclasses.replace(
        case, q=case.q[:1], lengths=case.lengths[:1], page_indices=case.page_indices[:1]
    )
    alone = hopper.decode(one, 4, num_kv_splits=splits)
    np.testing.assert_array_equal(alone.out, out[:1])
    np.testing.assert_array_equal(alone.lse, lse[:1])


def test_absurd_lengths_and_pages_are_clamped() -> None:
    case = cases.make(4, 1, 16, "bf16", (48, 48, 48, 48), capacity=48, finite=True)
    pages = case.page_indices.copy()
    pages[1] = [cases.ABSURD_PAGE, -1, -(2**31)]
    lengths = np.array([-5, 48, 10**6, 2**31 - 1], np.int32)
    absurd = dataclasses.replace(case, lengths=lengths, page_indices=pages)
    clamped = dataclasses.replace(
        case, lengths=lengths.clip(0, 48), page_indices=pages.clip(0, len(case.kv_pages) - 1)
    )
    out, lse = hopper.decode(absurd, 3)
    bar = compare.ROUNDED_WEIGHTS["bf16"]
    compare.assert_close(out, lse, *oracle.decode(clamped), bar=bar)


@pytest.mark.parametrize(
    ("line", "what_happens"),
    [
        ("  arrive(shared.table);\n", "every thread waits"),
        ("      if (lane == 0) arrive(shared.empty[tile.slot]);\n", "every thread waits"),
        ("      if (tile.keys % kStepKeys != 0) ClearKeys(shared, tile);\n", "not finite"),
        ("      wait(shared.full[tile.slot], ring.parity());\n", "not finite"),
    ],
)
def test_what_is_left_out_is_noticed(line: str, what_happens: str) -> None:
    case = cases.make(4, 1, 16, "bf16", (200, 70), capacity=208)
    with pytest.raises(AssertionError, match=what_happens):
        check(case, 1, left_out=line)
