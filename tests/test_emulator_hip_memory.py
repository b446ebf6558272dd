# SPDX-License-Identifier: Apache-2.0
"""The emulated HIP runtime: allocations and what may be copied."""

import ctypes
from collections.abc import Iterator

import hip
import numpy as np
import pytest


@pytest.fixture
def device() -> Iterator[hip.Hip]:
    device = hip.load()
    device.runtime.take_reports()
    yield device
    device.runtime.take_reports()


def test_copies_there_and_back(device: hip.Hip) -> None:
    x = np.arange(1000, dtype=np.int32)
    np.testing.assert_array_equal(device.to_host(device.to_device(x), 1000), x)


@pytest.mark.parametrize("size", [4, 5000, (64 << 20) + 12])
def test_new_memory_is_poison(device: hip.Hip, size: int) -> None:
    """Nobody may count on zeros; both as bfloat16 and as float32 it is NaN."""
    address = device.malloc(size)
    assert set(np.unique(device.to_host(address, size, np.uint8))) == {0xFF}
    hip.ok(device.hipFree(address))


def test_memory_that_is_claimed_is_not_taken(device: hip.Hip) -> None:
    """XLA's allocator asks for most of the device at once."""
    before = resident_bytes()
    address = device.malloc(12 << 30)
    ctypes.memset(address + (5 << 30), 0, 4096)
    assert resident_bytes() - before < 1 << 30
    hip.ok(device.hipFree(address))


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return 4096 * int(statm.read().split()[1])


def test_device_memory_has_an_end(device: hip.Hip) -> None:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    hip.ok(device.hipMemGetInfo(ctypes.byref(free), ctypes.byref(total)))
    assert total.value == 16 << 30
    pointer = ctypes.c_void_p()
    code = device.hipMalloc(ctypes.byref(pointer), ctypes.c_size_t(free.value + 4096))
    assert code == hip.OUT_OF_MEMORY
    assert not pointer.value


def test_free_memory_comes_back(device: hip.Hip) -> None:
    free, later = ctypes.c_size_t(), ctypes.c_size_t()
    hip.ok(device.hipMemGetInfo(ctypes.byref(free), None))
    hip.ok(device.hipFree(device.malloc(1 << 20)))
    hip.ok(device.hipMemGetInfo(ctypes.byref(later), None))
    assert later.value == free.value


@pytest.mark.parametrize("offset", [0, 60])
def test_copy_past_the_end(device: hip.Hip, offset: int) -> None:
    address, host = device.malloc(64), np.zeros(68, np.uint8)
    size = 68 - offset
    assert device.hipMemcpy(host.ctypes.data, address + offset, size, 0) == hip.INVALID_VALUE
    assert f"{size} bytes at offset {offset} of 64 bytes" in device.runtime.take_reports()
    hip.ok(device.hipMemcpy(host.ctypes.data, address + offset, size - 4, 0))


def test_freed_memory_is_not_touched_again(device: hip.Hip) -> None:
    x = np.arange(16, dtype=np.int32)
    address = device.to_device(x)
    hip.ok(device.hipFree(address))
    assert device.hipMemcpy(x.ctypes.data, address, 64, 0) == hip.INVALID_VALUE
    assert "copy from freed memory" in device.runtime.take_reports()
    assert device.hipMemsetD32Async(address, 1, 16, None) == hip.INVALID_VALUE
    assert device.hipFree(address) == hip.INVALID_VALUE
    # ... nor given to anybody else, whom a stale pointer would then hit.
    assert address not in [device.malloc(64) for _ in range(100)]


def test_only_the_start_of_an_allocation_is_freed(device: hip.Hip) -> None:
    address = device.malloc(64)
    assert device.hipFree(address + 4) == hip.INVALID_VALUE
    hip.ok(device.hipFree(address))


def test_fills(device: hip.Hip) -> None:
    address = device.to_device(np.zeros(8, np.int32))
    hip.ok(device.hipMemsetD32Async(address + 4, -5, 3, None))
    assert device.to_host(address, 8).tolist() == [0, -5, -5, -5, 0, 0, 0, 0]
