# SPDX-License-Identifier: Apache-2.0
"""The programs of `python -m jax_mla bench` launch what their times are taken for, and no more."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import pytest
from emulator.runtime import Runtime

import jax_mla
from jax_mla import _native
from jax_mla.bench import programs
from jax_mla.bench.points import SCALE, Point

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not _native.device_code(), reason="built without device code"),
]
CALLS = 6


@pytest.fixture
def operands(monkeypatch: pytest.MonkeyPatch) -> programs.Operands:
    """With fewer pages than calls, so that the pool begins again."""
    monkeypatch.setattr(programs, "POOL_BYTES", 0)
    monkeypatch.setattr(programs, "CALLS", (CALLS, CALLS))
    point = Point(batch=2, tokens=32, heads=4, page_size=16, lengths="uniform")
    return programs.make_operands(point, programs.make_pool(point))


def launched(platform: str, run: Callable[[], Any]) -> tuple[list[str], int]:
    """Kernels of a replay, and graphs."""
    if not platform.startswith("emulated"):
        pytest.skip("asks the emulator")
    for _ in range(3):
        jax.block_until_ready(run())
    with Runtime().recording() as records:
        jax.block_until_ready(run())
    return [launch.kernel for launch in records.launches], records.graph_launches


@pytest.mark.parametrize("warm", [False, True])
def test_every_call_is_made_in_one_graph(
    operands: programs.Operands, warm: bool, platform: str
) -> None:
    """And there is nothing between them: neither are equal ones merged nor is a kernel added."""
    decode = functools.partial(jax_mla.decode, scale=SCALE, implementation="kernel")
    run = programs.program(decode, CALLS)
    tables = operands.warm_tables if warm else operands.tables
    kernels, graphs = launched(
        platform, functools.partial(run, operands.q, operands.pool, operands.lengths, tables)
    )
    # There are workers for many parts of two sequences.
    ours = ["jax_mla_decode_bf16_512_64", "jax_mla_merge_bf16_many"] * CALLS
    assert kernels[: len(ours)] == ours
    assert graphs == 1 and len(kernels) <= len(ours) + 2


def test_every_read_is_made_in_one_graph(operands: programs.Operands, platform: str) -> None:
    run = programs.read_program(operands.pool.nbytes // 2, CALLS)
    kernels, graphs = launched(platform, functools.partial(run, operands.pool))
    assert kernels[:CALLS] == ["jax_mla_read"] * CALLS
    assert graphs == 1 and len(kernels) <= CALLS + 2
