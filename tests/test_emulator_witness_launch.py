# SPDX-License-Identifier: Apache-2.0
"""What a launch hands to a kernel: ids, arguments, LDS and variables, against NumPy."""

import ctypes

import numpy as np
import pytest
from emulator import compiler
from emulator.machine import Fault, Machine
from witness import KERNELS, assert_same, needs_compiler, on_archs, on_levels, poisoned, run

pytestmark = needs_compiler


@on_archs
@on_levels
@pytest.mark.parametrize("block", [(64, 1, 1), (8, 4, 2), (7, 3, 5), (1, 1, 1), (256, 1, 1)])
def test_places(block: tuple[int, int, int], arch: str, level: int) -> None:
    """Also workgroups that do not fill their last wave."""
    grid, items = (3, 2, 4), int(np.prod(block))
    got = poisoned(24 * items, np.uint32)
    machine = Machine(arch)
    machine.register(got, "output")
    code = machine.load(compiler.device_code(KERNELS / "launch.hip", arch, level))
    code.launch("places", grid=grid, block=block, args=np.uint64(got.ctypes.data).tobytes())
    wanted = np.arange(items)[None, :] | np.arange(24)[:, None] << 16
    assert_same(got, wanted.ravel().astype(np.uint32))


@on_archs
@on_levels
def test_arguments(arch: str, level: int) -> None:
    values = [np.uint8(200), np.uint16(50000), np.float64(1 / 3), np.int8(-100)]
    values += [np.uint32(4e9), np.float16(-1.5), np.uint64(2**53 - 1), np.float32(0.1)]
    got = poisoned(8, np.float64)
    run(arch, "launch.hip", "arguments", *values, got, level=level)
    assert got.tolist() == [float(value) for value in values]


@on_archs
@on_levels
def test_variables(arch: str, level: int) -> None:
    """Constants, and a variable that a first launch leaves to the next one and to the host."""
    got = poisoned(512, np.uint32)
    machine = Machine(arch)
    machine.register(got, "output")
    code = machine.load(compiler.device_code(KERNELS / "launch.hip", arch, level))
    primes = np.array([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53], np.uint32)
    for expected in (42, 44):
        code.launch("variables", (2, 1, 1), (256, 1, 1), np.uint64(got.ctypes.data).tobytes())
        assert_same(got[1:], primes[np.arange(1, 512) * 7 & 15])
        assert got[0] == expected
    address, size = code.symbol("counter")
    assert size == 4 and ctypes.c_uint32.from_address(address).value == 44


@on_archs
@on_levels
def test_dynamic_lds(arch: str, level: int) -> None:
    given, got = np.arange(256, dtype=np.uint32) * 77, poisoned(256, np.uint32)
    run(arch, "launch.hip", "dynamic_lds", given, got, level=level, dynamic_lds=2048)
    other = np.arange(256)[::-1]
    assert_same(got, given[other] + ~given[other] * 3 + other.astype(np.uint32))


@on_archs
def test_too_little_dynamic_lds(arch: str) -> None:
    given, got = np.arange(256, dtype=np.uint32), poisoned(256, np.uint32)
    with pytest.raises(Fault, match="LDS"):
        run(arch, "launch.hip", "dynamic_lds", given, got, dynamic_lds=2044)
