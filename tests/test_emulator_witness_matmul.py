# SPDX-License-Identifier: Apache-2.0
"""A whole kernel, compiled by the PyPI clang: a matmul with LDS, barriers, MFMA and fp8.

Its twin has bare barriers, which wait for no memory access; hardware may or may not show it, the
emulator has to.
"""

import ml_dtypes
import numpy as np
import pytest
from emulator.machine import Fault
from witness import needs_compiler, on_archs, on_levels, poisoned, run

pytestmark = needs_compiler

TYPES = {
    ("bf16", "gfx942"): ml_dtypes.bfloat16,
    ("bf16", "gfx950"): ml_dtypes.bfloat16,
    ("fp8", "gfx942"): ml_dtypes.float8_e4m3fnuz,
    ("fp8", "gfx950"): ml_dtypes.float8_e4m3fn,
}
M, N, K = 128, 192, 320


def operands(kind: str, arch: str) -> tuple[np.ndarray, np.ndarray]:
    """Small whole numbers and halves: every product and sum is exact in float32."""
    random = np.random.default_rng(13)
    dtype = TYPES[kind, arch]
    a, b = random.integers(-7, 8, (M, K)) / 2, random.integers(-7, 8, (N, K)) / 2
    return a.astype(dtype), b.astype(dtype)


@on_archs
@on_levels
@pytest.mark.parametrize("quantum", [1, 1000000], ids=["lockstep", "to_barriers"])
@pytest.mark.parametrize("kind", ["bf16", "fp8"])
def test_matmul(kind: str, quantum: int, arch: str, level: int) -> None:
    a, b = operands(kind, arch)
    c = poisoned((M, N), np.float32)
    counters = run(arch, "matmul.hip", f"matmul_{kind}", a, b, c, np.uint32(N), np.uint32(K),
                   grid=M * N // 4096, level=level, quantum=quantum)  # fmt: skip
    np.testing.assert_array_equal(c, a.astype(np.float64) @ b.astype(np.float64).T)
    depth = 16 if kind == "bf16" else 32
    assert counters.matrix == M * N * K // (16 * 16 * depth)
    assert counters.barriers == 2 * (K // depth) * (M * N // 4096) * 4  # once a wave


@on_archs
@pytest.mark.parametrize("kind", ["bf16", "fp8"])
def test_bare_barriers_are_reported(kind: str, arch: str) -> None:
    a, b = operands(kind, arch)
    c = poisoned((M, N), np.float32)
    with pytest.raises(Fault, match=rf"(?s)without waiting.*matmul_{kind}.*LDS"):
        run(arch, "matmul.hip", f"matmul_{kind}", a, b, c, np.uint32(N), np.uint32(K),
            grid=M * N // 4096, flags=("-DWITHOUT_FENCES",))  # fmt: skip
