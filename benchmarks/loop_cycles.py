# SPDX-License-Identifier: Apache-2.0
"""Counts the cycles of a kernel's loop over blocks of keys on gfx9, from its assembly.

python benchmarks/loop_cycles.py ASSEMBLY KERNEL

`cmake/device_code.py --output NAME.co` leaves the assembly in NAME.s. The count is of a wave, alone
on its SIMD, one of four to a block: an instruction takes 4 cycles, a matrix instruction of 16 x 16
occupies its unit for 16, what is read from shared memory comes LATENCY cycles after the unit has
served all waves at 128 bytes a cycle. Barriers, memory and bank conflicts cost nothing, and every
branch is gone through. Good for comparing two versions, no more.
"""

import re
import sys
from pathlib import Path

WAVES, LATENCY, ISSUE, MATRIX, TRANSCENDENTAL = 4, 128, 4, 16, 16
LDS_BYTES_A_CYCLE = 128
QUEUE = 16  # accesses to shared memory that a wave has on their way


def loop(assembly: str, kernel: str) -> list[str]:
    """The instructions of the innermost loop with the most matrix instructions."""
    body = assembly[assembly.index(f"\n{kernel}:") :]
    body = body[: body.index("s_endpgm")]
    loops: dict[str, list[str]] = {}
    current = None
    for block in re.split(r"\n(?=\.LBB|; %bb)", body):
        name = re.match(r"\.L(BB\w+):", block)
        if inner := re.search(r"in Loop: Header=(BB\w+) Depth=2", block):
            current = inner[1]
        elif "Inner Loop Header: Depth=2" in block and name:
            current = name[1]
        else:
            continue
        lines = (line.split(";")[0].strip() for line in block.splitlines()[1:])
        loops.setdefault(current, []).extend(x for x in lines if x and x[0] not in ".;")
    return max(loops.values(), key=lambda lines: sum("mfma" in line for line in lines))


def registers(operands: str) -> set[int]:
    """Numbers of the vector registers in a list of operands."""
    found = set()
    for first, last, one in re.findall(r"\bv\[(\d+):(\d+)\]|\bv(\d+)\b", operands):
        found |= {int(one)} if one else set(range(int(first), int(last) + 1))
    return found


def lds_bytes(name: str) -> int:
    """Of one wave's access to shared memory."""
    words = 1
    for suffix, count in (("read2_b64", 4), ("write2_b64", 4), ("b128", 4), ("b64", 2)):
        if suffix in name:
            words = count
            break
    return 64 * 4 * words


def count(instructions: list[str]) -> dict[str, int]:
    """Cycles in all, and those that the wave waits for shared memory and matrix instructions."""
    now = lds_free = matrix_free = 0
    waits = {"shared memory": 0, "matrix": 0}
    queue: list[int] = []  # when accesses to shared memory end
    ready: dict[int, int] = {}  # when a matrix instruction's result is there

    def wait(until: int, what: str) -> None:
        nonlocal now
        waits[what] += max(until - now, 0)
        now = max(until, now)

    for line in instructions:
        name, _, operands = line.partition(" ")
        if name == "s_waitcnt":
            if left := re.search(r"lgkmcnt\((\d+)\)", operands):
                done = len(queue) - int(left[1])
                if done > 0:
                    wait(queue[done - 1], "shared memory")
                    del queue[:done]
        elif "mfma" in name:
            result, a, b, _ = re.split(r",\s*(?![^\[]*\])", operands)[:4]
            wait(max((ready.get(x, 0) for x in registers(f"{a} {b}")), default=0), "matrix")
            wait(matrix_free, "matrix")
            matrix_free = now + MATRIX
            ready |= dict.fromkeys(registers(result), matrix_free)
        else:
            wait(max((ready.get(x, 0) for x in registers(operands)), default=0), "matrix")
            if name.startswith("ds_"):
                lds_free = max(now, lds_free) + WAVES * lds_bytes(name) // LDS_BYTES_A_CYCLE
                queue.append(lds_free + LATENCY)
                if len(queue) > QUEUE:
                    wait(queue.pop(0), "shared memory")
            elif name == "s_nop":
                now += ISSUE * int(operands)
            elif re.match(r"v_(exp|log|rcp)_f32", name):
                now += TRANSCENDENTAL - ISSUE
            elif name == "v_pk_mul_f32":
                now += ISSUE
        now += ISSUE
    return {"cycles": now, "instructions": len(instructions), **waits}


def main() -> None:
    path, kernel = sys.argv[1:]
    for what, value in count(loop(Path(path).read_text(), kernel)).items():
        print(f"{what:14} {value}")


if __name__ == "__main__":
    main()
