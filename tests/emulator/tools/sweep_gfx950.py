#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes isa/tables/gfx950.inc: what gfx950 has beyond gfx942, with the numbers clang gives it.

    sweep_gfx950.py          (needs the PyPI package ziglang)

Clang 22 has no disassembler to sweep with, but it knows the mnemonics: each line below is assembled
for gfx950 and its encoding and opcode number are read off the machine code.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TABLE = Path(__file__).parents[1] / "isa" / "tables" / "gfx950.inc"

# The xf32 matrix instructions of gfx942, which gfx950 does not have.
REMOVED = ("VOP3P", 62), ("VOP3P", 63)

ADDED = """
v_prng_b32 v8, v16
v_cvt_f32_bf16 v8, v16
v_permlane16_swap_b32 v8, v16
v_permlane32_swap_b32 v8, v16
v_permlane16_swap_b32_e64 v8, v16
v_permlane32_swap_b32_e64 v8, v16
v_prng_b32_e64 v8, v16
v_cvt_f32_bf16_e64 v8, v16
v_dot2c_f32_bf16 v8, v16, v24
v_dot2c_f32_bf16_e64 v8, v16, v24
v_cvt_pk_f16_f32 v8, v16, v24
v_cvt_pk_bf16_f32 v8, v16, v24
v_cvt_sr_bf16_f32 v8, v16, v24
v_cvt_sr_f16_f32 v8, v16, v24
v_minimum3_f32 v8, v16, v24, v32
v_maximum3_f32 v8, v16, v24, v32
v_bitop3_b32 v8, v16, v24, v32 bitop3:0x12
v_bitop3_b16 v8, v16, v24, v32 bitop3:0x12
v_ashr_pk_i8_i32 v8, v16, v24, v32
v_ashr_pk_u8_i32 v8, v16, v24, v32
v_pk_minimum3_f16 v8, v16, v24, v32
v_pk_maximum3_f16 v8, v16, v24, v32
v_dot2_f32_bf16 v8, v16, v24, v32
v_mfma_f32_16x16x128_f8f6f4 v[8:11], v[16:23], v[24:31], v[32:35]
v_mfma_f32_32x32x64_f8f6f4 v[8:23], v[24:31], v[32:39], v[40:55]
v_mfma_scale_f32_16x16x128_f8f6f4 v[8:11], v[16:23], v[24:31], v[32:35], v40, v41
v_mfma_scale_f32_32x32x64_f8f6f4 v[8:23], v[24:31], v[32:39], v[40:55], v56, v57
v_mfma_f32_16x16x32_f16 v[8:11], v[16:19], v[24:27], v[32:35]
v_mfma_f32_16x16x32_bf16 v[8:11], v[16:19], v[24:27], v[32:35]
v_mfma_f32_32x32x16_f16 v[8:23], v[24:27], v[28:31], v[32:47]
v_mfma_f32_32x32x16_bf16 v[8:23], v[24:27], v[28:31], v[32:47]
v_mfma_i32_16x16x64_i8 v[8:11], v[16:19], v[24:27], v[32:35]
v_mfma_i32_32x32x32_i8 v[8:23], v[24:27], v[28:31], v[32:47]
v_smfmac_f32_16x16x64_f16 v[8:11], v[16:19], v[24:31], v32
v_smfmac_f32_32x32x32_f16 v[8:23], v[24:27], v[32:39], v40
v_smfmac_f32_16x16x64_bf16 v[8:11], v[16:19], v[24:31], v32
v_smfmac_f32_32x32x32_bf16 v[8:23], v[24:27], v[32:39], v40
v_smfmac_i32_16x16x128_i8 v[8:11], v[16:19], v[24:31], v32
v_smfmac_i32_32x32x64_i8 v[8:23], v[24:27], v[32:39], v40
v_smfmac_f32_16x16x128_bf8_bf8 v[8:11], v[16:19], v[24:31], v32
v_smfmac_f32_16x16x128_bf8_fp8 v[8:11], v[16:19], v[24:31], v32
v_smfmac_f32_16x16x128_fp8_bf8 v[8:11], v[16:19], v[24:31], v32
v_smfmac_f32_16x16x128_fp8_fp8 v[8:11], v[16:19], v[24:31], v32
v_smfmac_f32_32x32x64_bf8_bf8 v[8:23], v[24:27], v[32:39], v40
v_smfmac_f32_32x32x64_bf8_fp8 v[8:23], v[24:27], v[32:39], v40
v_smfmac_f32_32x32x64_fp8_bf8 v[8:23], v[24:27], v[32:39], v40
v_smfmac_f32_32x32x64_fp8_fp8 v[8:23], v[24:27], v[32:39], v40
ds_read_b64_tr_b4 v[8:9], v16
ds_read_b64_tr_b8 v[8:9], v16
ds_read_b64_tr_b16 v[8:9], v16
ds_read_b96_tr_b6 v[8:10], v16
global_load_lds_dwordx3 v[16:17], off
global_load_lds_dwordx4 v[16:17], off
buffer_atomic_pk_add_bf16 v8, v16, s[16:19], 0 offen
v_cvt_scalef32_f32_fp8 v8, v16, v24
v_cvt_scalef32_f32_bf8 v8, v16, v24
v_cvt_scalef32_f16_fp8 v8, v16, v24
v_cvt_scalef32_f16_bf8 v8, v16, v24
v_cvt_scalef32_pk_f32_fp8 v[8:9], v16, v24
v_cvt_scalef32_pk_f32_bf8 v[8:9], v16, v24
v_cvt_scalef32_pk_f32_fp4 v[8:9], v16, v24
v_cvt_scalef32_pk_f16_fp8 v8, v16, v24
v_cvt_scalef32_pk_f16_bf8 v8, v16, v24
v_cvt_scalef32_pk_f16_fp4 v8, v16, v24
v_cvt_scalef32_pk_bf16_fp8 v8, v16, v24
v_cvt_scalef32_pk_bf16_bf8 v8, v16, v24
v_cvt_scalef32_pk_bf16_fp4 v8, v16, v24
v_cvt_scalef32_pk_fp8_f32 v8, v16, v24, v32
v_cvt_scalef32_pk_bf8_f32 v8, v16, v24, v32
v_cvt_scalef32_pk_fp4_f32 v8, v16, v24, v32
v_cvt_scalef32_pk_fp8_f16 v8, v16, v24
v_cvt_scalef32_pk_bf8_f16 v8, v16, v24
v_cvt_scalef32_pk_fp4_f16 v8, v16, v24
v_cvt_scalef32_pk_fp8_bf16 v8, v16, v24
v_cvt_scalef32_pk_bf8_bf16 v8, v16, v24
v_cvt_scalef32_pk_fp4_bf16 v8, v16, v24
v_cvt_scalef32_sr_fp8_f32 v8, v16, v24, v32
v_cvt_scalef32_sr_bf8_f32 v8, v16, v24, v32
v_cvt_scalef32_sr_fp8_f16 v8, v16, v24, v32
v_cvt_scalef32_sr_bf8_f16 v8, v16, v24, v32
v_cvt_scalef32_sr_fp8_bf16 v8, v16, v24, v32
v_cvt_scalef32_sr_bf8_bf16 v8, v16, v24, v32
v_cvt_scalef32_sr_pk_fp4_f32 v8, v[16:17], v24, v32
v_cvt_scalef32_sr_pk_fp4_f16 v8, v16, v24, v32
v_cvt_scalef32_sr_pk_fp4_bf16 v8, v16, v24, v32
v_cvt_scalef32_pk32_f32_fp6 v[8:39], v[40:45], v50
v_cvt_scalef32_pk32_f32_bf6 v[8:39], v[40:45], v50
v_cvt_scalef32_pk32_f16_fp6 v[8:23], v[40:45], v50
v_cvt_scalef32_pk32_f16_bf6 v[8:23], v[40:45], v50
v_cvt_scalef32_pk32_bf16_fp6 v[8:23], v[40:45], v50
v_cvt_scalef32_pk32_bf16_bf6 v[8:23], v[40:45], v50
v_cvt_scalef32_pk32_fp6_f16 v[8:13], v[24:39], v50
v_cvt_scalef32_pk32_bf6_f16 v[8:13], v[24:39], v50
v_cvt_scalef32_pk32_fp6_bf16 v[8:13], v[24:39], v50
v_cvt_scalef32_pk32_bf6_bf16 v[8:13], v[24:39], v50
v_cvt_scalef32_2xpk16_fp6_f32 v[8:13], v[16:31], v[32:47], v50
v_cvt_scalef32_2xpk16_bf6_f32 v[8:13], v[16:31], v[32:47], v50
v_cvt_scalef32_sr_pk32_fp6_f32 v[8:13], v[16:47], v50, v51
v_cvt_scalef32_sr_pk32_bf6_f32 v[8:13], v[16:47], v50, v51
v_cvt_scalef32_sr_pk32_fp6_f16 v[8:13], v[16:31], v50, v51
v_cvt_scalef32_sr_pk32_bf6_f16 v[8:13], v[16:31], v50, v51
v_cvt_scalef32_sr_pk32_fp6_bf16 v[8:13], v[16:31], v50, v51
v_cvt_scalef32_sr_pk32_bf6_bf16 v[8:13], v[16:31], v50, v51
"""


