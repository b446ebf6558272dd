# SPDX-License-Identifier: Apache-2.0
"""The oracle of AITER's planner on examples worked out by hand, and its buffers on their rules."""

from typing import Any

import planner_oracle
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from planner_oracle import Plan

# lengths, options, work_indptr, works (sequence, partial, q from, to, keys from, to, keys after),
# reduce_indptr, reduce_final_map, reduce_partial_map
EXAMPLES: dict[str, tuple[list[int], dict[str, Any], Plan]] = {
    "one cut": (
        [1000, 300, 37],
        {"compute_units": 4},
        Plan(
            [0, 1, 2, 3, 4],
            [[0, 0, 0, 1, 0, 544, 456, 0], [0, 1, 0, 1, 544, 1000, 0, 0],
             [1, -1, 1, 2, 1000, 1300, 0, 0], [2, -1, 2, 3, 1300, 1337, 0, 0]],
            [0, 2, 2, 2], {0: (0, 1)}, [0, 1],
        ),
    ),
    "four queries": (
        [1000, 300, 37],
        {"compute_units": 4, "q_len": 4},
        Plan(
            [0, 1, 2, 3, 4],
            [[0, 0, 0, 4, 0, 544, 456, 0], [0, 4, 0, 4, 544, 1000, 0, 0],
             [1, -1, 4, 8, 1000, 1300, 0, 0], [2, -1, 8, 12, 1300, 1337, 0, 0]],
            [0, 2, 2, 2], {0: (0, 4)}, [0, 4],
        ),
    ),
    "a tail shorter than the queries": (
        [289, 33],
        {"compute_units": 3, "q_len": 4},
        Plan([0, 1, 2, 2], [[0, -1, 0, 4, 0, 289, 0, 0], [1, -1, 4, 8, 289, 322, 0, 0]],
             [0, 0, 0], {}, []),
    ),
    "the same without the rule for tails": (
        [289, 33],
        {"compute_units": 3, "q_len": 4, "tail": 1},
        Plan(
            [0, 1, 3, 4],
            [[0, 0, 0, 4, 0, 288, 1, 0], [0, 4, 0, 4, 288, 289, 0, 0],
             [1, 8, 4, 8, 289, 305, 17, 0], [1, 12, 4, 8, 305, 322, 0, 0]],
            [0, 2, 4], {0: (0, 4), 1: (4, 8)}, [0, 4, 8, 12],
        ),
    ),
    "32 heads as two times 16": (
        [500, 100],
        {"compute_units": 4, "heads": 32},
        Plan(
            [0, 1, 2, 4, 4],
            [[0, -1, 0, 1, 0, 500, 0, 0], [1, -1, 1, 2, 0, 500, 0, 0],
             [2, -1, 2, 3, 500, 600, 0, 0], [3, -1, 3, 4, 500, 600, 0, 0]],
            [0, 0, 0, 0, 0], {}, [],
        ),
    ),
    "pages of 64": (
        [16, 5, 1],
        {"compute_units": 4, "page_size": 64, "block": 1, "last_page_lens": [40, 44, 37]},
        Plan(
            [0, 1, 2, 4, 6],
            [[0, 0, 0, 1, 0, 7, 552, 0], [0, 1, 0, 1, 7, 14, 104, 0], [0, 2, 0, 1, 14, 16, 0, 0],
             [1, 3, 1, 2, 16, 20, 44, 0], [1, 4, 1, 2, 20, 21, 0, 0], [2, -1, 2, 3, 21, 22, 0, 0]],
            [0, 3, 5, 5], {0: (0, 1), 1: (1, 2)}, [0, 1, 2, 3, 4],
        ),
    ),
    "a tile for each query": (
        [200, 100],
        {"compute_units": 4, "arch": "gfx950", "heads": 128, "q_len": 2},
        Plan(
            [0, 1, 2, 4, 5],
            [[0, -1, 0, 1, 0, 199, 1, 0], [0, -1, 1, 2, 0, 200, 0, 0],
             [1, -1, 2, 3, 200, 299, 1, 0], [1, 0, 3, 4, 200, 248, 52, 0],
             [1, 1, 3, 4, 248, 300, 0, 0]],
            [0, 0, 0, 0, 2], {3: (3, 4)}, [0, 1],
        ),
    ),
    "fewer splits than units": (
        [1000, 300, 37],
        {"compute_units": 8, "max_split_per_batch": 1},
        Plan(
            [0, 1, 3, 5, 5, 5, 5, 5, 5],
            [[0, 0, 0, 1, 0, 720, 280, 0], [0, 1, 0, 1, 720, 1000, 0, 0],
             [1, 2, 1, 2, 1000, 1176, 124, 0], [1, 3, 1, 2, 1176, 1300, 0, 0],
             [2, -1, 2, 3, 1300, 1337, 0, 0]],
            [0, 2, 4, 4], {0: (0, 1), 1: (1, 2)}, [0, 1, 2, 3],
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples(name: str) -> None:
    lengths, options, expected = EXAMPLES[name]
    assert planner_oracle.aiter(lengths, **options) == expected


def test_a_large_gpu_cuts_into_single_blocks() -> None:
    plan = planner_oracle.aiter([1000, 300, 37], compute_units=304)
    assert len(plan.work_info) == 85
    assert all(work[5] - work[4] <= 16 for work in plan.work_info)
    assert plan.reduce_indptr == [0, 63, 82, 85]


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_few_heads_are_planned_as_sixteen(heads: int) -> None:
    options: dict[str, Any] = {"q_len": 2, "compute_units": 4}
    few = planner_oracle.aiter([1000, 300, 37], heads=heads, **options)
    assert few == planner_oracle.aiter([1000, 300, 37], heads=16, **options)


@pytest.mark.parametrize("heads", [3, 12, 24])
def test_head_counts_that_aiter_does_not_plan_for(heads: int) -> None:
    with pytest.raises(AssertionError, match=f"does not plan for {heads} heads"):
        planner_oracle.aiter([1000], heads=heads, compute_units=4)


@pytest.mark.parametrize(
    ("batch", "options", "partials"),
    [
        (64, {"compute_units": 304}, 367),  # min(64 + 303, 2 * 303)
        (64, {"compute_units": 304, "max_split_per_batch": 32}, 368),
        (512, {"compute_units": 256, "heads": 32, "q_len": 4}, 8 * 510),
        (4, {"compute_units": 80, "fast": False}, 4 * 80),
    ],
)
def test_sizing_rules(batch: int, options: dict[str, Any], partials: int) -> None:
    assert planner_oracle.buffer_sizes(batch, **options)["reduce_partial_map"] == partials


@given(
    lengths=st.lists(st.integers(1, 5000), min_size=1, max_size=40),
    heads=st.sampled_from([1, 4, 8, 16, 32, 48, 64, 128]),
    q_len=st.integers(1, 4),
    arch=st.sampled_from(["gfx942", "gfx950"]),
    dtype=st.sampled_from(["bf16", "fp8"]),
    compute_units=st.sampled_from([1, 4, 80, 256, 304]),
)
def test_plans_fit_the_buffers_and_cover_every_key(
    lengths: list[int], heads: int, q_len: int, arch: str, dtype: str, compute_units: int
) -> None:
    options: dict[str, Any] = {
        "arch": arch, "heads": heads, "q_len": q_len, "q_dtype": dtype, "kv_dtype": dtype,
        "compute_units": compute_units,
    }  # fmt: skip
    plan = planner_oracle.aiter(lengths, **options)
    sizes = planner_oracle.buffer_sizes(len(lengths), **options)
    assert len(plan.work_indptr) == sizes["work_indptr"]
    assert plan.work_indptr[-1] == len(plan.work_info) <= sizes["work_info"]
    assert len(plan.reduce_indptr) <= sizes["reduce_indptr"]
    assert len(plan.reduce_partial_map) <= sizes["reduce_partial_map"]

    assume(min(lengths) >= q_len)
    folds, _ = planner_oracle.folded(arch, heads, q_len, dtype, dtype)
    seen: dict[tuple[int, int], int] = {}
    for sequence, _, q_start, _, first, last, after, _ in plan.work_info:
        base, length = sum(lengths[: sequence // folds]), lengths[sequence // folds]
        assert base + seen.get((sequence, q_start), 0) == first < last
        assert last + after == base + length
        seen[sequence, q_start] = last - base
    assert len(seen) == len(plan.reduce_indptr) - 1  # every tile has been worked on
    # What a tile leaves out at the end is hidden from all of its queries.
    assert all(0 <= lengths[i // folds] - end < q_len for (i, _), end in seen.items())
