# SPDX-License-Identifier: Apache-2.0
"""Prints how fast the emulator is: wave instructions a second of processor time, one thread.

    JAX_MLA_AITER_DIR=<AITER>/hsa PYTHONPATH=tests python -m emulator.measure

The kernel is AITER's decode kernel for 16 heads in bf16, gfx942, with 4000 tokens.
"""

import os
import time
from pathlib import Path

import numpy as np

from emulator.machine import Machine, Module

KERNEL = "gfx942/mla/mla_dec_stage1_bf16_a16w16_subQ16_mqa16.co"
HEADS, WIDTH, LATENT, TOKENS = 16, 576, 512, 4000
CHECKS = {
    "all checks off": dict(bounds=0, waits=0, traffic=0),
    "bounds": dict(waits=0, traffic=0),
    "all checks on": dict(waits=1, traffic=1, uninitialised=1),
}


def slot(value: int, size: int = 8) -> bytes:
    """A field of the kernel's argument block."""
    return value.to_bytes(size, "little").ljust(16, b"\0")


class Problem:
    """One launch, as AITER makes it, on random data."""

    def __init__(self, machine: Machine) -> None:
        random = np.random.default_rng(0)
        arrays = dict(
            partial=np.empty((HEADS, LATENT), np.float32),
            lse=np.empty(HEADS, np.float32),
            q=self.bfloat(random.standard_normal((HEADS, WIDTH))),
            kv=self.bfloat(random.standard_normal((TOKENS, WIDTH))),
            indptr=np.array([0, TOKENS], np.int32),
            pages=random.permutation(TOKENS).astype(np.int32),
            last=np.ones(1, np.int32),
        )
        for name, array in arrays.items():
            machine.register(array, name)
        pointers = [array.ctypes.data for array in arrays.values()]
        scale = int(np.float32(0.1352).view(np.uint32))
        scalars = [scale, HEADS, 1, HEADS * WIDTH * 2, WIDTH * 2, 0]
        words = [slot(p) for p in pointers] + [slot(s, 4) for s in scalars]
        self.arguments = b"".join(words).ljust(368, b"\0")

    @staticmethod
    def bfloat(values: np.ndarray) -> np.ndarray:
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)

    def speed(self, module: Module) -> float:
        start = time.process_time()
        counters = module.launch(
            next(iter(module.kernels)), grid=(1, 1, 1), block=(256, 1, 1), args=self.arguments
        )
        return counters.instructions / (time.process_time() - start)


def main() -> None:
    code = Path(os.environ["JAX_MLA_AITER_DIR"]) / KERNEL
    for name, options in CHECKS.items():
        machine = Machine("gfx942", **options)
        problem, module = Problem(machine), machine.load(code)
        best = max(problem.speed(module) for _ in range(10))
        print(f"{name:15} {best / 1e6:.2f} million wave instructions a second")


if __name__ == "__main__":
    main()
