# SPDX-License-Identifier: Apache-2.0
"""The instruction emulator from Python: NumPy arrays are device memory, code objects are launched.

machine = Machine("gfx942")
machine.register(x, "x")
code = machine.load(path)
counters = code.launch("kernel", grid=(4, 1, 1), block=(256, 1, 1), args=block)
"""

import ctypes
from collections.abc import Iterator, Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint32, c_uint64
from ctypes import c_void_p as pointer
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from emulator.build import LIBRARY, library_folder


class Fault(RuntimeError):
    """What the emulator reports: a launch that was ended, a code object that was refused."""


@dataclass(frozen=True)
class Traffic:
    """Bytes that one launch moved from and to one allocation; distinct ones count once."""

    name: str
    read_total: int
    written_total: int
    read_distinct: int
    written_distinct: int


@dataclass(frozen=True)
class Counters:
    """What one launch did. Instructions count once a wave; the families add up to them."""

    instructions: int
    scalar: int
    branch: int
    vector: int
    matrix: int
    lds: int
    vector_memory: int
    scalar_memory: int
    control: int
    barriers: int
    workgroups: int
    waves: int
    clipped_reads: int
    clipped_writes: int
    seconds: float
    traffic: dict[str, Traffic] = field(default_factory=dict)


@dataclass(frozen=True)
class Kernel:
    """One kernel of a code object, from its descriptor and metadata."""

    name: str
    kernarg_bytes: int
    explicit_bytes: int
    static_lds: int
    private_bytes: int
    max_workgroup_size: int
    sgprs: int
    vgprs: int
    agprs: int
    arguments: tuple[tuple[str, str, int, int], ...]  # name, kind, offset, size


class _KernelInfo(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        *((name, c_uint32) for name in list(Kernel.__dataclass_fields__)[1:]),
    ]


class _ArgumentInfo(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("kind", c_char_p), ("offset", c_uint32), ("size", c_uint32)]


class _Config(ctypes.Structure):
    _fields_ = [
        ("kernel", c_char_p),
        ("grid", c_uint32 * 3),
        ("block", c_uint32 * 3),
        ("dynamic_lds", c_uint32),
        ("kernarg", c_char_p),
        ("kernarg_bytes", c_size_t),
        ("extents", pointer),
        ("extent_count", c_size_t),
    ]


class _Extent(ctypes.Structure):
    _fields_ = [("ptr", pointer), ("bytes", c_size_t), ("name", c_char_p), ("access", c_int)]


class _Counters(ctypes.Structure):
    _fields_ = [
        *((name, c_uint64) for name in list(Counters.__dataclass_fields__)[:-2]),
        ("seconds", c_double),
    ]


class _Traffic(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("ptr", pointer),
        *((name, c_uint64) for name in list(Traffic.__dataclass_fields__)[1:]),
    ]


_FUNCTIONS = {
    "last_error": (c_char_p,),
    "create": (pointer,),
    "destroy": (None, pointer),
    "set_option": (c_int, pointer, c_char_p, c_int64),
    "register": (c_int, pointer, pointer, c_size_t, c_char_p, c_int),
    "unregister": (c_int, pointer, pointer),
    "mark_written": (c_int, pointer, pointer, c_size_t),
    "track": (c_int, pointer, pointer, pointer),
    "load": (pointer, pointer, c_char_p, c_size_t, c_char_p),
    "unload": (None, pointer),
    "arch": (c_char_p, pointer),
    "symbol": (pointer, pointer, c_char_p, POINTER(c_size_t)),
    "kernel_count": (c_size_t, pointer),
    "kernel": (c_int, pointer, c_size_t, POINTER(_KernelInfo)),
    "kernel_argument": (c_int, pointer, c_size_t, c_size_t, POINTER(_ArgumentInfo)),
    "launch": (c_int, pointer, POINTER(_Config), POINTER(_Counters)),
    "traffic_count": (c_size_t,),
    "traffic_at": (c_int, c_size_t, POINTER(_Traffic)),
    "disassemble": (c_size_t, pointer, c_uint64, c_char_p, c_size_t, POINTER(c_int)),
}


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_folder() / LIBRARY))
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(library, f"emu_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def _check(failed: int | bool) -> None:
    if failed:
        raise Fault(_library().emu_last_error().decode())


class Machine:
    """One emulated device. `options` are those of emu_set_option in isa/emu.h."""

    def __init__(self, arch: str, **options: int) -> None:
        self.arch = arch
        self._library = _library()
        self._context = self._library.emu_create()
        self._kept: dict[int, tuple[np.ndarray, ...]] = {}
        for name, value in options.items():
            _check(self._library.emu_set_option(self._context, name.encode(), int(value)))

    def __del__(self) -> None:
        if hasattr(self, "_context"):
            self._library.emu_destroy(self._context)

    def register(
        self, array: np.ndarray, name: str, writable: bool = True, written: bool = True
    ) -> np.ndarray:
        """Makes `array` device memory at its own address; `written`: its bytes have meaning."""
        address = array.ctypes.data
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} must be contiguous")
        _check(
            self._library.emu_register(
                self._context, address, array.nbytes, name.encode(), int(writable)
            )
        )
        if written:
            _check(self._library.emu_mark_written(self._context, address, array.nbytes))
        self._kept[address] = (array,)
        return array

    def unregister(self, array: np.ndarray) -> None:
        _check(self._library.emu_unregister(self._context, array.ctypes.data))
        del self._kept[array.ctypes.data]

    def track(self, array: np.ndarray) -> np.ndarray:
        """A map of the bytes that launches read (1) and write (2) in a registered array."""
        touched = np.zeros(array.nbytes, np.uint8)
        address = array.ctypes.data
        _check(self._library.emu_track(self._context, address, touched.ctypes.data))
        self._kept[address] += (touched,)
        return touched

    def track_arguments(self, size: int) -> np.ndarray:
        """The same map for the kernel argument block."""
        touched = np.zeros(size, np.uint8)
        _check(self._library.emu_track(self._context, None, touched.ctypes.data))
        self._kept[0] = (touched,)
        return touched

    def load(self, code: str | Path | bytes) -> "Module":
        """Loads an ELF code object or an offload bundle."""
        return Module(self, code if isinstance(code, bytes) else Path(code).read_bytes())


