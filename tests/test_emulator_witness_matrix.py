# SPDX-License-Identifier: Apache-2.0
"""Matrix instructions (MFMA) of every shape and type against NumPy's products.

Exact inputs must give equal bits; random ones stay within the bound that holds for any order of
float32 sums. A permutation of k that a and b share cannot be seen in a product, so the order of k
inside a wave is our reading.
"""

import re

import ml_dtypes
import numpy as np
import pytest
from witness import ARCHS, KERNELS, needs_compiler, poisoned, run

pytestmark = needs_compiler

FP8 = {
    "gfx942": {"fp8": ml_dtypes.float8_e4m3fnuz, "bf8": ml_dtypes.float8_e5m2fnuz},
    "gfx950": {"fp8": ml_dtypes.float8_e4m3fn, "bf8": ml_dtypes.float8_e5m2},
}
TYPES = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "f32": np.float32,
    "xf32": np.float32,
    "f64": np.float64,
    "i8": np.int8,
    "i32": np.int32,
}


def kernels(source: str) -> list[str]:
    return re.findall(r"^MATRIX\((\w+),", (KERNELS / source).read_text(), re.M)


CASES = [(arch, "matrix.hip", name) for arch in ARCHS for name in kernels("matrix.hip")]
for arch in ARCHS:
    source = f"matrix_{arch}.hip"
    CASES += [(arch, source, name) for name in kernels(source)]


def operand_lanes(size: int, depth: int, blocks: int) -> tuple[np.ndarray, ...]:
    """(block, row, k) of what each lane holds of an operand, [64, k per lane] each."""
    lane = np.arange(64)[:, None]
    groups = 64 // size // blocks  # lane groups that share a block's rows, each with its own k
    each = depth // groups
    if blocks * size * depth == 64 and size == 4 and depth == 4:  # 4x4x4 doubles: k is outermost
        return lane // 4 % 4, lane % 4, lane // 16
    k = lane // size % groups * each + np.arange(each)
    return lane // size // groups + 0 * k, lane % size + 0 * k, k


def result_lanes(size: int, blocks: int, kind: str) -> tuple[np.ndarray, ...]:
    """(block, row, column) that each lane holds of the result: [64, registers] each."""
    lane, register = np.arange(64)[:, None], np.arange(blocks * size * size // 64)[None, :]
    if kind == "f64" and size == 16:
        return 0 * lane + 0 * register, 4 * register + lane // 16, lane % 16 + 0 * register
    if kind == "f64":
        return lane // 4 % 4 + 0 * register, lane // 16 + 0 * register, lane % 4 + 0 * register
    if size == 32:
        row = 8 * (register % 16 // 4) + 4 * (lane // 32) + register % 4
        return register // 16 + 0 * lane, row, lane % 32 + 0 * register
    if size == 16:
        row = 4 * (lane // 16) + register % 4
        return register // 4 + 0 * lane, row, lane % 16 + 0 * register
    return lane // 4 + 0 * register, register + 0 * lane, lane % 4 + 0 * register


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "random"])
@pytest.mark.parametrize(("arch", "source", "name"), CASES)
def test_matrix(arch: str, source: str, name: str, exact: bool) -> None:
    kind, shape, a_type, b_type = name.split("_")
    size, _, depth, blocks = map(int, shape.split("x"))
    types = TYPES | FP8[arch]
    random = np.random.default_rng(size * depth)

    def numbers(shape: tuple[int, ...], dtype: type) -> np.ndarray:
        if exact or np.dtype(dtype).kind == "i":
            return random.integers(-3, 4, shape).astype(dtype)
        return random.standard_normal(shape).astype(np.float32).astype(dtype)

    a = numbers((blocks, size, depth), types[a_type])
    b = numbers((blocks, size, depth), types[b_type])  # transposed: [block, column, k]
    c = numbers((blocks, size, size), types[kind])
    operands, result = operand_lanes(size, depth, blocks), result_lanes(size, blocks, kind)
    got = poisoned(c[result].shape, c.dtype)
    lanes = [np.ascontiguousarray(part) for part in (a[operands], b[operands], c[result])]
    run(arch, source, name, *lanes, got, block=64)

    wide = [array.astype(np.float64) for array in (a, b, c)]
    wanted = (wide[2] + wide[0] @ wide[1].swapaxes(1, 2))[result]
    if exact:
        np.testing.assert_array_equal(got.astype(np.float64), wanted)
        return
    step = {"f64": 2.0**-52, "xf32": 2.0**-10}.get(a_type, 2.0**-23)
    bound = (abs(wide[2]) + abs(wide[0]) @ abs(wide[1]).swapaxes(1, 2))[result]
    assert (abs(got.astype(np.float64) - wanted) <= (depth + 1) * step * bound).all()


@pytest.mark.parametrize(("size", "depth"), [(32, 64), (16, 128)])
def test_scaled(size: int, depth: int) -> None:
    """Which lanes' k share a scale is visible here, and our reading."""
    random = np.random.default_rng(size)
    a, b = random.integers(-3, 4, (2, size, depth)).astype(FP8["gfx950"]["fp8"])
    c = random.integers(-3, 4, (1, size, size)).astype(np.float32)
    a_scales, b_scales = random.integers(124, 131, (2, size, depth // 32))
    operands, result = operand_lanes(size, depth, 1), result_lanes(size, 1, "f32")
    lanes = [np.ascontiguousarray(part) for part in (a[None][operands], b[None][operands])]
    got = poisoned(c[result].shape, np.float32)
    words = []
    for scales, byte in ((a_scales, 1), (b_scales, 2)):
        lane = np.arange(64)
        word = scales[lane % size, lane // size] << 8 * byte | 0x12 << 24 | 0x34
        words.append(word.astype(np.int32))
    run("gfx950", "matrix_gfx950.hip", f"scaled_{size}x{size}x{depth}", *lanes, c[result], got,
        *words, block=64)  # fmt: skip
    wide = [
        array.astype(np.float64) * np.repeat(2.0 ** (scales - 127), 32, axis=1)
        for array, scales in ((a, a_scales), (b, b_scales))
    ]
    np.testing.assert_array_equal(got, (c + wide[0] @ wide[1].T)[result])
