# SPDX-License-Identifier: Apache-2.0
"""Conversions to and from 8-bit floats, and packs, bit for bit against ml_dtypes and NumPy."""

import ml_dtypes
import numpy as np
import pytest
from witness import needs_compiler, on_archs, on_levels, poisoned, run

pytestmark = needs_compiler

TYPES = {
    ("gfx942", "fp8"): ml_dtypes.float8_e4m3fnuz,
    ("gfx942", "bf8"): ml_dtypes.float8_e5m2fnuz,
    ("gfx950", "fp8"): ml_dtypes.float8_e4m3fn,
    ("gfx950", "bf8"): ml_dtypes.float8_e5m2,
}


def convert(arch: str, level: int, name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    assert x.size % 256 == 0
    got = poisoned(x.size, np.uint32)
    run(arch, "fp8.hip", name, x, y, got, grid=x.size // 256, level=level)
    return got


def around(dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """float32 values at, half way between and just beside all finite values of an 8-bit type."""
    finite = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    finite = np.unique(finite[np.isfinite(finite)])
    points = np.concatenate([finite, (finite[1:] + finite[:-1]) / 2])
    points = np.concatenate([points, np.nextafter(points, -np.inf), np.nextafter(points, np.inf)])
    points = np.concatenate([points, [-0.0, np.nan, 1e-30, -1e-30, 1e-42]]).astype(np.float32)
    x = np.resize(points, -(-points.size // 256) * 256)
    return x, np.ascontiguousarray(x[::-1])


def eight_bits(values: np.ndarray, dtype: type) -> np.ndarray:
    """Bit patterns in dtype; every NaN is the same one."""
    converted = values.astype(dtype)
    return one_nan(converted.view(np.uint8), dtype).astype(np.uint32)


def one_nan(patterns: np.ndarray, dtype: type) -> np.ndarray:
    nan = np.isnan(patterns.astype(np.uint8).view(dtype).astype(np.float32))
    return np.where(nan, np.array(np.nan, dtype).view(np.uint8), patterns)


@on_archs
@on_levels
@pytest.mark.parametrize("kind", ["fp8", "bf8"])
@pytest.mark.parametrize("half", ["low", "high"])
def test_to_8_bits(kind: str, half: str, arch: str, level: int) -> None:
    dtype = TYPES[arch, kind]
    x, y = around(dtype)
    got = convert(arch, level, f"{kind}_{half}", x, y)
    if half == "high":
        got = got >> 16 | got << 16
    assert (got >> 16 == 0x5A5A).all()
    np.testing.assert_array_equal(one_nan(got & 255, dtype), eight_bits(x, dtype))
    np.testing.assert_array_equal(one_nan(got >> 8 & 255, dtype), eight_bits(y, dtype))


@on_archs
@on_levels
@pytest.mark.parametrize("kind", ["fp8", "bf8"])
def test_saturated(kind: str, arch: str, level: int) -> None:
    dtype = TYPES[arch, kind]
    largest = float(ml_dtypes.finfo(dtype).max)
    x, y = around(dtype)
    x[:3], y[:3] = (largest * 1.2, -largest * 3, 1e30), (-1e30, largest * 2, largest * 1.07)
    got = convert(arch, level, f"{kind}_saturated", x, y)
    for shift, given in ((0, x), (8, y)):
        wanted = eight_bits(np.clip(given, -largest, largest), dtype)
        np.testing.assert_array_equal(one_nan(got >> shift & 255, dtype), wanted)


@on_archs
@on_levels
@pytest.mark.parametrize("kind", ["fp8", "bf8"])
@pytest.mark.parametrize("byte", range(4))
def test_from_8_bits(kind: str, byte: int, arch: str, level: int) -> None:
    patterns = np.arange(256, dtype=np.uint32)
    words = patterns << 8 * byte | ~(np.uint32(255) << 8 * byte) & np.uint32(0x12345678)
    got = convert(arch, level, f"from_{kind}_{byte}", words, words).view(np.float32)
    wanted = patterns.astype(np.uint8).view(TYPES[arch, kind]).astype(np.float32)
    np.testing.assert_array_equal(got, wanted)


@on_archs
@pytest.mark.parametrize("name", ["fp8_0", "fp8_1", "fp8_2", "bf8_3"])
def test_pair_from_8_bits(name: str, arch: str) -> None:
    kind, byte = name.split("_")
    patterns = np.arange(256, dtype=np.uint32)
    words = patterns << 8 * int(byte)
    got = convert(arch, 3, f"pair_from_{name}", words, words).view(np.float32)
    wanted = patterns.astype(np.uint8).view(TYPES[arch, kind]).astype(np.float32)
    np.testing.assert_array_equal(got, wanted)


def test_scaled_fp8() -> None:
    dtype = TYPES["gfx950", "fp8"]
    x, y = around(dtype)
    got = convert("gfx950", 3, "scaled_fp8", 4 * x, 4 * y)
    assert (got >> 16 == 0x5A5A).all()
    np.testing.assert_array_equal(one_nan(got & 255, dtype), eight_bits(x, dtype))
    np.testing.assert_array_equal(one_nan(got >> 8 & 255, dtype), eight_bits(y, dtype))


@pytest.mark.parametrize("name", ["fp8_0", "fp8_1", "fp8_2", "bf8_3"])
def test_from_scaled_8_bits(name: str) -> None:
    kind, byte = name.split("_")
    patterns = np.arange(256, dtype=np.uint32)
    words = patterns << 8 * int(byte)
    got = convert("gfx950", 3, f"from_scaled_{name}", words, words).view(np.float32)
    wide = patterns.astype(np.uint8).view(TYPES["gfx950", kind]).astype(np.float32)
    np.testing.assert_array_equal(got, 4 * wide)


def pack_inputs() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = (random.standard_normal(1024) * 2.0 ** random.integers(-26, 17, 1024)).astype(np.float32)
    x[:8] = 0, -0.0, 1, -1, 65504, 65519.9, 6e-8, -5.9e-8
    return x, np.ascontiguousarray(x[::-1])


@on_archs
@on_levels
def test_half_towards_zero(arch: str, level: int) -> None:
    x, y = pack_inputs()
    got = convert(arch, level, "pack_half_to_zero", x, y).view(np.float16).reshape(-1, 2)
    for column, given in enumerate((x, y)):
        nearest = np.clip(given, -65504, 65504).astype(np.float16)
        beyond = abs(nearest.astype(np.float32)) > abs(given)
        wanted = np.where(beyond, np.nextafter(nearest, np.float16(0)), nearest)
        np.testing.assert_array_equal(got[:, column].view(np.uint16), wanted.view(np.uint16))


@on_archs
@on_levels
def test_normalised(arch: str, level: int) -> None:
    x, y = pack_inputs()
    got = convert(arch, level, "pack_normalised", x, y).view(np.int16).reshape(-1, 2)
    unsigned = convert(arch, level, "pack_normalised_unsigned", x, y).view(np.uint16).reshape(-1, 2)
    for column, given in enumerate((x, y)):
        wide = given.astype(np.float64)
        np.testing.assert_array_equal(got[:, column], np.rint(np.clip(wide, -1, 1) * 32767))
        np.testing.assert_array_equal(unsigned[:, column], np.rint(np.clip(wide, 0, 1) * 65535))
