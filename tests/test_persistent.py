# SPDX-License-Identifier: Apache-2.0
"""The plan of persistent mode: the oracle's properties, and the same integers from XLA."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import planner_oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_mla import persistent
from jax_mla.persistent import Plan

UNITS = (1, 4, 80, 256, 304)


def oracle(lengths: list[int], plan: Plan) -> tuple[np.ndarray, ...]:
    return planner_oracle.all_partial(
        lengths, groups=plan.groups, q_len=plan.q_len, block=plan.block, units=plan.units
    )


@functools.partial(jax.jit, static_argnums=1)
def traced(lengths: jax.Array, plan: Plan) -> tuple[jax.Array, ...]:
    indptr = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(lengths)])
    return persistent.make_plan(indptr, plan)


def check(lengths: list[int], plan: Plan, arrays: tuple[Any, ...]) -> None:
    """Everything that the kernel and the merge rely on."""
    work_indptr, work_info, reduce_indptr = (np.asarray(x).tolist() for x in arrays)
    count = work_indptr[-1]
    assert len(work_indptr) == plan.units + 1 and work_indptr == sorted(work_indptr)
    assert count == reduce_indptr[-1] <= len(work_info) == plan.max_works(len(lengths))
    assert not any(map(any, work_info[count:]))

    starts = [0, *itertools.accumulate(lengths)]
    jobs = itertools.product(range(len(lengths)), range(plan.groups))
    for (sequence, group), (begin, end) in zip(
        jobs, itertools.pairwise(reduce_indptr), strict=True
    ):
        length, at = lengths[sequence], starts[sequence]
        place = group * len(lengths) + sequence
        assert (begin == end) == (length == 0)  # no work without keys, no keys without work
        for i in range(begin, end):
            where, partial, q_from, q_to, first, last, after, unused = work_info[i]
            assert (where, partial, unused) == (place, i * plan.q_len, 0)
            assert (q_from, q_to) == (place * plan.q_len, (place + 1) * plan.q_len)
            assert first == at and first < last  # in order, each key once
            assert after == starts[sequence] + length - last
            # Kernels do not mask a query that sees nothing of a piece.
            assert last - first + after >= min(plan.q_len, length)
            at = last
        assert at == starts[sequence] + length


@st.composite
def batches(draw: Any) -> list[int]:
    edges = st.sampled_from([0, 1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 1000])
    return draw(st.lists(edges | st.integers(0, 20000), min_size=1, max_size=40))


plans = st.builds(
    Plan,
    groups=st.sampled_from([1, 2, 8]),
    q_len=st.integers(1, 4),
    block=st.sampled_from([16, 32, 64, 128]),
    units=st.sampled_from(UNITS),
)


@settings(max_examples=300)
@given(batches(), plans)
def test_every_key_once(lengths: list[int], plan: Plan) -> None:
    check(lengths, plan, oracle(lengths, plan))


@settings(max_examples=300)
@given(st.lists(st.integers(1, 20000), min_size=1, max_size=20), st.integers(1, 4), st.data())
def test_the_cuts_are_aiters(lengths: list[int], q_len: int, data: Any) -> None:
    units = data.draw(st.sampled_from(UNITS))
    groups = data.draw(st.sampled_from([1, 2, 8]))
    theirs = planner_oracle.aiter(lengths, heads=16 * groups, q_len=q_len, compute_units=units)
    ours = oracle(lengths, Plan(groups, q_len, 16, units))
    assert ours[0].tolist() == theirs.work_indptr
    count = ours[0][-1]
    for name, field in {"keys from": 4, "keys to": 5, "keys after": 6}.items():
        cuts = [work[field] for work in theirs.work_info]
        assert ours[1][:count, field].tolist() == cuts, name


BATCHES = {
    "all empty": [0, 0, 0],
    "one row": [777],
    "one token": [1],
    "empty rows between": [0, 300, 0, 0, 5000, 17, 0],
    "shorter than the queries": [1, 2, 3, 4, 0],
    "short tails": [289, 33, 273, 145, 1025],
    "256 x 128k": [131072] * 256,
    "256, ragged": [int(n) for n in np.random.default_rng(0).integers(0, 131073, 256)],
}


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("name", BATCHES)
def test_xla_equals_the_oracle(name: str, units: int) -> None:
    lengths = BATCHES[name]
    shapes = [(1, 1, 16), (1, 4, 64), (8, 2, 16), (2, 3, 128)]
    first = list(BATCHES).index(name) + UNITS.index(units)
    for groups, q_len, block in (shapes[first % 4], shapes[(first + 1) % 4]):
        plan = Plan(groups, q_len, block, units)
        got = traced(jnp.asarray(lengths, jnp.int32), plan)
        for mine, theirs in zip(got, oracle(lengths, plan), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        check(lengths, plan, got)


@settings(max_examples=200)
@given(st.lists(st.integers(0, 600), min_size=6, max_size=6), st.sampled_from([1, 4, 80]))
def test_xla_equals_the_oracle_on_any_lengths(lengths: list[int], units: int) -> None:
    """Few shapes, so that few programs are compiled; many cuts."""
    for plan in (Plan(1, 4, 16, units), Plan(2, 1, 16, units)):
        got = traced(jnp.asarray(lengths, jnp.int32), plan)
        for mine, theirs in zip(got, oracle(lengths, plan), strict=True):
            np.testing.assert_array_equal(mine, theirs)


# --- Units ----------------------------------------------------------------------------------------

TOKEN = 576 * 2
PARTIAL = 2 * 16 * 513 * 4


@pytest.mark.parametrize(
    ("sequences", "capacity", "compute_units", "units"),
    [
        (1, 65536, 304, 114),  # a tenth of 75 MB is 114 partial results
        (32, 8192, 304, 304),
        (32, 8192, 1000, 428),
        (256, 128, 304, 256),  # each sequence may have its own
        (512, 128, 304, 304),
        (1, 1, 304, 1),
        (4, 1000, 1, 1),
    ],
)
def test_units(sequences: int, capacity: int, compute_units: int, units: int) -> None:
    assert units == persistent.num_units(
        sequences=sequences,
        capacity=capacity,
        compute_units=compute_units,
        token_bytes=TOKEN,
        partial_bytes=PARTIAL,
    )


@given(st.integers(1, 2048), st.integers(1, 2**18), st.sampled_from(UNITS))
def test_partial_results_stay_below_a_tenth(
    sequences: int, capacity: int, compute_units: int
) -> None:
    units = persistent.num_units(
        sequences=sequences,
        capacity=capacity,
        compute_units=compute_units,
        token_bytes=TOKEN,
        partial_bytes=PARTIAL,
    )
    assert 1 <= units <= compute_units
    traffic = (sequences + units - 1) * PARTIAL
    assert units <= sequences or traffic <= 0.1 * sequences * capacity * TOKEN
