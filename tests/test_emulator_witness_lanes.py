# SPDX-License-Identifier: Apache-2.0
"""Exchange between lanes (DPP, swizzle, permute, readlane, ballot) against NumPy indexing."""

from collections.abc import Callable

import numpy as np
import pytest
from witness import assert_same, needs_compiler, on_archs, on_levels, poisoned, run

pytestmark = needs_compiler

LANE = np.arange(64)
ROW, PLACE = LANE & ~15, LANE & 15
Words = np.ndarray


def taken(x: Words, source: np.ndarray, valid: np.ndarray | bool, otherwise: object = 7) -> Words:
    return np.where(valid, x[np.clip(source, 0, 63)], otherwise)


def pushed(x: Words) -> Words:
    result = np.zeros(64, np.uint32)
    result[(LANE * 7 + 3) % 64] = x
    return result


def with_lane(x: Words, lane: int, value: int) -> Words:
    result = x.copy()
    result[lane] = value
    return result


def bits_below(x: Words) -> Words:
    mask = int(x[1]) | int(x[0]) << 32
    return np.array([(mask & ((1 << lane) - 1)).bit_count() + 5 for lane in range(64)])


def ballot(x: Words) -> int:
    return sum(1 << int(lane) for lane in LANE[(x & 3) == 1])


EXPECTED: dict[str, Callable[[Words], Words]] = {
    "quad_permute": lambda x: x[LANE ^ 3],
    "row_shift_left": lambda x: taken(x, LANE + 3, PLACE < 13),
    "row_shift_right": lambda x: taken(x, LANE - 5, PLACE >= 5),
    "row_rotate": lambda x: x[ROW + (PLACE - 5) % 16],
    "wave_shift_left": lambda x: taken(x, LANE + 1, LANE < 63),
    "wave_rotate_left": lambda x: x[(LANE + 1) % 64],
    "wave_shift_right": lambda x: taken(x, LANE - 1, LANE > 0),
    "wave_rotate_right": lambda x: x[(LANE - 1) % 64],
    "row_mirror": lambda x: x[ROW + 15 - PLACE],
    "row_half_mirror": lambda x: x[LANE ^ 7],
    "row_broadcast_15": lambda x: taken(x, ROW - 1, ROW // 16 % 2 == 1),
    "row_broadcast_31": lambda x: taken(x, np.full(64, 31), LANE >= 32),
    "row_new_broadcast": lambda x: x[ROW + 3],
    "masked": lambda x: taken(x, ROW + 15 - PLACE, (ROW // 16 % 2 == 0) & (PLACE < 8)),
    "bound_control": lambda x: taken(x, LANE - 5, PLACE >= 5, 0),
    "swizzle_bits": lambda x: x[LANE & 32 | ((LANE & 0x1E | 1) ^ 0x0C)],
    "swizzle_quad": lambda x: x[LANE ^ 3],
    "pull": lambda x: x[(LANE * 7 + 3) % 64],
    "push": pushed,
    "read_lane": lambda x: np.full(64, x[37] + x[x[1] & 63]),
    "read_first_lane": lambda x: np.full(64, x[0]),
    "write_lane": lambda x: with_lane(x, 21, x[3]),
    "ballot_low": lambda x: np.full(64, ballot(x) & 0xFFFFFFFF),
    "ballot_high": lambda x: np.full(64, ballot(x) >> 32),
    "rank": bits_below,
    "read_first_active_lane": lambda x: np.where((LANE < 20) | (LANE % 5 == 0), 1, x[21]),
    "pull_from_active": lambda x: np.where(LANE & 1, 0, 9),
    "sum_of_rows": lambda x: np.full(64, x.sum(dtype=np.uint32)),
    "sum_of_halves": lambda x: np.full(64, x.sum(dtype=np.uint32)),
}
# The first operand's odd rows (upper half) and the second's even rows (lower half) swap.
EXPECTED_GFX950: dict[str, Callable[[Words], Words]] = {
    "swap_rows_first": lambda x: np.where(ROW // 16 % 2, ~x[(LANE - 16) % 64], x),
    "swap_rows_second": lambda x: np.where(ROW // 16 % 2, ~x, x[(LANE + 16) % 64]),
    "swap_halves_first": lambda x: np.where(LANE >= 32, ~x[LANE % 32], x),
    "swap_halves_second": lambda x: np.where(LANE >= 32, ~x, x[LANE % 32 + 32]),
}


def words() -> Words:
    return np.random.default_rng(5).integers(0, 2**32, 64, np.uint32)


@on_archs
@on_levels
@pytest.mark.parametrize("name", EXPECTED)
def test_lanes(name: str, arch: str, level: int) -> None:
    x, got = words(), poisoned(64, np.uint32)
    run(arch, "lanes.hip", name, x, got, block=64, level=level)
    assert_same(got, EXPECTED[name](x).astype(np.uint32))


@on_levels
@pytest.mark.parametrize("name", EXPECTED_GFX950)
def test_lane_swaps(name: str, level: int) -> None:
    x, got = words(), poisoned(64, np.uint32)
    run("gfx950", "lanes.hip", name, x, got, block=64, level=level)
    assert_same(got, EXPECTED_GFX950[name](x).astype(np.uint32))


@on_levels
@pytest.mark.parametrize("bits", [16, 8])
def test_lds_transpose(bits: int, level: int) -> None:
    dtype = f"u{bits // 8}"
    blocks = np.random.default_rng(6).integers(0, 256, 512, np.uint8).view(dtype)
    blocks = blocks.reshape(4, 64 // bits, 16)  # four groups of 16 lanes
    got = poisoned((4, 16, 64 // bits), dtype)
    run("gfx950", "lanes.hip", f"transpose_{bits}", blocks, got, block=64, level=level)
    assert_same(got, blocks.swapaxes(1, 2))
