#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes isa/tables/gfx942.inc: every opcode number of every encoding, named by LLVM.

    sweep_gfx942.py [llvm-mc, version 16 or later]

Each opcode number is tried with a few operand patterns, since a wrong pattern does not decode. The
operand widths are read off the printed register ranges. The table is checked in: a build needs no
LLVM.
"""

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TABLE = Path(__file__).parents[1] / "isa" / "tables" / "gfx942.inc"
V = 256  # source operand of v0
FORMATS = ["SOP2", "SOPK", "SOP1", "SOPC", "SOPP", "SMEM", "VOP2", "VOP1", "VOPC", "VOP3", "VOP3P"]
FORMATS += ["DS", "MUBUF", "MTBUF", "FLAT", "SCRATCH", "GLOBAL"]

# What LLVM does not print in the form that the hardware has as well.
BY_HAND = [("VOP3", 322, "v_readfirstlane_b32", (1, 1, 0, 0))]


def scalar_patterns() -> Iterator[tuple[str, int, tuple[int, ...]]]:
    for op in range(128):
        if op < 96:  # the rest is SOPK, SOP1, SOPC and SOPP
            yield "SOP2", op, (0x80000000 | op << 23 | 8 << 16 | 24 << 8 | 16,)
        yield "SOPC", op, (0xBF000000 | op << 16 | 24 << 8 | 16,)
        yield "SOPP", op, (0xBF800000 | op << 16,)
    for op in range(22):
        yield "SOPK", op, (0xB0000000 | op << 23 | 8 << 16 | 0x12,)
        yield "SOPK", op, (0xB0000000 | op << 23 | 8 << 16 | 0xF801, 7)
        yield "SOPK", op, (0xB0000000 | op << 23 | 0xF801, 7)
    for op in range(256):
        for dst, src in ((8, 16), (8, 0), (0, 16)):
            yield "SOP1", op, (0xBE800000 | dst << 16 | op << 8 | src,)
        for dst, base, offset in ((8, 8, 0x10), (0, 8, 0x10), (8, 0, 0), (0, 0, 0)):
            yield "SMEM", op, (0xC0000000 | op << 18 | 1 << 17 | dst << 6 | base, offset)
        yield "SMEM", op, (0xC0000000 | op << 18 | 8 << 6, 0)
        yield "SMEM", op, (0xC0000000 | op << 18, 0)


def vector_patterns() -> Iterator[tuple[str, int, tuple[int, ...]]]:
    for op in range(62):
        yield "VOP2", op, (op << 25 | 8 << 17 | 24 << 9 | V + 16,)
        yield "VOP2", op, (op << 25 | 8 << 17 | 24 << 9 | V + 16, 0x3F801234)
    for op in range(256):
        yield "VOP1", op, (0x7E000000 | 8 << 17 | op << 9 | V + 16,)
        yield "VOP1", op, (0x7E000000 | op << 9,)
        yield "VOPC", op, (0x7C000000 | op << 17 | 24 << 9 | V + 16,)
    sources = (V + 32, V + 24), (0, V + 24), (0, 0), (32, V + 24)
    for op in range(256, 896):
        for src2, src1 in sources:
            for middle in (0, 30 << 8):
                low = src2 << 18 | src1 << 9 | V + 16
                yield "VOP3", op, (0xD0000000 | op << 16 | middle | 8, low)
        yield "VOP3", op, (0xD0000000 | op << 16, 0)
    for op in range(128):
        for src2, src1 in sources[:3]:
            low = src2 << 18 | src1 << 9 | V + 16
            for high, middle in ((3 << 27, 0), (3 << 27, 1 << 14), (0, 0), (0, 128)):
                yield "VOP3P", op, (0xD3800000 | op << 16 | middle | 8, high | low)


def memory_patterns() -> Iterator[tuple[str, int, tuple[int, ...]]]:
    for op in range(256):
        for dst in (8, 0):
            for data in ((32, 24), (0, 24), (0, 0)):
                low = dst << 24 | data[0] << 16 | data[1] << 8
                for address in (16, 0):
                    yield "DS", op, (0xD8000000 | op << 17, low | address)
                    yield "DS", op, (0xD8000000 | op << 17 | 1 << 16, low | address)
    for op in range(128):
        yield "MUBUF", op, (0xE0000000 | op << 18 | 1 << 12, 128 << 24 | 4 << 16 | 8 << 8 | 16)
        yield "MUBUF", op, (0xE0000000 | op << 18 | 1 << 12 | 1 << 16, 128 << 24 | 4 << 16 | 16)
        yield "MUBUF", op, (0xE0000000 | op << 18, 0)
    for op in range(16):
        low = 128 << 24 | 4 << 16 | 8 << 8 | 16
        yield "MTBUF", op, (0xE8000000 | op << 15 | 1 << 12 | 1 << 19, low)
    for segment, name in enumerate(("FLAT", "SCRATCH", "GLOBAL")):
        for op in range(128):
            for sc0 in (0, 1):
                high = 0xDC000000 | op << 18 | segment << 14 | sc0 << 16
                high |= 1 << 13 if name == "SCRATCH" else 0
                for dst, data in ((8, 24), (0, 24), (8, 0), (0, 0)):
                    yield name, op, (high, dst << 24 | 0x7F << 16 | data << 8 | 16)
                yield name, op, (high, 16)
                yield name, op, (high, 0)


def disassemble(llvm_mc: str, words: list[tuple[int, ...]]) -> dict[tuple[int, ...], str]:
    """The text of each encoding that is exactly one instruction."""
    # Brackets keep a pattern that does not decode from swallowing the next one.
    encodings = [b"".join(word.to_bytes(4, "little") for word in pattern) for pattern in words]
    lines = ["[" + ",".join(f"0x{byte:02x}" for byte in e) + "]" for e in encodings]
    arguments = ["--disassemble", "-triple=amdgcn--amdhsa", "-mcpu=gfx942", "--show-encoding"]
    done = subprocess.run(
        [llvm_mc, *arguments], input="\n".join(lines), capture_output=True, text=True
    )
    texts = {}
    for line in done.stdout.splitlines():
        if match := re.match(r"\s*(\S.*?)\s*; encoding: \[(.*)\]", line):
            data = bytes(int(byte, 16) for byte in match.group(2).split(","))
            key = tuple(int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4))
            texts[key] = match.group(1)
    return texts


def widths(text: str) -> tuple[int, ...]:
    """Dwords of the first four printed operands."""
    text = re.sub(r"/\*.*?\*/", "", text)  # remarks about operands that are not used
    operands = [part for part in text.partition(" ")[2].split(",") if part.strip()]
    found = []
    for operand in operands:
        if match := re.match(r"\s*-?\|?[vsa]\[(\d+):(\d+)\]", operand):
            found.append(int(match.group(2)) - int(match.group(1)) + 1)
        else:
            found.append(1 if operand.strip() else 0)
    return tuple((found + [0] * 4)[:4])


def main() -> None:
    patterns = [*scalar_patterns(), *vector_patterns(), *memory_patterns()]
    texts = disassemble(sys.argv[1] if len(sys.argv) > 1 else "llvm-mc", [p[2] for p in patterns])
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for encoding, op, words in patterns:
        if words in texts:
            found[encoding, op].append(texts[words])
    rows = [*BY_HAND]
    for (encoding, op), candidates in found.items():
        text = candidates[0]
        rows.append((encoding, op, re.sub(r"_(e32|e64)$", "", text.split()[0]), widths(text)))
    rows.sort(key=lambda row: (FORMATS.index(row[0]), row[1]))
    with TABLE.open("w") as file:
        file.write("// SPDX-License-Identifier: Apache-2.0\n")
        file.write("// The opcodes of gfx942, written by tools/sweep_gfx942.py: format, number,\n")
        file.write("// mnemonic, dwords of the first four operands as printed.\n")
        for encoding, op, name, (a, b, c, d) in rows:
            file.write(f'OPCODE({encoding}, {op}, "{name}", {a}, {b}, {c}, {d})\n')
    print(len(rows), "opcodes")


if __name__ == "__main__":
    main()
