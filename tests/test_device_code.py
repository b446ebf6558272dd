# SPDX-License-Identifier: Apache-2.0
"""The compiled kernels that the extension holds, and rules for their sources."""

import hashlib
import pathlib
import re

import pytest

from jax_mla import _native

pytestmark = pytest.mark.skipif(
    not _native.device_code(), reason="built without device code (JAX_MLA_DEVICE=none)"
)
KERNELS = pathlib.Path(__file__).parent.parent / "csrc/kernels"
TARGETS = ("gfx942", "gfx950", "sm_80", "sm_90a")


@pytest.mark.parametrize("arch", TARGETS)
@pytest.mark.parametrize("source", [path.stem for path in sorted(KERNELS.glob("*.hip"))])
def test_every_kernel_is_there_for_every_target(source: str, arch: str) -> None:
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


@pytest.mark.parametrize(
    ("builtin", "home"),
    [("__builtin_amdgcn_s_barrier", "amdgcn.h"), ("__syncthreads", "nvptx.h")],
)
def test_barriers_are_made_in_one_place(builtin: str, home: str) -> None:
    """On AMD the bare one waits for no access to memory: a race that compiles without a word."""
    users = [path.name for path in KERNELS.iterdir() if builtin in path.read_text()]
    assert users == [home]
