# SPDX-License-Identifier: Apache-2.0
"""Runs a test kernel on the emulated GPU and as plain C++ on the host, with the same arguments."""

import ctypes
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator import compiler
from emulator.machine import Machine

KERNELS = Path(__file__).parent / "emulator_kernels"
ARCHS = ("gfx942", "gfx950")
LEVELS = (0, 3)
# The kernel descriptor asks for flushed float32 denormals if this flag is given.
FLUSH = ("-fgpu-flush-denormals-to-zero",)
UNIFORM = ("-DUNIFORM",)
TYPES = {
    "u8": np.uint8,
    "i8": np.int8,
    "u32": np.uint32,
    "i32": np.int32,
    "u64": np.uint64,
    "i64": np.int64,
    "u16": np.uint16,
    "i16": np.int16,
    "f16": np.float16,
    "f32": np.float32,
    "f64": np.float64,
}

needs_compiler = pytest.mark.skipif(bool(compiler.why_missing()), reason=compiler.why_missing())
on_archs = pytest.mark.parametrize("arch", ARCHS)
on_levels = pytest.mark.parametrize("level", LEVELS, ids=lambda level: f"O{level}")

Argument = np.ndarray | np.generic


def run(
    arch: str,
    source: str,
    kernel: str,
    *arguments: Argument,
    grid: int = 1,
    block: int = 256,
    level: int = 3,
    flags: Sequence[str] = (),
    dynamic_lds: int = 0,
    **options: Any,
) -> Any:
    """Launch on the emulated GPU, all its checks at their strictest; arrays are device memory."""
    machine = Machine(arch, waits=2, uninitialised=True, **options)
    packed, registered = b"", set()
    for position, argument in enumerate(arguments):
        if isinstance(argument, np.ndarray):
            address = argument.ctypes.data
            if address not in registered:
                machine.register(argument, f"argument {position}")
                registered.add(address)
            argument = np.uint64(address)
        packed += bytes(-len(packed) % argument.nbytes) + argument.tobytes()
    code = machine.load(compiler.device_code(KERNELS / source, arch, level, flags))
    return code.launch(
        kernel, grid=(grid, 1, 1), block=(block, 1, 1), args=packed, dynamic_lds=dynamic_lds
    )


def run_on_host(
    source: str, kernel: str, *arguments: Argument, grid: int = 1, block: int = 256
) -> None:
    """The same launch as plain C++, one workgroup after the other."""
    library = _host_library(source)
    values = [
        ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else np.ctypeslib.as_ctypes(a)
        for a in arguments
    ]
    ctypes.c_uint32.in_dll(library, "host_block_size").value = block
    index = ctypes.c_uint32.in_dll(library, "host_block")
    for index.value in range(grid):
        library[kernel](*values)


@functools.cache
def _host_library(source: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(compiler.host_library(KERNELS / source)))


def items(source: str) -> list[tuple[str, str, str]]:
    """(name, input type, output type) of every ITEM line of a kernel source."""
    return re.findall(r"^ITEM\((\w+), (\w+), (\w+),", (KERNELS / source).read_text(), re.M)


def over_items(source: str) -> pytest.MarkDecorator:
    """One test per ITEM line, which gets it as `item`."""
    return pytest.mark.parametrize("item", items(source), ids=lambda item: item[0])


def poisoned(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
    """An output array in which every element not written shows."""
    array = np.empty(shape, dtype)
    array.view(np.uint8).fill(0xA5)
    return array


def bits(array: np.ndarray) -> np.ndarray:
    """The bit patterns, each NaN as one and the same: which NaN comes out is not promised."""
    if array.dtype.kind != "f":
        return array
    unsigned = np.dtype(f"u{array.itemsize}")
    one_nan = np.array(np.nan, array.dtype).view(unsigned)
    return np.where(np.isnan(array), one_nan, array.view(unsigned))


def assert_same(got: np.ndarray, wanted: np.ndarray, *inputs: np.ndarray) -> None:
    """Bit for bit; shows the first few differences with the inputs that led there."""
    __tracebackhide__ = True
    wrong = np.flatnonzero(bits(got).ravel() != bits(wanted).ravel())
    if wrong.size:
        report = [f"{wrong.size} of {got.size} differ"]
        for i in wrong[:5]:
            given = [array.ravel()[i] for array in inputs]
            report.append(f"{given}: got {got.ravel()[i]!r}, wanted {wanted.ravel()[i]!r}")
        pytest.fail("\n".join(report))


def triples(
    values: np.ndarray, extra: int, third: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, ...]:
    """x, y and z: every combination of special values, then `extra` random bit patterns.

    `third` are the values that z takes, if not all.
    """
    random = np.random.default_rng(seed)
    grid = np.meshgrid(values, values, values if third is None else third)
    special = np.stack(grid, -1).reshape(-1, 3)
    noise = random.integers(0, 256, (extra, 3 * values.itemsize), np.uint8).view(values.dtype)
    return tuple(np.ascontiguousarray(column) for column in np.concatenate([special, noise]).T)


def compare_item(
    source: str,
    item: tuple[str, str, str],
    arch: str,
    level: int,
    inputs: Sequence[np.ndarray],
    uniform: bool = False,
) -> None:
    """Emulated GPU and host must agree on one ITEM for every triple of inputs.

    `uniform` gives a wave one triple at a time, so that its scalar unit computes.
    """
    name, _, output = item
    count = inputs[0].size
    got, wanted = poisoned(count, TYPES[output]), poisoned(count, TYPES[output])
    grid, block, flags = -(-count // 256), 64 if uniform else 256, UNIFORM if uniform else ()
    run(arch, source, name, *inputs, got, np.uint32(count), grid=grid, block=block, level=level,
        flags=flags)  # fmt: skip
    run_on_host(source, name, *inputs, wanted, np.uint32(count), grid=grid)
    assert_same(got, wanted, *inputs)
