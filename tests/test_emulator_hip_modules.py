# SPDX-License-Identifier: Apache-2.0
"""The emulated HIP runtime: code objects in every packing, launches, and the plugin's imports."""

import ctypes
import re
import struct
import subprocess
import zlib
from collections.abc import Iterator
from ctypes import byref, c_void_p
from pathlib import Path

import hip
import numpy as np
import pytest
from emulator import compiler, jax_plugin
from emulator.build import LIBRARY, library_folder

pytestmark = pytest.mark.skipif(bool(compiler.why_missing()), reason=compiler.why_missing())

KERNELS = Path(__file__).with_name("emulator_kernels") / "jax_calls.hip"
COUNT = 128


@pytest.fixture
def device() -> Iterator[hip.Hip]:
    device = hip.load()
    device.runtime.take_reports()
    yield device
    device.runtime.take_reports()


def code(arch: str = "gfx942") -> bytes:
    return compiler.device_code(KERNELS, arch).read_bytes()


def bundle(**entries: bytes) -> bytes:
    """clang's offload bundle: a table of offset, size and name, then the code."""
    names = [f"hipv4-amdgcn-amd-amdhsa--{arch}".encode() for arch in entries]
    header = b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", len(entries))
    offset = len(header) + sum(24 + len(name) for name in names)
    body = b""
    for name, content in zip(names, entries.values(), strict=True):
        header += struct.pack("<QQQ", offset + len(body), len(content), len(name)) + name
        body += content
    return header + body


def compressed(content: bytes, version: int) -> bytes:
    """The same, compressed with zlib; sizes have 32 bits in version 2 and 64 in version 3."""
    packed, sizes = zlib.compress(content), "<IIQ" if version == 2 else "<QQQ"
    length = 8 + struct.calcsize(sizes) + len(packed)
    return (
        b"CCOB" + struct.pack("<HH", version, 0) + struct.pack(sizes, length, len(content), 0)
        + packed
    )  # fmt: skip


