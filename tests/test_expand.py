# SPDX-License-Identifier: Apache-2.0
"""The expand kernel against plain loops and the XLA version, emulated and on an NVIDIA GPU."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from emulator.machine import Counters
from gpu import AMD, DEVICES, Launch, pack, run_on

from jax_mla import xla

THREADS = 256
POISON = -77
GUARD = 64  # entries after each result, which must stay as they are


@dataclasses.dataclass
class Problem:
    """A table of random pages; beyond a sequence's length absurd ones."""

    lengths: list[int]
    page_size: int
    pages_per_seq: int
    num_pages: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        shape = (len(self.lengths), self.pages_per_seq)
        self.table = random.integers(0, self.num_pages, shape).astype(np.int32)
        for row, pages in zip(self.table, self.pages(), strict=True):
            row[pages:] = random.choice([2147480000, -1, -(2**31)], self.pages_per_seq - pages)

    def clamped(self) -> list[int]:
        capacity = self.pages_per_seq * self.page_size
        return [min(max(length, 0), capacity) for length in self.lengths]

    def pages(self) -> list[int]:
        """In use of each sequence."""
        return [-(-length // self.page_size) for length in self.clamped()]

    def expected(self) -> tuple[list[int], list[int]]:
        indptr, indices = [0], []
        for row, length in zip(self.table.tolist(), self.clamped(), strict=True):
            for token in range(length):
                page = min(max(row[token // self.page_size], 0), self.num_pages - 1)
                indices.append(page * self.page_size + token % self.page_size)
            indptr.append(len(indices))
        return indptr, indices


def run(
    problem: Problem, device: str, blocks: int = 1
) -> tuple[np.ndarray, np.ndarray, Counters | None]:
    """kv_indptr and kv_indices with their guards."""
    batch = len(problem.lengths)
    arrays = {
        "lengths": np.array(problem.lengths, np.int32),
        "page_indices": problem.table,
        "kv_indptr": np.full(batch + 1 + GUARD, POISON, np.int32),
        "kv_indices": np.full(problem.table.size * problem.page_size + GUARD, POISON, np.int32),
    }
    for name in ("lengths", "page_indices"):
        arrays[name].flags.writeable = False
    sizes = (batch, problem.pages_per_seq, problem.page_size, problem.num_pages, blocks)
    launch = Launch(
        source="expand",
        kernel="jax_mla_expand",
        grid=(blocks, batch, 1),
        threads=THREADS,
        arrays=arrays,
        arguments=lambda at: pack([*(("P", at[name]) for name in arrays), *sizes]),
    )
    counters = run_on(device, launch)
    return arrays["kv_indptr"], arrays["kv_indices"], counters


def check(problem: Problem, device: str, blocks: int = 1) -> Counters | None:
    indptr, indices, counters = run(problem, device, blocks)
    expected_indptr, expected_indices = problem.expected()
    assert indptr[:-GUARD].tolist() == expected_indptr
    assert indices[: expected_indptr[-1]].tolist() == expected_indices
    assert (indptr[-GUARD:] == POISON).all()
    assert (indices[expected_indptr[-1] :] == POISON).all()  # not even the unused ones are written
    return counters


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("blocks", [1, 2, 9])
@pytest.mark.parametrize("page_size", [1, 16, 17, 64, 1023, 1500])
def test_page_sizes(page_size: int, blocks: int, device: str) -> None:
    """Lengths around a page, and a full sequence of several tiles: fewer, and more, than blocks."""
    pages = 2500 // page_size + 3
    lengths = [0, 1, page_size - 1, page_size, page_size + 1, 0, pages * page_size, 1025]
    check(Problem(lengths, page_size, pages, seed=page_size), device, blocks)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", [1, 2, 255, 256, 257, 300])
def test_batches(batch: int, device: str) -> None:
    """More sequences than threads; a page each, so that some have none."""
    lengths = np.random.default_rng(batch).integers(0, 6, batch).tolist()
    check(Problem(lengths, page_size=5, pages_per_seq=1), device)


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_at_all(device: str) -> None:
    check(Problem([0, 0, 0], page_size=16, pages_per_seq=4), device, blocks=2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("page_size", [1, 17])
def test_absurd_values(page_size: int, device: str) -> None:
    """Lengths are clamped to the table and page ids to the pool, so nothing else is touched."""
    problem = Problem([-5, 2**31 - 1, -(2**31), 10**6, 3, 40], page_size, pages_per_seq=40)
    problem.table[:, ::3] = 2147480000
    problem.table[:, 1::3] = [[-1], [-(2**31)], [-7], [2**31 - 1], [1000], [999]]
    check(problem, device, blocks=2)


@pytest.mark.parametrize("device", DEVICES)
def test_a_pool_of_almost_all_of_int32(device: str) -> None:
    problem = Problem([100, 7], page_size=64, pages_per_seq=3, num_pages=2**25 - 1)
    problem.table[0] = [2**25 - 2, 0, 2**25 - 3]
    check(problem, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("page_size", "batch"), [(16, 8), (17, 300), (1, 3)])
def test_the_same_as_xla(page_size: int, batch: int, device: str) -> None:
    lengths = np.random.default_rng(batch).integers(-9, 4 * page_size + 9, batch).tolist()
    problem = Problem(lengths, page_size, pages_per_seq=4)
    problem.table[::2, 1] = -3
    token_indices = functools.partial(
        xla.token_indices, page_size=page_size, num_pages=problem.num_pages
    )
    arrays = jax.jit(token_indices)(np.array(lengths, np.int32), problem.table)
    expected_indptr, expected_indices = map(np.asarray, arrays)
    indptr, indices, _ = run(problem, device)
    used = expected_indptr[-1]
    np.testing.assert_array_equal(indptr[:-GUARD], expected_indptr)
    np.testing.assert_array_equal(indices[:used], expected_indices[:used])


@pytest.mark.parametrize("device", AMD)
@pytest.mark.parametrize("page_size", [1, 16, 17, 1500])
def test_each_byte_is_moved_once(page_size: int, device: str) -> None:
    """Of the table what is in use."""
    problem = Problem([100, 3 * page_size, 0, 2100], page_size, 4500 // page_size)
    counters = check(problem, device, blocks=3)
    assert counters is not None
    table, indices = counters.traffic["page_indices"], counters.traffic["kv_indices"]
    assert table.read_total == table.read_distinct == 4 * sum(problem.pages())
    assert indices.written_total == indices.written_distinct == 4 * sum(problem.clamped())
    assert counters.traffic["kv_indptr"].written_total == 4 * 5


@pytest.mark.parametrize("device", AMD)
def test_the_cost_follows_the_tokens(device: str) -> None:
    """And not the capacity."""
    narrow, wide = (Problem([100, 0, 900], page_size=16, pages_per_seq=n) for n in (60, 3000))
    narrow_counters, wide_counters = check(narrow, device), check(wide, device)
    assert narrow_counters is not None and wide_counters is not None
    assert narrow_counters.instructions == wide_counters.instructions
