# SPDX-License-Identifier: Apache-2.0
"""Launches the extension's compiled kernels without JAX: on emulated AMD GPUs, or an NVIDIA one."""

import ctypes
import dataclasses
import functools
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from emulator.machine import Counters, Machine

from jax_mla import _native

AMD = ("gfx942", "gfx950")
DEVICES = (*AMD, "cuda")


@dataclasses.dataclass(frozen=True)
class Launch:
    """A launch on arrays that are device memory while it runs.

    Attributes:
      source: name of the file in csrc/kernels, or what gives the compiled code for a target.
      kernel: name of the kernel in it.
      grid: blocks.
      threads: of a block.
      arrays: by name; the writable ones come back.
      arguments: makes the argument block out of the arrays' addresses.
    """

    source: str | Callable[[str], bytes]
    kernel: str
    grid: tuple[int, int, int]
    threads: int
    arrays: Mapping[str, np.ndarray]
    arguments: Callable[[Mapping[str, int]], bytes]


def run_on(device: str, launch: Launch) -> Counters | None:
    """Runs on one of DEVICES, the gfx ones emulated, which count; skips where there is none."""
    if isinstance(launch.source, str) and not _native.device_code():
        pytest.skip("the extension was built without device code (JAX_MLA_DEVICE=none)")
    if device in AMD:
        return _run_emulated(device, launch)
    _run_on_nvidia(launch)
    return None


def pack(fields: list[Any]) -> bytes:
    """A C struct of pointers (given as ("P", address)) and 32-bit ints."""
    block = b""
    for field in fields:
        if isinstance(field, tuple):
            block += b"\0" * (-len(block) % 8) + struct.pack("<Q", field[1])
        else:
            block += struct.pack("<i", field)
    return block + b"\0" * (-len(block) % 8)


def _code(launch: Launch, arch: str) -> bytes:
    if not isinstance(launch.source, str):
        return launch.source(arch)
    _, code = _native.device_code()[launch.source, arch]
    return code


def _run_emulated(arch: str, launch: Launch) -> Counters:
    """Every access is held against the arrays; waits, barriers and initialisation are checked."""
    machine = Machine(arch, waits=2, uninitialised=True)
    for name, array in launch.arrays.items():
        machine.register(array, name, writable=array.flags.writeable)
    addresses = {name: array.ctypes.data for name, array in launch.arrays.items()}
    return machine.load(_code(launch, arch)).launch(
        launch.kernel,
        grid=launch.grid,
        block=(launch.threads, 1, 1),
        args=launch.arguments(addresses),
    )


def _run_on_nvidia(launch: Launch) -> None:
    """On the first NVIDIA GPU, through the driver."""
    call, arch = _nvidia_driver()
    pointers = {}
    for name, array in launch.arrays.items():
        pointers[name] = pointer = ctypes.c_uint64()
        size, host = ctypes.c_size_t(array.nbytes), ctypes.c_void_p(array.ctypes.data)
        call("cuMemAlloc_v2", ctypes.byref(pointer), size)
        call("cuMemcpyHtoD_v2", pointer, host, size)
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    call("cuModuleLoadData", ctypes.byref(module), _code(launch, arch))
    call("cuModuleGetFunction", ctypes.byref(function), module, launch.kernel.encode())
    block = launch.arguments({name: pointer.value for name, pointer in pointers.items()})
    size = ctypes.c_size_t(len(block))
    raw = (ctypes.c_void_p * 5)(  # a block of bytes, however many parameters it holds
        1, ctypes.cast(block, ctypes.c_void_p), 2, ctypes.addressof(size), 0
    )
    shape = (*launch.grid, launch.threads, 1, 1)
    call("cuLaunchKernel", function, *shape, 0, None, None, raw)
    call("cuCtxSynchronize")
    for name, array in launch.arrays.items():
        if array.flags.writeable:
            host = ctypes.c_void_p(array.ctypes.data)
            call("cuMemcpyDtoH_v2", host, pointers[name], ctypes.c_size_t(array.nbytes))
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
