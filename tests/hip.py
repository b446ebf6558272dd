# SPDX-License-Identifier: Apache-2.0
"""HIP from Python for tests of the emulated runtime itself: no JAX, the library loaded by path."""

import ctypes
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path

import numpy as np
from emulator.build import LIBRARY, library_folder
from emulator.runtime import Runtime

SUCCESS = 0
INVALID_VALUE = 1
OUT_OF_MEMORY = 2
INVALID_IMAGE = 200
NOT_FOUND = 500
NOT_READY = 600
LAUNCH_FAILURE = 719
CAPTURE_UNSUPPORTED = 900
CAPTURE_INVALIDATED = 901
CAPTURE_UNJOINED = 904
CAPTURE_ISOLATION = 905

NON_BLOCKING = 1
HostFunction = ctypes.CFUNCTYPE(None, c_void_p)

_ARGUMENTS = {
    "hipFree": [c_void_p],
    "hipMemcpy": [c_void_p, c_void_p, c_size_t, c_int],
    "hipMemcpyAsync": [c_void_p, c_void_p, c_size_t, c_int, c_void_p],
    "hipMemsetD32Async": [c_void_p, c_int, c_size_t, c_void_p],
    "hipMemGetInfo": [c_void_p, c_void_p],
    "hipStreamDestroy": [c_void_p],
    "hipStreamSynchronize": [c_void_p],
    "hipStreamQuery": [c_void_p],
    "hipStreamWaitEvent": [c_void_p, c_void_p, c_uint],
    "hipEventRecord": [c_void_p, c_void_p],
    "hipEventSynchronize": [c_void_p],
    "hipEventQuery": [c_void_p],
    "hipLaunchHostFunc": [c_void_p, HostFunction, c_void_p],
    "hipStreamBeginCapture": [c_void_p, c_int],
    "hipStreamEndCapture": [c_void_p, c_void_p],
    "hipGraphInstantiate": [c_void_p, c_void_p, c_void_p, c_void_p, c_size_t],
    "hipGraphLaunch": [c_void_p, c_void_p],
    "hipGraphDestroy": [c_void_p],
    "hipGraphAddMemcpyNode1D": [
        c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_void_p, c_size_t, c_int,
    ],
    "hipGraphAddChildGraphNode": [c_void_p, c_void_p, c_void_p, c_size_t, c_void_p],
    "hipGraphExecMemcpyNodeSetParams1D": [
        c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_int,
    ],
    "hipGraphExecChildGraphNodeSetParams": [c_void_p, c_void_p, c_void_p],
    "hipModuleGetFunction": [c_void_p, c_void_p, c_char_p],
    "hipModuleGetGlobal": [c_void_p, c_void_p, c_void_p, c_char_p],
    "hipModuleUnload": [c_void_p],
    "hipModuleLaunchKernel": [c_void_p, *[c_uint] * 7, c_void_p, c_void_p, c_void_p],
}  # fmt: skip


class Hip:
    """The emulated HIP. A method named as a HIP function gives its error code."""

    def __init__(self, path: str) -> None:
        self.runtime = Runtime(path)
        for name, arguments in _ARGUMENTS.items():
            getattr(self.runtime.hip, name).argtypes = arguments

    def __getattr__(self, name: str) -> Callable[..., int]:
        return getattr(self.runtime.hip, name)

    def make(self, function: str, *arguments: object) -> int:
        """The handle that a function puts where its first argument points."""
        handle = c_void_p()
        ok(getattr(self, function)(byref(handle), *arguments))
        return handle.value or 0

    def malloc(self, size: int) -> int:
        return self.make("hipMalloc", c_size_t(size))

    def stream(self) -> int:
        return self.make("hipStreamCreateWithFlags", c_uint(NON_BLOCKING))

    def event(self) -> int:
        return self.make("hipEventCreateWithFlags", c_uint(0))

    def to_device(self, array: np.ndarray) -> int:
        address = self.malloc(array.nbytes)
        ok(self.hipMemcpy(address, array.ctypes.data, array.nbytes, 0))
        return address

    def to_host(self, address: int, count: int, dtype: type = np.int32) -> np.ndarray:
        array = np.zeros(count, dtype)
        ok(self.hipMemcpy(array.ctypes.data, address, array.nbytes, 0))
        return array

    def launch(self, function: int, blocks: int, threads: int, stream: int, *pointers: int) -> int:
        """Launches with HIP's kernelParams, one pointer to each argument."""
        values = [c_uint64(p) for p in pointers]
        params = (c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        sizes = (blocks, 1, 1, threads, 1, 1, 0)
        return self.hipModuleLaunchKernel(function, *sizes, stream, params, None)

    @contextmanager
    def capture(self, stream: int, mode: int = 0) -> Iterator[c_void_p]:
        """The captured graph is there when the block has ended."""
        graph = c_void_p()
        ok(self.hipStreamBeginCapture(stream, mode))
        yield graph
        ok(self.hipStreamEndCapture(stream, byref(graph)))


def ok(code: int) -> None:
    assert code == SUCCESS, f"HIP error {code}"


@functools.cache
def load() -> Hip:
    """In this process: a gfx942, everything in order."""
    return Hip(str(library_folder() / LIBRARY))


def run_with(options: str, program: str) -> str:
    """What a program prints in a process of its own with these options of the emulator."""
    tests = str(Path(__file__).parent)
    environment = os.environ | {"JAX_MLA_EMULATOR": options, "PYTHONPATH": tests}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
