# SPDX-License-Identifier: Apache-2.0
"""Launches the extension's compiled kernels without JAX: on emulated AMD GPUs, or an NVIDIA one.

device = open_device("gfx942")
device.launch("merge", "jax_mla_merge_f32", grid=(4, 1, 1), threads=128, arguments=block,
              arrays={"out": out})
"""

import ctypes
import functools
import struct
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import pytest
from emulator.machine import Counters, Machine

from jax_mla import _native

AMD = ("gfx942", "gfx950")
DEVICES = (*AMD, "cuda")


class Device(Protocol):
    """Arrays are device memory for the time of a launch."""

    def launch(
        self,
        source: str,
        kernel: str,
        *,
        grid: tuple[int, int, int],
        threads: int,
        arguments: "Arguments",
        arrays: Mapping[str, np.ndarray],
    ) -> Counters | None: ...


# Makes the argument block out of the addresses of the arrays.
Arguments = Callable[[Mapping[str, int]], bytes]


def open_device(name: str) -> Device:
    """One of DEVICES, the gfx ones emulated; skips the test where there is none."""
    if not _native.device_code():
        pytest.skip("the extension was built without device code (JAX_MLA_DEVICE=none)")
    return EmulatedDevice(name) if name in AMD else NvidiaDevice()


def pack(fields: list[Any]) -> bytes:
    """A C struct of pointers (given as ("P", address)) and 32-bit ints."""
    block = b""
    for field in fields:
        if isinstance(field, tuple):
            block += b"\0" * (-len(block) % 8) + struct.pack("<Q", field[1])
        else:
            block += struct.pack("<i", field)
    return block + b"\0" * (-len(block) % 8)


class EmulatedDevice:
    """Every access is held against the arrays, waits and barriers are checked."""

    def __init__(self, arch: str) -> None:
        self.arch = arch

    def launch(
        self,
        source: str,
        kernel: str,
        *,
        grid: tuple[int, int, int],
        threads: int,
        arguments: Arguments,
        arrays: Mapping[str, np.ndarray],
    ) -> Counters:
        machine = Machine(self.arch, waits=2, uninitialised=True)
        for name, array in arrays.items():
            machine.register(array, name, writable=array.flags.writeable)
        addresses = {name: array.ctypes.data for name, array in arrays.items()}
        _, code = _native.device_code()[source, self.arch]
        module = machine.load(code)
        return module.launch(kernel, grid=grid, block=(threads, 1, 1), args=arguments(addresses))


class NvidiaDevice:
    """The first NVIDIA GPU, through the driver."""

    def __init__(self) -> None:
        self.driver, self.arch = _nvidia_driver()

    def launch(
        self,
        source: str,
        kernel: str,
        *,
        grid: tuple[int, int, int],
        threads: int,
        arguments: Arguments,
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        call, pointers = self.driver, {}
        for name, array in arrays.items():
            pointer = ctypes.c_uint64()
            call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(array.nbytes, 16)))
            call("cuMemcpyHtoD_v2", pointer, ctypes.c_void_p(array.ctypes.data),
                 ctypes.c_size_t(array.nbytes))  # fmt: skip
            pointers[name] = pointer
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        _, code = _native.device_code()[source, self.arch]
        call("cuModuleLoadData", ctypes.byref(module), code)
        call("cuModuleGetFunction", ctypes.byref(function), module, kernel.encode())
        block = arguments({name: pointer.value for name, pointer in pointers.items()})
        parameters = (ctypes.c_void_p * 1)(ctypes.cast(block, ctypes.c_void_p))
        call("cuLaunchKernel", function, *grid, threads, 1, 1, 0, None, parameters, None)
        call("cuCtxSynchronize")
        for name, array in arrays.items():
            if array.flags.writeable:
                call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), pointers[name],
                     ctypes.c_size_t(array.nbytes))  # fmt: skip
            call("cuMemFree_v2", pointers[name])
        call("cuModuleUnload", module)


@functools.cache
def _nvidia_driver() -> tuple[Callable[..., None], str]:
    """Calls of the CUDA driver that raise on errors, and which of our PTX its GPU takes."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        pytest.skip(f"no NVIDIA driver: {error}")

    def call(name: str, *arguments: Any) -> None:
        code = getattr(library, name)(*arguments)
        if code:
            raise RuntimeError(f"{name}: CUDA error {code}")

    call("cuInit", 0)
    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    major = ctypes.c_int()
    call("cuDeviceGetAttribute", ctypes.byref(major), 75, device)  # compute capability, major
    return call, "sm_90a" if major.value == 9 else "sm_80"
