# SPDX-License-Identifier: Apache-2.0
"""The plan kernel against the planner in plain integers, emulated and on an NVIDIA GPU."""

import itertools
from typing import Any

import jax
import numpy as np
import planner_oracle
import pytest
from emulator.machine import Counters
from gpu import AMD, DEVICES, Launch, pack, run_on
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_mla import persistent
from jax_mla.persistent import Plan

THREADS = 256
POISON = -77
GUARD = 64  # entries after each result, which must stay as they are
UNITS = (1, 4, 80, 304)


def run(lengths: list[int], plan: Plan, device: str) -> tuple[list[np.ndarray], Counters | None]:
    """work_indptr, work_info and reduce_indptr."""
    batch = len(lengths)
    shapes = {
        "work_indptr": (plan.units + 1,),
        "work_info": (plan.max_works(batch), persistent.WORK_FIELDS),
        "reduce_indptr": (batch * plan.groups + 1,),
    }
    arrays = {"kv_indptr": np.array([0, *itertools.accumulate(lengths)], np.int32)}
    arrays["kv_indptr"].flags.writeable = False
    for name, shape in shapes.items():
        arrays[name] = np.full(int(np.prod(shape)) + GUARD, POISON, np.int32)
    sizes = (batch, plan.groups, plan.q_len, plan.block, plan.units)
    launch = Launch(
        source="plan",
        kernel="jax_mla_plan",
        grid=(1, 1, 1),
        threads=THREADS,
        arrays=arrays,
        arguments=lambda at: pack([*(("P", at[name]) for name in arrays), *sizes]),
    )
    counters = run_on(device, launch)
    for name in shapes:
        assert (arrays[name][-GUARD:] == POISON).all(), name
    return [arrays[name][:-GUARD].reshape(shape) for name, shape in shapes.items()], counters


def check(lengths: list[int], plan: Plan, device: str) -> Counters | None:
    got, counters = run(lengths, plan, device)
    expected = planner_oracle.all_partial(
        lengths, groups=plan.groups, q_len=plan.q_len, block=plan.block, units=plan.units
    )
    names = ("work_indptr", "work_info", "reduce_indptr")
    for name, mine, theirs in zip(names, got, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    return counters


def ragged(batch: int, longest: int) -> list[int]:
    return np.random.default_rng(batch).integers(0, longest + 1, batch).tolist()


BATCHES = {
    "all empty": [0, 0, 0],
    "one row": [777],
    "one token": [1],
    "empty rows between": [0, 300, 0, 0, 5000, 17, 0],
    "shorter than the queries": [1, 2, 3, 4, 0],
    "short tails": [289, 33, 273, 145, 1025],
    "256 x 128k": [131072] * 256,
    "300, ragged": ragged(300, 131072),
    "empty for more than a tile": [5000, *[0] * 600, 7],
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("name", BATCHES)
def test_batches(name: str, units: int, device: str) -> None:
    shapes = [(1, 1, 16), (1, 4, 64), (8, 2, 16), (2, 3, 128)]
    groups, q_len, block = shapes[(list(BATCHES).index(name) + UNITS.index(units)) % 4]
    check(BATCHES[name], Plan(groups, q_len, block, units), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", [1, 2, 31, 32, 33, 128, 255, 256, 257, 300, 513])
def test_around_a_tile(batch: int, device: str) -> None:
    check(ragged(batch, 3000), Plan(1, 1, 16, 304), device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_large_batch_in_groups(device: str) -> None:
    check(ragged(4096, 2000), Plan(8, 1, 64, 304), device)


@pytest.mark.parametrize("device", DEVICES)
def test_keys_up_to_int32(device: str) -> None:
    check([2**30, 5, 2**30 - 100], Plan(8, 1, 16, 304), device)


@pytest.mark.parametrize("device", DEVICES)
def test_more_units_than_threads(device: str) -> None:
    check([100000, 0, 9], Plan(1, 1, 16, 1000), device)


plans = st.builds(
    Plan,
    groups=st.sampled_from([1, 2, 3, 8]),
    q_len=st.integers(1, 4),
    block=st.sampled_from([4, 16, 48, 64, 128]),
    units=st.sampled_from([*UNITS, 7]),
)
edges = st.sampled_from([0, 1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 1000])
batches = st.lists(edges | st.integers(0, 20000), min_size=1, max_size=40)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=100)
@given(lengths=batches, plan=plans)
def test_any_batch(lengths: list[int], plan: Plan, device: str) -> None:
    check(lengths, plan, device)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=100)
@given(blocks=st.lists(st.integers(0, 80), min_size=2, max_size=12), data=st.data())
def test_tails_around_the_queries(blocks: list[int], data: Any, device: str) -> None:
    """Sequences whose last block holds about as many keys as there are queries."""
    q_len = data.draw(st.integers(1, 4))
    more = data.draw(st.lists(st.integers(0, 4), min_size=len(blocks), max_size=len(blocks)))
    lengths = [16 * b + m for b, m in zip(blocks, more, strict=True)]
    check(lengths, Plan(1, q_len, 16, data.draw(st.integers(1, 30))), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_last_piece_too_short_to_stand_alone(pieces: int, device: str) -> None:
    """A block beyond so many loads of 60: the piece before takes it, and leaves no room."""
    lengths = [16 * 60 * pieces + 1, 16 * (60 - 1 - 2 * 16)]
    _, _, reduce_indptr = run(lengths, Plan(1, 2, 16, pieces + 1), device)[0]
    assert reduce_indptr.tolist() == [0, pieces, pieces + 1]
    check(lengths, Plan(1, 2, 16, pieces + 1), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "plan", [Plan(1, 1, 16, 304), Plan(2, 4, 64, 80)], ids=["one group", "two"]
)
def test_the_same_as_xla(plan: Plan, device: str) -> None:
    lengths = ragged(300, 9000)
    kv_indptr = np.array([0, *itertools.accumulate(lengths)], np.int32)
    expected = jax.jit(persistent.make_plan, static_argnums=1)(kv_indptr, plan)
    got, _ = run(lengths, plan, device)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("device", AMD)
def test_each_result_is_written_once(device: str) -> None:
    plan = Plan(2, 1, 16, 304)
    counters = check(ragged(300, 2000), plan, device)
    assert counters is not None
    entries = {"work_indptr": 305, "work_info": 8 * (600 + 303), "reduce_indptr": 601}
    for name, count in entries.items():
        traffic = counters.traffic[name]
        assert traffic.written_total == traffic.written_distinct == 4 * count
        assert traffic.read_total == 0
