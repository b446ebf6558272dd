# SPDX-License-Identifier: Apache-2.0
"""The table of AITER's kernels: well-formed, and in step with a checkout where there is one."""

import hashlib
import os
import pathlib
import re

import pytest

from jax_mla import kernels


def test_rows_are_well_formed() -> None:
    for k in kernels.TABLE:
        assert k.arch in kernels.ARCHES and k.mode in kernels.MODES
        assert {k.q_dtype, k.kv_dtype} <= {"bf16", "fp8"}
        assert k.q_lens and all(n >= 1 for n in k.q_lens)
        # One workgroup holds the rows of a group, or of a few of its tokens.
        assert k.rows % k.heads == 0 and k.kv_block & (k.kv_block - 1) == 0
        assert k.kv_block >= 16 >= max(k.q_lens)
        assert k.whole_out in ("f32", "bf16", "fault") and k.address_bits in (32, 64)
        assert k.kv_scale in (("applied", "scores") if k.kv_dtype == "fp8" else ("-",))
        assert k.evidence in ("emulated", "doubtful", "disassembly")
        assert k.row_argument in ("heads", "rows")
        assert re.fullmatch("[0-9a-f]{64}", k.sha256)


def test_one_row_for_each_use_of_a_code_object() -> None:
    uses = [(k.sha256, k.heads, n) for k in kernels.TABLE for n in k.q_lens]
    assert len(uses) == len(set(uses))
    names = {(k.arch, k.file): k.sha256 for k in kernels.TABLE}
    assert len(set(names.values())) == len(names)
    assert all(names[k.arch, k.file] == k.sha256 for k in kernels.TABLE)


def test_nothing_denied_is_in_the_table() -> None:
    denied = {d.sha256 for d in kernels.DENIED}
    assert len(denied) == len(kernels.DENIED)
    assert not denied & {k.sha256 for k in kernels.TABLE}
    assert all(d.reason and d.arch in kernels.ARCHES for d in kernels.DENIED)


def test_what_has_not_run_is_not_selectable() -> None:
    assert {k.evidence for k in kernels.TABLE if k.selectable} == {"emulated"}
    assert any(not k.selectable for k in kernels.TABLE)


def test_one_split_only_where_the_partial_result_is_whole() -> None:
    fewest = {(k.arch, k.file): k.min_splits for k in kernels.TABLE if k.mode == "split"}
    assert fewest.pop(("gfx942", "mla_dec_stage1_bf16_a16w16_subQ16_mqa16")) == 1
    assert fewest.pop(("gfx950", "mla_dec_stage1_bf16_a16w16_subQ16_mqa16")) == 1
    assert set(fewest.values()) == {2}


@pytest.mark.skipif(
    "JAX_MLA_AITER_DIR" not in os.environ, reason="no AITER: JAX_MLA_AITER_DIR names no hsa folder"
)
@pytest.mark.parametrize("arch", kernels.ARCHES)
def test_every_code_object_of_a_checkout_is_known(arch: str) -> None:
    """Of AITER e4048607a5 (2026-08-22), which the table was made from."""
    known = {k.sha256: k.file for k in kernels.TABLE if k.arch == arch}
    known |= {d.sha256: d.file for d in kernels.DENIED if d.arch == arch}
    folder = pathlib.Path(os.environ["JAX_MLA_AITER_DIR"]) / arch / "mla"
    there = {hashlib.sha256(f.read_bytes()).hexdigest(): f.stem for f in folder.glob("*.co")}
    assert there == known
