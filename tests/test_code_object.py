# SPDX-License-Identifier: Apache-2.0
"""The reader of code objects: what it finds, what it refuses, and that nothing makes it stumble."""

import os
import pathlib
import random
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from made_elf import MACHINES, SYMBOL, MadeElf, pack

from jax_mla import code_object
from jax_mla.code_object import KernelImage, Malformed


class Guarded(bytes):
    """Bytes whose slices must lie inside: a Python slice that does not is cut short in silence."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            assert 0 <= key.start <= key.stop <= len(self)
        return super().__getitem__(key)


@pytest.mark.parametrize("arch", MACHINES)
def test_reads_a_good_one(arch: str) -> None:
    content = MadeElf(header={"flags": MACHINES[arch]}).build()
    assert code_object.read(content) == KernelImage(arch, SYMBOL, 288, 65536, 0, 64)


def test_reads_every_encoding_of_values() -> None:
    """More than the small forms, which is all that a small file would have."""
    long = {f"k{i}": [None, True, False, -1, -40000, 1.5, b"ab", "x" * 300, i] for i in range(40)}
    wide = [{"a": 200, "b": 40000, "c": 1 << 20, "d": 1 << 40}] * 300
    content = MadeElf(kernel={".more": long, ".wide": wide}).build()
    assert code_object.read(content).kernarg_bytes == 288


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"header": {"magic": 0}}, "expected a 64-bit little-endian ELF file"),
        ({"header": {"class": 1}}, "expected a 64-bit little-endian ELF file"),
        ({"header": {"data": 2}}, "expected a 64-bit little-endian ELF file"),
        ({"header": {"osabi": 0}}, "expected a linked code object.*got 0, 3, 224"),
        ({"header": {"type": 1}}, "expected a linked code object.*got 64, 1, 224"),
        ({"header": {"machine": 62}}, "expected a linked code object.*got 64, 3, 62"),
        ({"header": {"flags": 0x53F}}, r"unknown GPU \(ELF machine flag 0x3f\)"),
        ({"header": {"phoff": 1 << 63}}, "program headers: beyond the end"),
        ({"header": {"phentsize": 55}}, "program headers: expected 56 bytes each, got 55"),
        ({"header": {"phnum": 65535}}, "program headers: beyond the end"),
        ({"header": {"phnum": 0}}, "expected one segment of notes, got 0"),
        ({"header": {"shoff": 1 << 63}}, "section headers: beyond the end"),
        ({"header": {"shentsize": 40}}, "section headers: expected 64 bytes each, got 40"),
        ({"header": {"shnum": 0}}, "expected one table of dynamic symbols, got 0"),
        ({"note_segments": 2}, "expected one segment of notes, got 2"),
        ({"notes": 0}, "expected one note of AMDGPU metadata, got 0"),
        ({"notes": 2}, "expected one note of AMDGPU metadata, got 2"),
        ({"note": (b"AMD\0", 32)}, "expected one note of AMDGPU metadata, got 0"),
        ({"note": (b"AMDGPU\0", 10)}, "expected one note of AMDGPU metadata, got 0"),
        ({"metadata": pack({})}, "metadata: no amdhsa.kernels of type list"),
        ({"metadata": pack([])}, "metadata: no amdhsa.kernels of type list"),
        ({"metadata": pack({"amdhsa.kernels": [3]})}, "metadata: no .name of type str"),
        ({"metadata": b""}, "metadata: beyond the end"),
        ({"metadata": pack({}) + b"\0"}, "metadata: more bytes than it should have"),
        ({"metadata": b"\xc1"}, "metadata: unexpected MessagePack byte 0xc1"),
        ({"metadata": b"\xd4\0\0"}, "metadata: unexpected MessagePack byte 0xd4"),
        ({"metadata": b"\x91" * 40}, "metadata: nested deeper than 16"),
        ({"metadata": b"\xdd\xff\xff\xff\xff\0"}, "metadata: beyond the end"),
        ({"metadata": b"\xdb\xff\xff\xff\xff\0"}, "metadata: beyond the end"),
        ({"metadata": b"\xa2\xff\xff"}, "metadata: a text is not UTF-8"),
        ({"metadata": b"\x82\xa1a\0\xa1a\0"}, "expected texts as keys, each once, got 'a'"),
        ({"metadata": b"\x81\x90\0"}, r"expected texts as keys, each once, got \[\]"),
        ({"kernels": 0}, "metadata: expected one kernel, got 0"),
        ({"kernels": 2}, "metadata: expected one kernel, got 2"),
        ({"kernel": {".name": None}}, "metadata: no .name of type str"),
        ({"kernel": {".name": ""}}, "metadata: .name has 0 characters"),
        ({"kernel": {".name": "x" * 1025}}, "metadata: .name has 1025 characters"),
        ({"kernel": {".name": "x\n"}}, "unprintable"),
        ({"kernel": {".symbol": SYMBOL}}, f"metadata: .symbol is not {SYMBOL}.kd"),
        ({"kernel": {".wavefront_size": "64"}}, "metadata: no .wavefront_size of type int"),
        ({"kernel": {".wavefront_size": True}}, "metadata: no .wavefront_size of type int"),
        ({"kernel": {".kernarg_segment_size": None}}, "no .kernarg_segment_size of type int"),
        ({"kernel": {".group_segment_fixed_size": 1}}, "65536 and 1 bytes of LDS"),
        ({"kernel": {".private_segment_fixed_size": 8}}, "0 and 8 bytes of private memory"),
        ({"descriptor": {"lds": 32}}, "differ: 32 and 65536 bytes of LDS"),
        ({"descriptor": {"private": 16}}, "16 and 0 bytes of private memory"),
        ({"descriptor": {"entry": 0}}, f"{SYMBOL}.kd: does not point to {SYMBOL}"),
        ({"symbols": {SYMBOL: {"section": 0}}}, f"{SYMBOL}: not a symbol of the file"),
        ({"symbols": {SYMBOL + ".kd": {"section": 0}}}, f"{SYMBOL}.kd: not a symbol of the file"),
        ({"symbols": {SYMBOL + ".kd": {"size": 63}}}, f"{SYMBOL}.kd: expected 64 bytes, got 63"),
        ({"symbols": {SYMBOL + ".kd": {"value": 1 << 63}}}, "lies in no loaded part of the file"),
        ({"loaded": 64}, "lies in no loaded part of the file"),
        ({"loaded": 1 << 62, "symbols": {SYMBOL + ".kd": {"value": 1 << 40}}}, ".kd: beyond the e"),
        ({"symbol_tables": 0}, "expected one table of dynamic symbols, got 0"),
        ({"symbol_tables": 2}, "expected one table of dynamic symbols, got 2"),
        ({"names_section": 9}, "names are in a section that is not there"),
        ({"names_section": 0}, f"{SYMBOL}: not a symbol of the file"),
    ],
)
def test_says_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Malformed, match=message):
        code_object.read(Guarded(MadeElf(**changes).build()))


def test_truncated_anywhere() -> None:
    content = MadeElf().build()
    for size in range(len(content)):
        with pytest.raises(Malformed):
            code_object.read(Guarded(content[:size]))


def test_any_bit_flipped() -> None:
    """It is refused with a reason, or what it says of itself is still whole."""
    content = MadeElf().build()
    for position in range(8 * len(content)):
        _read_or_refuse(_flip(content, [position]))


@hypothesis.given(positions=st.lists(st.integers(0, 8 * 600), min_size=2, max_size=12))
def test_many_bits_flipped(positions: list[int]) -> None:
    _read_or_refuse(_flip(MadeElf().build(), positions))


@hypothesis.given(metadata=st.binary(max_size=200))
def test_any_metadata(metadata: bytes) -> None:
    with pytest.raises(Malformed):
        code_object.read(Guarded(MadeElf(metadata=metadata).build()))


AITER = os.environ.get("JAX_MLA_AITER_DIR")


@pytest.mark.skipif(AITER is None, reason="no AITER: JAX_MLA_AITER_DIR names no hsa folder")
@pytest.mark.parametrize("arch", MACHINES)
def test_aiters_own(arch: str) -> None:
    """All can be read, and none is read wrongly with bits of its headers or its end flipped."""
    draw = random.Random(0)
    files = sorted((pathlib.Path(str(AITER)) / arch / "mla").glob("*.co"))
    assert len(files) > 20
    for file in files:
        content = file.read_bytes()
        image = code_object.read(content)
        assert image.arch == arch and image.symbol.startswith("_ZN5aiter")
        for _ in range(20):
            near_start = draw.randrange(8 * 6000)
            near_end = 8 * len(content) - 1 - draw.randrange(8 * 6000)
            _read_or_refuse(_flip(content, [near_start, near_end]))


def _flip(content: bytes, positions: list[int]) -> bytes:
    changed = bytearray(content)
    for position in positions:
        changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def _read_or_refuse(content: bytes) -> None:
    try:
        image = code_object.read(Guarded(content))
    except Malformed as error:
        assert str(error)
    else:
        assert image.symbol.encode() in content and image.lds_bytes >= 0
