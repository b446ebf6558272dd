# SPDX-License-Identifier: Apache-2.0
"""The comparison must reject results that a broken kernel would give."""

import dataclasses

import cases
import compare
import numpy as np
import oracle
import pytest

LENGTHS = (192, 150, 33)


def faulty(case: cases.Case, row: int, drop: list[int]) -> cases.Case:
    """The case with some tokens of one sequence missing from its cache."""
    pool = case.kv_pages.copy()
    page_size = pool.shape[1]
    table = case.page_indices
    kept = [t for t in range(case.lengths[row]) if t not in drop]
    for new, old in enumerate(kept):
        pool[table[row, new // page_size], new % page_size] = case.kv_pages[
            table[row, old // page_size], old % page_size
        ]
    lengths = case.lengths.copy()
    lengths[row] = len(kept)
    return dataclasses.replace(case, kv_pages=pool, lengths=lengths)


def heaviest_token(case: cases.Case, row: int) -> int:
    length, page_size = case.lengths[row], case.kv_pages.shape[1]
    tokens = np.arange(length)
    keys = case.kv_pages[case.page_indices[row, tokens // page_size], tokens % page_size]
    return int((case.q[row, 0].astype(np.float64) @ keys.astype(np.float64).T).max(0).argmax())


def swapped_page(case: cases.Case) -> cases.Case:
    table = case.page_indices.copy()
    table[0, 3] = table[1, 3]
    return dataclasses.replace(case, page_indices=table)


@pytest.mark.parametrize("dtypes", ["bf16", "f16", "f32"])
def test_planted_faults_are_rejected(dtypes: str) -> None:
    case = cases.make(dtypes=dtypes, lengths=LENGTHS)
    expected = oracle.decode(case)
    dtype = case.q.dtype
    good_out, good_lse = expected[0].astype(dtype), expected[1].astype(np.float32)
    compare.assert_close(good_out, good_lse, *expected)

    faults = {
        "heaviest token dropped": faulty(case, 1, [heaviest_token(case, 1)]),
        "page swapped": swapped_page(case),
        "last tile dropped": faulty(case, 0, list(range(176, 192))),
    }
    for name, fault in faults.items():
        out, lse = oracle.decode(fault)
        out = out.astype(dtype)
        with pytest.raises(AssertionError):
            compare.assert_close(out, good_lse, *expected)
            pytest.fail(f"{name}: the output passed")
        with pytest.raises(AssertionError):
            compare.assert_close(good_out, lse.astype(np.float32), *expected)
            pytest.fail(f"{name}: the lse passed")


BLOCK, SPLITS = 16, 3


def rounding(case: cases.Case, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = [np.arange(length) // block % SPLITS for length in case.lengths]
    return oracle.decode_rounding(case, parts, block, case.q.dtype)


@pytest.mark.parametrize("dtypes", ["bf16", "fp8fn", "fp8fnuz"])
def test_planted_faults_are_rejected_where_weights_are_rounded(dtypes: str) -> None:
    case = cases.make(dtypes=dtypes, lengths=LENGTHS)
    loose = compare.ROUNDED_WEIGHTS["bf16" if dtypes == "bf16" else "fp8"]
    expected, exact = rounding(case), oracle.decode(case)
    good_out, good_lse = bf16(expected[0]), expected[1].astype(np.float32)
    compare.assert_close(good_out, good_lse, *expected)
    compare.assert_close(good_out, good_lse, *exact, bar=loose)

    faults = {
        "heaviest token dropped": rounding(faulty(case, 1, [heaviest_token(case, 1)])),
        "page swapped": rounding(swapped_page(case)),
        "last tile dropped": rounding(faulty(case, 0, list(range(176, 192)))),
    }
    if dtypes != "bf16":  # whose bar leaves room for the rounding itself
        faults["weights not rounded"] = (*exact, np.zeros(0))
        faults["rounded in other blocks"] = rounding(case, block=64)
    for name, (out, lse, _) in faults.items():
        with pytest.raises(AssertionError):
            compare.assert_close(bf16(out), good_lse, *expected)
            pytest.fail(f"{name}: the output passed")
        if "rounded" not in name:
            with pytest.raises(AssertionError):
                compare.assert_close(good_out, lse.astype(np.float32), *expected)
                pytest.fail(f"{name}: the lse passed")
    with pytest.raises(AssertionError, match=r"element|cosine"):
        compare.assert_close(bf16(faults["page swapped"][0]), good_lse, *exact, bar=loose)


def bf16(x: np.ndarray) -> np.ndarray:
    return x.astype(cases.DTYPES["bf16"][0])


@pytest.mark.parametrize("dtypes", ["bf16", "fp8fn", "fp8fnuz"])
def test_weights_that_may_be_rounded_to_either_side_are_few(dtypes: str) -> None:
    out, _, doubt = rounding(cases.make(dtypes=dtypes, lengths=LENGTHS))
    most = np.abs(out).max(axis=-1, keepdims=True)
    assert (doubt >= 0).all() and (doubt > 0).mean() < (1.0 if dtypes == "bf16" else 0.1)
    assert np.quantile(doubt / most, 0.95) < compare.BARS[np.dtype("bfloat16")].absolute / 10


def test_highest_so_far() -> None:
    """Block by block, and each part for itself."""
    scores = np.array([[1.0, 0.0, 5.0, 2.0, 3.0, 1.0, 9.0]])
    part = np.array([0, 0, 1, 1, 0, 0, 1])
    highest = oracle._highest_so_far(scores, part, 2)
    np.testing.assert_array_equal(highest, [[1.0, 1.0, 5.0, 5.0, 3.0, 3.0, 9.0]])


@pytest.mark.parametrize(
    ("value", "expected_lse"), [(np.nan, 0.0), (1.0, -np.inf)], ids=["nan", "unseen row not 0"]
)
def test_one_bad_element_is_rejected(value: float, expected_lse: float) -> None:
    expected = np.zeros((1, 1, 1, 512)), np.full((1, 1, 1), expected_lse)
    if expected_lse == 0.0:
        expected[0][...] = 1.0
    out = expected[0].astype(np.float32)
    out[..., 7] = value
    with pytest.raises(AssertionError):
        compare.assert_close(out, expected[1].astype(np.float32), *expected)


def test_pairwise_holds_every_pair() -> None:
    rows, everything = cases.pairwise(), cases.product()
    for a in range(4):
        for b in range(a):
            assert {(r[a], r[b]) for r in rows} == {(r[a], r[b]) for r in everything}


def test_covering_holds_every_pair() -> None:
    everything = [row for row in cases.product() if row[0] != row[1]]
    rows = cases.covering(everything)
    assert len(rows) < len(everything) // 4
    for a in range(4):
        for b in range(a):
            assert {(r[a], r[b]) for r in rows} == {(r[a], r[b]) for r in everything}