class Module:
    """A loaded code object."""

    def __init__(self, machine: Machine, code: bytes) -> None:
        self._machine, self._library = machine, machine._library
        self._module = self._library.emu_load(
            machine._context, code, len(code), machine.arch.encode()
        )
        _check(not self._module)
        self.kernels = {kernel.name: kernel for kernel in self._read_kernels()}

    def __del__(self) -> None:
        if getattr(self, "_module", None):
            self._library.emu_unload(self._module)

    def _read_kernels(self) -> Iterator[Kernel]:
        for index in range(self._library.emu_kernel_count(self._module)):
            info = _KernelInfo()
            _check(self._library.emu_kernel(self._module, index, byref(info)))
            values = {name: getattr(info, name) for name, _ in info._fields_}
            values["name"] = info.name.decode()
            values["arguments"] = tuple(self._read_arguments(index, info.arguments))
            yield Kernel(**values)

    def _read_arguments(self, kernel: int, count: int) -> Iterator[tuple[str, str, int, int]]:
        for index in range(count):
            info = _ArgumentInfo()
            _check(self._library.emu_kernel_argument(self._module, kernel, index, byref(info)))
            yield info.name.decode(), info.kind.decode(), info.offset, info.size

    def symbol(self, name: str) -> tuple[int, int]:
        """Address and size of a device variable."""
        size = c_size_t()
        address = self._library.emu_symbol(self._module, name.encode(), byref(size))
        _check(not address)
        return address, size.value

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: bytes,
        dynamic_lds: int = 0,
        extents: Sequence[tuple[np.ndarray, str, bool]] = (),
    ) -> Counters:
        """Runs a kernel; `grid` counts workgroups. Raises Fault with the report.

        `extents` (array, name, writable) confines the launch to parts of registered memory.
        """
        table = (_Extent * len(extents))(
            *((a.ctypes.data, a.nbytes, name.encode(), 1 | 2 * w) for a, name, w in extents)
        )
        config = _Config(
            kernel.encode(), grid, block, dynamic_lds, args, len(args),
            ctypes.cast(table, pointer), len(extents),
        )  # fmt: skip
        counters = _Counters()
        _check(self._library.emu_launch(self._module, byref(config), byref(counters)))
        values = {name: getattr(counters, name) for name, _ in counters._fields_}
        return Counters(**values, traffic={traffic.name: traffic for traffic in self._traffic()})

    def _traffic(self) -> Iterator[Traffic]:
        for index in range(self._library.emu_traffic_count()):
            entry = _Traffic()
            _check(self._library.emu_traffic_at(index, byref(entry)))
            values = {name: getattr(entry, name) for name in Traffic.__dataclass_fields__}
            yield Traffic(**values | {"name": entry.name.decode()})

    def disassemble(self) -> Iterator[tuple[int, str, bool]]:
        """Offset, text and whether it is implemented, for each instruction of the code."""
        text, offset, implemented = ctypes.create_string_buffer(256), 0, c_int()
        while size := self._library.emu_disassemble(
            self._module, offset, text, len(text), byref(implemented)
        ):
            yield offset, text.value.decode(), bool(implemented.value)
            offset += size
