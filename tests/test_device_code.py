# SPDX-License-Identifier: Apache-2.0
"""The compiled kernels that the extension holds, and rules for their sources."""

import hashlib
import os
import pathlib
import re

import pytest
from device_compiler import KERNELS, TARGETS, compile_to, needs_clang

from jax_mla import _native

pytestmark = pytest.mark.skipif(
    not _native.device_code(), reason="built without device code (JAX_MLA_DEVICE=none)"
)
# What toolkits and their users set, and compilers heed.
TOOLKIT_VARIABLES = ("CUDA", "ROCM", "HIP", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH")


def targets(source: str) -> tuple[str, ...]:
    """What a kernel is compiled for: one that is named for an architecture, for that alone."""
    return ("sm_90a",) if source.endswith("_sm90") else TARGETS


@pytest.mark.parametrize(
    ("source", "arch"),
    [(path.stem, arch) for path in sorted(KERNELS.glob("*.hip")) for arch in targets(path.stem)],
)
def test_every_kernel_is_there_for_its_targets(source: str, arch: str) -> None:
    digest, code = _native.device_code()[source, arch]
    assert hashlib.sha256(code).hexdigest() == digest
    if arch.startswith("gfx"):
        machine = {"gfx942": 0x4C, "gfx950": 0x4F}[arch]
        assert code[:4] == b"\x7fELF" and code[48] == machine  # the low byte of e_flags
    else:
        text = code.decode()
        assert text.endswith("\0")
        assert re.search(r"^\.version 8\.0$", text, re.MULTILINE)
        assert re.search(rf"^\.target {arch}$", text, re.MULTILINE)


def test_nothing_of_the_machine_is_in_them() -> None:
    """Paths would make the bytes depend on where they were built."""
    for _, code in _native.device_code().values():
        assert str(KERNELS.parent.parent).encode() not in code


def fake_toolkits(root: pathlib.Path) -> dict[str, str]:
    """A CUDA and a ROCm as clang finds them, unusable all through; and the variables for them."""
    unusable = "#error read from an installed toolkit\n"
    files = {
        "cuda/bin/ptxas": "#!/bin/sh\nexit 1\n",
        "cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.8.0"}}',
        "cuda/include/cuda.h": f"#define CUDA_VERSION 12080\n{unusable}",
        "cuda/nvvm/libdevice/libdevice.10.bc": "not bitcode",
        "rocm/bin/.hipVersion": "HIP_VERSION_MAJOR=6\nHIP_VERSION_MINOR=4\nHIP_VERSION_PATCH=1\n",
        "rocm/llvm/bin/clang": "#!/bin/sh\nexit 1\n",
    }
    for name in ("cuda_runtime", "crt/math_functions", "curand_mtgp32_kernel", "device", "stdint"):
        files[f"cuda/include/{name}.h"] = unusable
    for name in ("hip/hip_runtime", "__clang_hip_runtime_wrapper", "device", "stdint"):
        files[f"rocm/include/{name}.h"] = unusable
    versions = [f"oclc_isa_version_{arch[3:]}" for arch in TARGETS if arch.startswith("gfx")]
    for name in ("ocml", "ockl", "hip", "opencl", "oclc_abi_version_500", *versions):
        files[f"rocm/amdgcn/bitcode/{name}.bc"] = "not bitcode"
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    cuda, rocm = str(root / "cuda"), str(root / "rocm")
    return {
        "CUDA_PATH": cuda,
        "CUDA_HOME": cuda,
        "ROCM_PATH": rocm,
        "HIP_PATH": rocm,
        "HIP_DEVICE_LIB_PATH": f"{rocm}/amdgcn/bitcode",
        "CPATH": f"{cuda}/include:{rocm}/include",
        "PATH": f"{cuda}/bin:{rocm}/bin:{rocm}/llvm/bin:{os.environ['PATH']}",
    }


@pytest.mark.parametrize("arch", TARGETS)
def test_installed_toolkits_change_nothing(arch: str, tmp_path: pathlib.Path) -> None:
    needs_clang()
    without = {
        name: value for name, value in os.environ.items() if not name.startswith(TOOLKIT_VARIABLES)
    }
    codes = []
    for place, toolkits in (("without", {}), ("with", fake_toolkits(tmp_path))):
        output = tmp_path / place / f"merge.{arch}.{'co' if arch.startswith('gfx') else 'ptx'}"
        output.parent.mkdir()
        compile_to(output, KERNELS / "merge.hip", arch, without | toolkits)
        codes.append(output.read_bytes())
    assert codes[0] == codes[1]


@pytest.mark.parametrize(
    ("builtin", "home"),
    [("__builtin_amdgcn_s_barrier", "amdgcn.h"), ("__syncthreads", "nvptx.h")],
)
def test_barriers_are_made_in_one_place(builtin: str, home: str) -> None:
    """On AMD the bare one waits for no access to memory: a race that compiles without a word."""
    users = [path.name for path in KERNELS.iterdir() if builtin in path.read_text()]
    assert users == [home]