def run_increment(device: hip.Hip, image: bytes) -> np.ndarray:
    module = device.make("hipModuleLoadData", image)
    function = device.make("hipModuleGetFunction", module, b"increment")
    x = device.to_device(np.arange(COUNT, dtype=np.int32))
    y = device.to_device(np.full(COUNT, -1, np.int32))
    hip.ok(device.launch(function, COUNT // 64, 64, 0, x, y))
    hip.ok(device.hipModuleUnload(module))
    return device.to_host(y, COUNT)


@pytest.mark.parametrize("packing", ["elf", "bundle", "zlib 2", "zlib 3"])
def test_a_kernel_from_every_packing(device: hip.Hip, packing: str) -> None:
    image = code()
    if packing != "elf":
        image = bundle(gfx950=code("gfx950"), gfx942=image)
    if packing.startswith("zlib"):
        image = compressed(image, int(packing[-1]))
    np.testing.assert_array_equal(run_increment(device, image), np.arange(COUNT) + 1)


@pytest.mark.parametrize("arch", ["gfx950", "gfx942:xnack+"])
def test_a_bundle_for_another_device(device: hip.Hip, arch: str) -> None:
    module = c_void_p()
    image = bundle(**{arch: code("gfx950")})
    assert device.hipModuleLoadData(byref(module), image) == hip.INVALID_IMAGE
    assert f"has hipv4-amdgcn-amd-amdhsa--{arch}" in device.runtime.take_reports()


def test_what_is_no_image(device: hip.Hip) -> None:
    assert device.hipModuleLoadData(byref(c_void_p()), bytes(64)) == hip.INVALID_IMAGE
    assert "neither an ELF file" in device.runtime.take_reports()


def test_arguments_as_one_block(device: hip.Hip) -> None:
    """HIP's `extra`, as hand-written kernels are launched."""
    module = device.make("hipModuleLoadData", code())
    function = device.make("hipModuleGetFunction", module, b"increment")
    x = device.to_device(np.arange(64, dtype=np.int32))
    y = device.to_device(np.zeros(64, np.int32))
    block = ctypes.create_string_buffer(struct.pack("<QQ", x, y), 16)
    size = ctypes.c_size_t(16)
    extra = (c_void_p * 5)(1, ctypes.addressof(block), 2, ctypes.addressof(size), 3)
    sizes = (1, 1, 1, 64, 1, 1, 0)
    hip.ok(device.hipModuleLaunchKernel(function, *sizes, None, None, extra))
    np.testing.assert_array_equal(device.to_host(y, 64), np.arange(64) + 1)


def test_a_name_that_is_not_there(device: hip.Hip) -> None:
    module = device.make("hipModuleLoadData", code())
    function = c_void_p()
    assert device.hipModuleGetFunction(byref(function), module, b"nothing") == hip.NOT_FOUND


def test_an_overrun_of_an_allocation(device: hip.Hip) -> None:
    """Alone in its allocation a buffer needs no declared extent."""
    module = device.make("hipModuleLoadData", code())
    function = device.make("hipModuleGetFunction", module, b"overrun")
    x = device.to_device(np.arange(64, dtype=np.int32))
    y = device.to_device(np.zeros(64, np.int32))
    assert device.launch(function, 1, 64, 0, x, y) == hip.LAUNCH_FAILURE
    report = device.runtime.take_reports()
    assert "overrun" in report
    assert "0 bytes past the end of '256 bytes of device memory (device 0)'" in report
    room = device.to_device(np.zeros(65, np.int32))
    hip.ok(device.launch(function, 1, 64, 0, x, room))


def test_freed_memory_is_no_longer_the_kernels(device: hip.Hip) -> None:
    module = device.make("hipModuleLoadData", code())
    function = device.make("hipModuleGetFunction", module, b"increment")
    x = device.to_device(np.arange(64, dtype=np.int32))
    y = device.to_device(np.zeros(64, np.int32))
    hip.ok(device.hipFree(y))
    assert device.launch(function, 1, 64, 0, x, y) == hip.LAUNCH_FAILURE


def test_memory_that_nothing_has_written() -> None:
    """On request a report; a copy to the device counts as writing, of just what it copies."""
    program = """
import hip, numpy as np
from test_emulator_hip_modules import code
device = hip.load()
module = device.make("hipModuleLoadData", code())
function = device.make("hipModuleGetFunction", module, b"increment")
x, y, host = device.malloc(256), device.malloc(256), np.zeros(64, np.int32)
hip.ok(device.hipMemcpy(x, host.ctypes.data, 252, 0))
print(device.launch(function, 1, 64, 0, x, y))
hip.ok(device.hipMemsetD32Async(x + 252, 7, 1, None))
print(device.launch(function, 1, 64, 0, x, y), device.launch(function, 1, 64, 0, y, x))
"""
    codes = hip.run_with("uninitialised=1", program).split()
    assert codes == [str(hip.LAUNCH_FAILURE), str(hip.SUCCESS), str(hip.SUCCESS)]
    assert hip.run_with("uninitialised=0", program).split() == [str(hip.SUCCESS)] * 3


def test_a_module_of_variables_alone(device: hip.Hip) -> None:
    """XLA keeps its constants in modules without a kernel."""
    constants = KERNELS.with_name("constants.hip")
    image = compiler.device_code(constants, "gfx942").read_bytes()
    module = device.make("hipModuleLoadData", image)
    address, size = c_void_p(), ctypes.c_size_t()
    hip.ok(device.hipModuleGetGlobal(byref(address), byref(size), module, b"table"))
    assert size.value == 16
    assert device.to_host(address.value or 0, 4).tolist() == [3, 1, 4, 1]
    assert device.hipModuleGetGlobal(None, None, module, b"chair") == hip.NOT_FOUND


def test_a_fat_binary_of_the_plugin(device: hip.Hip) -> None:
    """Compressed with zstd, for many devices."""
    plugin = [file for file in jax_plugin.shared_objects() if file.stem == "_prng"]
    if not plugin:
        pytest.skip("no ROCm plugin of JAX is installed")
    content = plugin[0].read_bytes()
    image = content[content.index(b"CCOB") :]
    module = device.make("hipModuleLoadData", image)
    assert device.hipModuleUnload(module) == hip.SUCCESS


def test_every_hip_function_that_the_plugin_imports() -> None:
    """By name and version: the loader would find out only when one is called."""
    plugin = jax_plugin.shared_objects()
    if not plugin:
        pytest.skip("no ROCm plugin of JAX is installed")
    imported = symbols("--undefined-only", *plugin)
    exported = symbols("--defined-only", library_folder() / LIBRARY)
    wanted = {s for s in imported if re.match(r"_*hip[A-Z]\w*(@|$)", s)}
    wanted = {s for s in wanted if "@" in s}
    assert len(wanted) > 80
    assert wanted <= {s.replace("@@", "@") for s in exported}


def symbols(which: str, *files: Path) -> set[str]:
    command = ["nm", "--dynamic", which, *map(str, files)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {words[-1] for line in listing.splitlines() if len(words := line.split()) > 1}
