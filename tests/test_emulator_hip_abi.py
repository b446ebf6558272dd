# SPDX-License-Identifier: Apache-2.0
"""The numbers and layouts of HIP's binary interface, against HIP's own headers where they are."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

OURS = Path(__file__).parent / "emulator" / "hip"
INCLUDE = Path(os.environ.get("JAX_MLA_HIP_INCLUDE", "/opt/rocm/include"))

# Ours first: some of what it declares is a macro in HIP.
PROGRAM = """
#include <cstddef>
#include <cstdint>
namespace ours {{
#include "{ours}/abi_device.h"
}}
#define __HIP_PLATFORM_AMD__
#include <hip/hip_runtime_api.h>
{assertions}
"""


def assertions() -> Iterator[str]:
    """One for each enumerator, structure and field that ours has."""
    text = "".join((OURS / name).read_text() for name in ("abi.h", "abi_device.h"))
    text = re.sub(r"//.*", "", text)
    for body in re.findall(r"enum \w+(?: : int)? \{(.*?)\}", text, re.S):
        for name in re.findall(r"hip\w+|HIP_\w+", body):
            yield f"static_assert((int)::{name} == (int)ours::{name});"
    for struct, body in re.findall(r"struct (hip\w+) \{(.*?)\n\};", text, re.S):
        yield f"static_assert(sizeof(::{struct}) == sizeof(ours::{struct}));"
        fields = re.findall(r"(\w+)(?:\[\d+\])?(?=[,;])", body) if " : " not in body else []
        for field in (f for f in fields if not f.startswith("gap")):
            where = "offsetof({}, " + field + ")"
            yield f"static_assert({where.format(struct)} == {where.format('ours::' + struct)});"


@pytest.mark.skipif(
    not (INCLUDE / "hip/hip_runtime_api.h").exists(),
    reason="no HIP headers in JAX_MLA_HIP_INCLUDE or /opt/rocm/include",
)
def test_against_the_headers_of_hip(tmp_path: Path) -> None:
    lines = list(assertions())
    assert len(lines) > 150
    program = tmp_path / "abi.cpp"
    program.write_text(PROGRAM.format(ours=OURS, assertions="\n".join(lines)))
    command = ["g++", "-std=c++20", "-fsyntax-only", "-w", "-I", str(INCLUDE), str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]