def assemble(lines: list[str]) -> bytes:
    """The machine code of all lines, each at a multiple of 16 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "sweep.s", Path(folder) / "sweep.o"
        source.write_text("".join(f".p2align 4\n{line}\n" for line in lines))
        target = ("-target", "amdgcn-amd-amdhsa", "-mcpu=gfx950")
        command = [sys.executable, "-m", "ziglang", "clang", *target, "-c", source, "-o", output]
        subprocess.run(command, check=True)
        return text_section(output.read_bytes())


def text_section(elf: bytes) -> bytes:
    def number(offset: int, size: int) -> int:
        return int.from_bytes(elf[offset : offset + size], "little")

    headers, size, count = number(40, 8), number(58, 2), number(60, 2)
    for header in range(headers, headers + size * count, size):
        if number(header + 4, 4) == 1 and number(header + 8, 8) & 4:  # PROGBITS, executable
            start = number(header + 24, 8)
            return elf[start : start + number(header + 32, 8)]
    raise ValueError("no text section")


def classify(word: int, next_word: int) -> tuple[str, int]:
    """Encoding and opcode number of an instruction of these families."""
    if word >> 16 == 0xD3AC:  # a prefix with the scales; the matrix instruction follows
        return "VOP3PX2", next_word
    if word >> 23 == 0x1A7:
        return "VOP3P", word >> 16 & 127
    if word >> 31 == 0:
        return ("VOP1", word >> 9 & 255) if word >> 25 == 0x3F else ("VOP2", word >> 25)
    match word >> 26:
        case 0x34:
            return "VOP3", word >> 16 & 1023
        case 0x36:
            return "DS", word >> 17 & 255
        case 0x37:
            return ("FLAT", "SCRATCH", "GLOBAL")[word >> 14 & 3], word >> 18 & 127
        case 0x38:
            return "MUBUF", word >> 18 & 127
    raise ValueError(f"unexpected encoding {word:08x}")


def widths(line: str) -> tuple[int, ...]:
    operands = re.findall(r"[vs](?:\[(\d+):(\d+)\]|\d+)", line.partition(" ")[2])
    found = [int(last) - int(first) + 1 if first else 1 for first, last in operands]
    return tuple((found + [0] * 4)[:4])


def main() -> None:
    lines = ADDED.split("\n")[1:-1]
    code = assemble(lines)
    with TABLE.open("w") as file:
        file.write("// SPDX-License-Identifier: Apache-2.0\n")
        file.write(
            "// What gfx950 adds to gfx942, written by tools/sweep_gfx950.py; an empty name\n"
        )
        file.write("// removes an opcode.\n")
        for encoding, op in REMOVED:
            file.write(f'OPCODE({encoding}, {op}, "", 0, 0, 0, 0)\n')
        for index, line in enumerate(lines):
            at = [
                int.from_bytes(code[index * 16 + k : index * 16 + k + 4], "little")
                for k in (0, 4, 8)
            ]
            encoding, op = classify(at[0], at[2])
            name = re.sub(r"_e64$", "", line.split()[0])
            if encoding == "VOP3PX2":  # the second half has the number of the plain instruction
                encoding, op = "VOP3PX2", op >> 16 & 127
            a, b, c, d = widths(line)
            file.write(f'OPCODE({encoding}, {op}, "{name}", {a}, {b}, {c}, {d})\n')
    print(len(lines), "opcodes added")


if __name__ == "__main__":
    assert importlib.util.find_spec("ziglang"), "pip install ziglang==0.17.1"
    main()
