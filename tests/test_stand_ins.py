# SPDX-License-Identifier: Apache-2.0
"""The folder of stand-ins: to whoever looks for AITER's kernels it is one of AITER's."""

import csv
import hashlib
import stat
from pathlib import Path

import aiter_decode
import pytest
import stand_ins
from emulator.machine import Machine
from test_kernels_run import check, worst

from jax_mla import kernels

SMALL = [k for k in kernels.TABLE if k.heads == 16 and k.selectable]


@pytest.fixture(scope="module", params=kernels.ARCHES)
def arch(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def mla(arch: str) -> Path:
    return stand_ins.folder() / arch / "mla"


def test_every_kernel_that_jax_mla_would_use_is_there(arch: str, mla: Path) -> None:
    wanted = {k.file for k in kernels.TABLE if k.arch == arch and k.selectable}
    assert {path.stem for path in mla.glob("*.co")} == wanted
    rows = list(csv.DictReader((mla / "mla_asm.csv").read_text().splitlines()))
    assert {row["co_name"] for row in rows} == {f"{file}.co" for file in wanted}
    assert ("cprr" in rows[0]) == (arch == "gfx950")  # as in AITER's
    for row in rows:
        assert list(Machine(arch).load(mla / row["co_name"]).kernels) == [row["knl_name"]]


def test_code_objects_are_such_as_aiters(arch: str, mla: Path) -> None:
    for path in mla.glob("*.co"):
        (kernel,) = Machine(arch).load(path).kernels.values()
        assert 208 <= kernel.kernarg_bytes <= 384, path
        assert kernel.explicit_bytes == kernel.kernarg_bytes, path  # no hidden arguments
        assert kernel.private_bytes == 0, f"{path}: registers are spilled"
        assert kernel.static_lds <= 65536 and kernel.max_workgroup_size == 256, path


def test_none_passes_for_aiters(mla: Path) -> None:
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in mla.glob("*.co")}
    assert not digests & {row.sha256 for row in (*kernels.TABLE, *kernels.DENIED)}


def test_nobody_else_may_write(mla: Path) -> None:
    for path in (mla.parents[1], mla.parent, mla, *mla.iterdir()):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o644), path


def test_folder_of_one_arch() -> None:
    root = stand_ins.folder(["gfx950"])
    assert [path.name for path in root.iterdir()] == ["gfx950"]


@pytest.mark.parametrize(("mode", "limit"), [("split", 40_000), ("persistent", 120_000)])
def test_a_thousand_tokens_take_milliseconds(arch: str, mode: str, limit: int) -> None:
    """Some 2 million wave instructions are emulated in a second."""
    row = kernels.select(arch, aiter_decode.BF16, aiter_decode.BF16, mode, 1, 16)
    kernel = aiter_decode.of_row(row, 1, stand_ins.folder())
    problem = aiter_decode.Problem(kernel, [1000], seed=0)
    if mode == "split":
        aiter_decode.launch_split(problem, 2, max_instructions=limit)
    else:
        aiter_decode.launch_persistent(problem, [[]], 1, max_instructions=limit)


@pytest.mark.parametrize("row", SMALL, ids=[f"{row.arch}-{row.file}" for row in SMALL])
def test_right(row: kernels.Kernel) -> None:
    """Against float64, as AITER's are held to it; with many blocks, which the vectors have not."""
    check(row, worst(row, row.q_lens[-1], stand_ins.folder()))
