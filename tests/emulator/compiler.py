# SPDX-License-Identifier: Apache-2.0
"""Compiles one kernel source for an AMD target or for the host, with the clang that PyPI carries.

The package is `ziglang`: its `zig clang` is a whole clang with the AMDGPU target, `zig ld.lld` its
linker. No HIP headers and no ROCm are involved; sources include `device.h` beside them.
"""

import hashlib
import importlib.metadata
import importlib.util
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

CACHE = Path(__file__).parents[2] / "build" / "emulator" / "kernels"

# Contraction would let the two sides of a comparison round differently.
COMMON = ("-std=c++17", "-ffp-contract=off", "-nostdinc", "-nostdinc++")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-function")  # PICK leaves one side unused
HIP = ("-x", "hip", "-target", "x86_64-linux-gnu", "--cuda-device-only", "-nogpulib", "-nogpuinc")
DEVICE = (*HIP, "-fuse-cuid=none", "-mcode-object-version=5", "-S")
# x86-64-v3 (CPUs since 2013) has fused multiply-add and half precision conversion.
HOST = ("-x", "c++", "-target", "x86_64-linux-gnu", "-march=x86-64-v3", "-fPIC", "-c")


def why_missing() -> str:
    """The reason why nothing can be compiled here; empty if it can."""
    return "" if importlib.util.find_spec("ziglang") else "no clang: pip install ziglang==0.17.1"


def device_code(
    source: Path, arch: str, level: int = 3, flags: Sequence[str] = (), headers: Path | None = None
) -> Path:
    """The code object of `source` for `arch` ("gfx942", "gfx950") at -O`level`.

    `headers` is a folder of further ones.
    """

    def build(folder: Path, output: Path) -> None:
        assembly, target = folder / "kernel.s", f"--offload-arch={arch}"
        include = ("-I", headers) if headers else ()
        _zig("clang", *DEVICE, target, *options, *include, source, "-o", assembly)
        _assemble(assembly, arch, output)

    options = (*COMMON, *WARNINGS, f"-O{level}", *flags)
    files = _files(source, headers)
    return _cached(f"{source.stem}-{arch}-O{level}", files, (arch, *DEVICE, *options), build)


def host_library(source: Path, level: int = 1) -> Path:
    """The same source as a shared library of plain C++ functions."""

    def build(folder: Path, output: Path) -> None:
        _zig("clang", *HOST, *options, source, "-o", folder / "host.o")
        _zig("ld.lld", "-shared", folder / "host.o", "-o", output)

    options = (*COMMON, *WARNINGS, f"-O{level}")
    return _cached(f"{source.stem}-host-O{level}", _files(source), (*HOST, *options), build)


def _files(source: Path, headers: Path | None = None) -> list[Path]:
    """All that goes into an output."""
    folders = [source.parent, *([headers] if headers else [])]
    return [source, *(header for folder in folders for header in sorted(folder.glob("*.h")))]


def _assemble(assembly: Path, arch: str, output: Path) -> None:
    # clang would hand -c for a device to a linker of its own, so each step is taken by hand.
    relocatable = assembly.with_suffix(".o")
    target = ("-target", "amdgcn-amd-amdhsa", f"-mcpu={arch}")
    _zig("clang", *target, "-c", assembly, "-o", relocatable)
    _zig("ld.lld", "-shared", relocatable, "-o", output)


def _zig(*command: str | Path) -> None:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise RuntimeError(why_missing())
    words = [str(Path(spec.origin).parent / "zig"), *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stderr}")


def _cached(
    name: str, files: Sequence[Path], key: Sequence[str], build: Callable[[Path, Path], None]
) -> Path:
    """The output for exactly these bytes and options; whole or absent, also with many processes."""
    digest = hashlib.sha256("\0".join((importlib.metadata.version("ziglang"), *key)).encode())
    for file in (*files, Path(__file__)):
        digest.update(file.read_bytes())
    output = CACHE / f"{name}-{digest.hexdigest()[:16]}"
    if not output.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            build(Path(folder), Path(folder) / "output")
            (Path(folder) / "output").replace(output)
    return output
