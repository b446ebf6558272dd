# SPDX-License-Identifier: Apache-2.0
"""A step of an engine as a command buffer: replays with everything changed give the same bits."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import compare
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import processes
import pytest
from cases import SCALE, Case
from emulator.runtime import Runtime

import jax_mla
from jax_mla.kernels import MODES

pytestmark = [pytest.mark.rocm, pytest.mark.usefixtures("aiter_kernels")]

LAYERS, BATCH, HEADS, PAGE_SIZE, PAGES_PER_SEQ = 3, 3, 4, 8, 5
CAPACITY = PAGE_SIZE * PAGES_PER_SEQ
NUM_PAGES = 1 + BATCH * PAGES_PER_SEQ
REPLAYS = 50

# XLA makes a command buffer of so many operations in a row or more.
CAPTURED = {"xla_gpu_graph_min_graph_size": "2"}
UNCAPTURED = {"xla_gpu_graph_min_graph_size": "1000000"}


class Turn(NamedTuple):
    """What a step is given, but for the caches that the step before left behind."""

    q: np.ndarray  # [LAYERS, BATCH, HEADS, 576]
    rows: np.ndarray  # [LAYERS, BATCH, 1, 576], appended
    lengths: np.ndarray
    page_indices: np.ndarray


def turns() -> Iterator[Turn]:
    rng = np.random.default_rng(0)
    for _ in range(REPLAYS + 1):
        pages = 1 + rng.permutation(NUM_PAGES - 1).reshape(BATCH, PAGES_PER_SEQ)
        lengths = rng.integers(0, CAPACITY + 1, BATCH)
        lengths[rng.integers(BATCH)] = rng.choice([0, 1, PAGE_SIZE, CAPACITY])
        yield Turn(
            rng.standard_normal((LAYERS, BATCH, HEADS, 576)).astype(jnp.bfloat16),
            rng.standard_normal((LAYERS, BATCH, 1, 576)).astype(jnp.bfloat16),
            lengths.astype(np.int32),
            pages.astype(np.int32),
        )


def fresh_caches(seed: int) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    shape = (LAYERS, NUM_PAGES, PAGE_SIZE, 576)
    return [jnp.asarray(x) for x in rng.standard_normal(shape).astype(jnp.bfloat16)]


def compile_step(mode: str, options: dict[str, str]) -> Any:
    def step(caches: list[jax.Array], q: jax.Array, rows: jax.Array, *table: jax.Array) -> Any:
        metadata = jax_mla.make_metadata(
            *table,
            page_size=PAGE_SIZE,
            num_pages=NUM_PAGES,
            heads=HEADS,
            q_dtype=q.dtype,
            kv_dtype=q.dtype,
            mode=mode,
        )
        caches = [jax_mla.append(c, r, *table) for c, r in zip(caches, rows, strict=True)]
        results = [
            jax_mla.decode(
                q[i],
                caches[i],
                *table,
                scale=SCALE,
                metadata=metadata,
                implementation="asm",
                return_residuals=True,
            )
            for i in range(LAYERS)
        ]
        return caches, results

    lowered = jax.jit(step, donate_argnums=0).lower(fresh_caches(0), *next(turns()))
    return lowered.compile(compiler_options=options)


def run(mode: str, options: dict[str, str]) -> np.ndarray:
    """out of every layer of every turn, lse as its last column, where all is held against float64.

    Each turn has the caches that the one before appended to; now and then they are others.
    """
    step = compile_step(mode, options)
    results = []
    for number, turn in enumerate(turns()):
        if number % 20 == 0:
            caches = fresh_caches(number)
        caches, layers = step(caches, *turn)
        results.append([np.dstack([np.asarray(x, np.float32) for x in layer]) for layer in layers])
    for cache, q, result in zip(caches, turn.q, results[-1], strict=True):
        case = Case(q[:, None], np.asarray(cache), turn.lengths, turn.page_indices, SCALE)
        out, lse = np.split(result[:, None], [512], axis=-1)
        compare.assert_close(out.astype(jnp.bfloat16), lse[..., 0], *oracle.decode(case))
    return np.array(results)


@pytest.fixture(scope="module")
def uncaptured() -> dict[str, np.ndarray]:
    return {mode: run(mode, UNCAPTURED) for mode in MODES}


@pytest.mark.parametrize("mode", MODES)
def test_fifty_replays(mode: str, uncaptured: dict[str, np.ndarray], platform: str) -> None:
    if not platform.startswith("emulated"):
        np.testing.assert_array_equal(run(mode, CAPTURED), uncaptured[mode])
        return
    with Runtime().recording() as records:
        results = run(mode, CAPTURED)
    np.testing.assert_array_equal(results, uncaptured[mode])
    # The first step runs as it is. From then on all of it is one graph, of kernels alone.
    assert records.graph_launches == REPLAYS
    assert records.graph_nodes * (REPLAYS + 1) == len(records.launches) * REPLAYS
    assert records.fills == 0


def save(path: str) -> None:
    """In a process of its own."""
    np.savez(path, **{mode: run(mode, CAPTURED) for mode in MODES})


@pytest.mark.parametrize("seed", [1, 2])
def test_replays_in_any_order_that_streams_allow(
    seed: int, uncaptured: dict[str, np.ndarray], platform: str, tmp_path: Path
) -> None:
    if not platform.startswith("emulated"):
        pytest.skip("asks the emulator")
    path = str(tmp_path / "results.npz")
    settings = f"{os.environ['JAX_MLA_EMULATOR']},streams=random,seed={seed}"
    processes.call("test_rocm_command_buffers", f"save({path!r})", JAX_MLA_EMULATOR=settings)
    with np.load(path) as results:
        for mode in MODES:
            np.testing.assert_array_equal(results[mode], uncaptured[mode])
