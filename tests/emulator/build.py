# SPDX-License-Identifier: Apache-2.0
"""Builds the emulator's libraries with CMake, once for each state of the sources."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from emulator import jax_plugin

SOURCES = Path(__file__).parent
BUILD = SOURCES.parents[1] / "build" / "emulator"
LIBRARY = "libamdhip64.so.7"


def library_folder(*options: str) -> Path:
    """The folder that holds the built libraries; `options` are more arguments for CMake.

    Parallel test processes build once: the others wait for the lock.
    """
    if not _host_is_x86_64_v3():
        options = ("-DEMULATOR_X86_64_V3=OFF", *options)
    consumers = ";".join(map(str, jax_plugin.shared_objects()))
    options = (f"-DEMULATOR_CONSUMERS={consumers}", *options)
    digest = hashlib.sha256()
    for part in (*options, jax_plugin.version() or "", *_source_bytes()):
        digest.update(part.encode() if isinstance(part, str) else part)
    folder = BUILD / digest.hexdigest()[:16]
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _build(folder, options)
    return folder


def _host_is_x86_64_v3() -> bool:
    flags = Path("/proc/cpuinfo").read_text().split()
    return {"avx2", "fma", "f16c", "bmi2"} <= set(flags)


def _source_bytes() -> Iterator[bytes]:
    """All but the Python package itself and what is written about it."""
    for path in sorted([SOURCES / "CMakeLists.txt", *SOURCES.glob("*/**/*")]):
        if path.is_file() and "__pycache__" not in path.parts:
            yield str(path.relative_to(SOURCES)).encode()
            yield path.read_bytes()


def _build(folder: Path, options: tuple[str, ...]) -> None:
    scripts = str(Path(sys.executable).parent)  # where pip puts programs
    if not (cmake := shutil.which("cmake", path=scripts) or shutil.which("cmake")):
        raise RuntimeError("the emulator needs CMake and a C++20 compiler; there is no cmake")
    _run(cmake, "-S", str(SOURCES), "-B", str(folder), *options)
    _run(cmake, "--build", str(folder), "-j", "2")
    (folder / "complete").touch()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


if __name__ == "__main__":
    print(library_folder(*sys.argv[1:]))
