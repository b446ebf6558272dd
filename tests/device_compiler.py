# SPDX-License-Identifier: Apache-2.0
"""Compiles kernels of the tests with the package's own tool and flags, for every target."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KERNELS = ROOT / "csrc/kernels"
TOOL = ROOT / "cmake/device_code.py"
CACHE = ROOT / "build/test-kernels"
TARGETS = ("gfx942", "gfx950", "sm_80", "sm_90a")


@functools.cache
def device_code(source: Path, arch: str) -> bytes:
    """What a driver loads of `source`; skips where there is neither a clang nor a compiled file.

    JAX_MLA_TEST_DEVICE_DIR names a folder of files compiled elsewhere, <name>.<arch>.co or .ptx.
    """
    kind = "co" if arch.startswith("gfx") else "ptx"
    compiled = os.environ.get("JAX_MLA_TEST_DEVICE_DIR")
    if compiled is not None:
        code = (Path(compiled) / f"{source.stem}.{arch}.{kind}").read_bytes()
    else:
        code = _compile_once(source, arch, kind)
    return code + b"\0" if kind == "ptx" else code  # the driver wants a C string


def needs_clang() -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("no clang: pip install ziglang==0.17.1")


def compile_to(output: Path, source: Path, arch: str, environment: Mapping[str, str]) -> None:
    """Runs the tool, which fails where a kernel spills or needs newer PTX."""
    command = [sys.executable, TOOL, "--arch", arch, "--source", source, "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def _compile_once(source: Path, arch: str, kind: str) -> bytes:
    """The output for exactly these sources; whole or absent, also with many processes."""
    needs_clang()
    digest = hashlib.sha256(importlib.metadata.version("ziglang").encode())
    for file in (source, TOOL, *sorted(KERNELS.glob("*.h"))):
        digest.update(file.read_bytes())
    output = CACHE / f"{source.stem}-{digest.hexdigest()[:16]}.{arch}.{kind}"
    if not output.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            made = Path(folder) / f"code.{kind}"
            compile_to(made, source, arch, os.environ)
            made.replace(output)
    return output.read_bytes()
