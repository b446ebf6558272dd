# SPDX-License-Identifier: Apache-2.0
"""Prints what decode on AITER's kernels comes to on the emulated GPUs, as a table for docs.

Errors are the worst over ragged lengths, over the largest element of each vector and as an angle.
Bytes are over those needed, for a sequence of 4096 tokens: each once a launch, and at each access.

JAX_MLA_AITER_DIR=<AITER's hsa folder> python tests/asm_table.py gfx942 gfx950
"""

import subprocess
import sys

from emulator import environment

HEADER = """\
| Kernel | Arch | Mode | Heads | q_len | q, cache | Error | Cosine distance | Bytes | Accesses |
|---|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    if not environment.active_arch():
        print(HEADER, flush=True)
        for arch in sys.argv[1:] or environment.ARCHS:
            variables = environment.variables(arch)
            subprocess.run([sys.executable, *sys.argv[:1]], env=variables, check=True)
        return
    environment.activate()
    import itertools  # and then what imports JAX

    from asm_decode import DTYPES

    from jax_mla.kernels import MODES

    for mode, dtypes, q_len in itertools.product(MODES, DTYPES, (1, 2, 4)):
        for heads in (4, 16, 32, 128):
            if line := row(mode, dtypes, q_len, heads):
                print(line, flush=True)


def row(mode: str, dtypes: str, q_len: int, heads: int) -> str | None:
    """One line; None where AITER has no kernel."""
    import asm_decode
    import numpy as np
    import oracle
    import test_rocm_asm_cost as cost

    from jax_mla.call import Unserved

    def case(*lengths: int, capacity: int) -> asm_decode.Case:
        return asm_decode.make(
            lengths, heads=heads, q_len=q_len, page_size=64, dtypes=dtypes, capacity=capacity
        )

    ragged, full = case(*asm_decode.LENGTHS, capacity=1024), case(4096, capacity=4096)
    splits = 4 if mode == "split" else None
    try:
        plan = asm_decode.plan(ragged, mode, splits)
    except Unserved:
        return None
    out, lse = asm_decode.run(ragged, mode, num_kv_splits=splits)
    asm_decode.check(ragged, plan, out, lse)
    seen = np.isfinite(lse)
    out, expected = out[seen].astype(np.float64), oracle.decode(ragged)[0][seen]
    error = (np.abs(out - expected).max(-1) / np.abs(expected).max(-1)).max()
    norms = np.linalg.norm(out, axis=-1) * np.linalg.norm(expected, axis=-1)
    cosine = (1 - (out * expected).sum(-1) / norms).max()
    counted, needed = (
        cost.count(full, mode, splits),
        cost.explained(full, mode, splits).bytes_needed,
    )
    cells = (
        *(f"`{plan.kernel.file}`", plan.kernel.arch, mode, heads, q_len, dtypes),
        *(f"{error:.1e}", f"{cosine:.1e}"),
        *(f"{counted.moved / needed:.3f}", f"{counted.accessed / needed:.3f}"),
    )
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
