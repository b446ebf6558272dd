# SPDX-License-Identifier: Apache-2.0
"""The plain read that decode is timed against reads every byte, once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpu import DEVICES, Launch, pack, run_on

from jax_mla import _native
from jax_mla.bench import programs
from jax_mla.target import platform_of

PIECE = 16  # bytes
THREADS = 256
SUMS = 8  # of a block


def words(pieces: int) -> np.ndarray:
    return np.random.default_rng(pieces).integers(0, 2**32, pieces * 4, np.uint32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("pieces", [0, 1, 257, 5000])
def test_every_piece_is_read_once(pieces: int, blocks: int, device: str) -> None:
    """Fewer pieces than threads, rounds of four loads, and a rest."""
    source, sums = words(pieces + 1)[: pieces * 4], np.full((blocks, SUMS), 77, np.uint32)
    source.flags.writeable = False
    arrays = {"source": source, "sums": sums} if pieces else {"sums": sums}
    counters = run_on(
        device,
        Launch(
            source="read",
            kernel="jax_mla_read",
            grid=(blocks, 1, 1),
            threads=THREADS,
            arrays=arrays,
            arguments=lambda at: pack(
                [("P", at.get("source", 0)), ("P", pieces), ("P", at["sums"]), blocks]
            ),
        ),
    )
    assert np.bitwise_xor.reduce(sums, axis=None) == np.bitwise_xor.reduce(source)
    if counters is not None and pieces:
        assert counters.traffic["source"].read_total == pieces * PIECE


def platform_name() -> str:
    return platform_of(jax.devices()[0])


@pytest.mark.gpu
@pytest.mark.skipif(not _native.device_code(), reason="built without device code")
def test_a_part_of_a_pool_through_jax() -> None:
    pool = words(3 * 4 * 9).reshape(3, 4, 36)
    part = pool.reshape(-1)[4 * 9 : 4 * 90]
    read = jax.jit(lambda x: programs.read(x, 9 * PIECE, 81 * PIECE))
    sums = np.asarray(read(jnp.asarray(pool)))
    assert np.bitwise_xor.reduce(sums, axis=None) == np.bitwise_xor.reduce(part)


@pytest.mark.gpu
@pytest.mark.skipif(not _native.device_code(), reason="built without device code")
@pytest.mark.parametrize(
    ("first", "size"), [(-16, 32), (0, 8), (8, 16), (0, 3 * 4 * 36 * 4 + 16), (16, 3 * 4 * 36 * 4)]
)
def test_what_lies_outside_or_between_pieces_is_refused(first: int, size: int) -> None:
    call: Any = jax.ffi.ffi_call(
        f"jax_mla_read_{platform_name()}_v1", jax.ShapeDtypeStruct((1, SUMS), jnp.uint32)
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"INVALID_ARG.*expected a part of 1728"):
        pool = jnp.zeros((3, 4, 36), jnp.uint32)
        jax.block_until_ready(call(pool, first=np.int64(first), size=np.int64(size)))
