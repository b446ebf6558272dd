# SPDX-License-Identifier: Apache-2.0
"""The stand-ins do what AITER's decode kernels were recorded to do; and so do AITER's."""

import shutil
from pathlib import Path
from typing import Any

import aiter_decode
import conformance
import pytest
import record_conformance
import stand_ins
from conformance import cases
from conformance.compare import Comparison
from conformance.observe import OURS, THEIRS, arguments, observe

from jax_mla.kernels import Kernel

FILES = list(conformance.files())
each_file = pytest.mark.parametrize(
    ("arch", "file"), FILES, ids=["-".join(names) for names in FILES]
)
needs_aiter = pytest.mark.skipif(
    aiter_decode.folder() is None, reason="no AITER: JAX_MLA_AITER_DIR names no hsa folder"
)


def compare(arch: str, file: str, root: Path | None, options: dict[str, int]) -> Comparison:
    vector, comparison = conformance.load(arch, file), Comparison()
    for row in conformance.files()[arch, file]:
        for case in cases.of(row):
            comparison.add(case, vector["cases"][case.name], observe(case, root, **options))
    return comparison


def test_each_code_object_has_its_vector() -> None:
    vectors = {path.name for path in conformance.FOLDER.glob("*.json")}
    assert vectors == {conformance.path(*names).name for names in FILES}
    for names, (row, *_) in conformance.files().items():
        vector = conformance.load(*names)
        assert (vector["sha256"], vector["recorder"]) == (row.sha256, record_conformance.VERSION)


@pytest.fixture(scope="module")
def folder() -> Path:
    return stand_ins.folder()


@each_file
def test_stand_in(arch: str, file: str, folder: Path) -> None:
    comparison = compare(arch, file, folder, OURS)
    assert comparison.conforms, comparison


@each_file
def test_stand_in_heeds_the_same_arguments(arch: str, file: str, folder: Path) -> None:
    """And reads none that AITER's kernel may not be given."""
    case = cases.for_arguments(conformance.files()[arch, file][0])
    want, got = conformance.load(arch, file)["arguments"], arguments(case, folder, **OURS)
    assert got["matter"] == want["matter"]
    assert set(got["read"].split()) <= set(want["read"].split())


@needs_aiter
@each_file
def test_aiter(arch: str, file: str) -> None:
    """The vectors are those of the code objects at hand, and everything in them comes out again."""
    comparison = compare(arch, file, None, THEIRS)
    assert not comparison.wrong and comparison.rounded == 0, comparison


@needs_aiter
@each_file
def test_aiter_heeds_the_same_arguments(arch: str, file: str) -> None:
    case = cases.for_arguments(conformance.files()[arch, file][0])
    assert arguments(case, None, **THEIRS) == conformance.load(arch, file)["arguments"]


SPLIT = ("gfx942", "mla_dec_stage1_bf16_a16w16_subQ16_mqa16")
FOUR = ("gfx942", "mla_a16w16_qh16_m16x4_n16x1_coex0_mask1")
WORKS = ("gfx942", "mla_a16w16_qh16_m16x4_n16x1_coex0_mask1_ps")
FP8 = ("gfx942", "mla_a8w8_qh16_qseqlen2_gqaratio16")
SIGNED = ("gfx950", "mla_a16w16_qh32_qseqlen4_gqaratio32_ps")
WIDE = ("gfx950", "mla_a16w16_qh64_qseqlen1_gqaratio64_v3")

# A kernel, what is wrong with it, and where that shows.
FAULTS: list[tuple[tuple[str, str], Any, str]] = [
    (SPLIT, {"KV_BLOCK": 32}, "rows of out that are written"),
    (SPLIT, {"HEADS": 16}, "expected results, got outside"),
    (SPLIT, {"WIDE": 1}, "expected results, got outside"),
    (SPLIT, {"HIDES_NAN": 1}, "pool nan"),
    (SPLIT, ("score_scale * kLog2E", "score_scale * 1.443f"), "partial"),
    (SPLIT, ("span.seen + span.query", "span.seen - 1 + span.query"), "partial"),
    (SPLIT, ("(c * 4 + part()) * kChunk", "((c * 4 + part()) * kChunk) % 512"), "partial"),
    (FOUR, {"UNSEEN_IS_NAN": 1}, "expected unseen 0 unseen -inf, got unseen nan unseen nan"),
    (FOUR, {"WHOLE_BF16": 0}, "splits 1: expected results, got outside"),
    (WORKS, ("return;  // and drops", "continue;  // and drops"), "rows of out that are written"),
    (WORKS, {"WHOLE_LSE": 1}, "final, rows of lse that are written"),
    (FP8, {"SCALED": 0}, "partial"),
    (SIGNED, {"LAST_QUERY_BY_INDPTR": 0}, "not numbered"),
    (SIGNED, {"SIGNED_MASK": 0}, "expected unseen 0 - -, got unseen finite - -"),
    (WIDE, {"WIDE": 0}, "expected outside, got results"),
]


@pytest.mark.parametrize(("names", "fault", "where"), FAULTS, ids=[str(f[1]) for f in FAULTS])
def test_faults_are_found(names: tuple[str, str], fault: Any, where: str, tmp_path: Path) -> None:
    (row, *_) = conformance.files()[names]
    comparison = compare(*names, _folder_of_faulty(row, fault, tmp_path), OURS)
    assert not comparison.conforms
    assert any(where in wrong for wrong in comparison.wrong), comparison


def _folder_of_faulty(row: Kernel, fault: Any, tmp_path: Path) -> Path:
    """One stand-in in it: with other macros, or with another text in the source."""
    source, macros = stand_ins.SOURCE, fault
    if isinstance(fault, tuple):
        text, macros = source.read_text(), {}
        assert text.count(fault[0]) == 1
        source = shutil.copytree(source.parent, tmp_path / "faulty") / source.name
        source.write_text(text.replace(*fault))
    place = tmp_path / row.arch / "mla" / f"{row.file}.co"
    place.parent.mkdir(parents=True)
    shutil.copyfile(stand_ins.code_object(row, source, **macros), place)
    return tmp_path


def test_arguments_that_do_not_matter_are_found(tmp_path: Path) -> None:
    (row, *_) = conformance.files()[FOUR]
    folder = _folder_of_faulty(row, {"SPLITS_BY_PLAN": 0}, tmp_path)
    got = arguments(cases.for_arguments(row), folder, **OURS)
    assert got["matter"] != conformance.load(*FOUR)["arguments"]["matter"]
