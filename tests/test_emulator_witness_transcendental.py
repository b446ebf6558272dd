# SPDX-License-Identifier: Apache-2.0
"""exp, log, reciprocals, roots, sine and cosine within 2 ulp of NumPy in double precision.

Hardware is itself only good to about 1 ulp here, in a way that is not published.
"""

from collections.abc import Callable

import numpy as np
import pytest
from witness import TYPES, items, needs_compiler, on_archs, on_levels, poisoned, run

pytestmark = needs_compiler

TURN = 2 * np.pi
POSITIVE, ANY = (2.0**-13, 2.0**13), (-100.0, 100.0)
# Function and the range of its arguments, by the last word of the item's name.
REFERENCES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[float, float]]] = {
    "exp2": (np.exp2, (-14.0, 15.0)),
    "exp": (np.exp, (-9.0, 10.0)),
    "log2": (np.log2, POSITIVE),
    "log": (np.log, POSITIVE),
    "reciprocal": (lambda x: 1 / x, POSITIVE),
    "root": (np.sqrt, POSITIVE),
    "reciprocal_root": (lambda x: 1 / np.sqrt(x), POSITIVE),
    "sine": (lambda x: np.sin(TURN * x), (-4.0, 4.0)),  # the instruction takes turns
    "cosine": (lambda x: np.cos(TURN * x), (-4.0, 4.0)),
}


@on_archs
@on_levels
@pytest.mark.parametrize("item", items("transcendental.hip"), ids=lambda item: item[0])
def test_transcendental(item: tuple[str, str, str], arch: str, level: int) -> None:
    name, dtype = item[0], np.dtype(TYPES[item[2]])
    key = name.removeprefix("half_").removeprefix("wide_").removesuffix("_function")
    function, (low, high) = REFERENCES[key]
    random = np.random.default_rng(0)
    if low > 0:
        x = np.exp2(random.uniform(np.log2(low), np.log2(high), 2048)).astype(dtype)
    else:
        x = random.uniform(low, high, 2048).astype(dtype)
    got = poisoned(x.size, dtype)
    arguments = (x, x, x, got, np.uint32(x.size))
    run(arch, "transcendental.hip", name, *arguments, grid=x.size // 256, level=level)
    wanted = function(x.astype(np.float64))
    # Of a double the instructions promise 2^-20 and a bit; programs refine it.
    ulp = np.spacing(abs(wanted).astype(dtype)).astype(np.float64)
    allowed = 2.0**-20 * abs(wanted) if dtype.itemsize == 8 else 2 * ulp
    smallest = np.finfo(dtype).eps if key in ("sine", "cosine", "log2", "log") else 0
    error = abs(got.astype(np.float64) - wanted)
    assert (error <= np.maximum(allowed, smallest)).all(), x[np.argmax(error - allowed)]


@on_archs
@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("exp2", [-np.inf, np.inf, np.nan, 0, 200, -200], [0, np.inf, np.nan, 1, np.inf, 0]),
        ("log2", [0, -0.0, -1, np.inf, np.nan, 1], [-np.inf, -np.inf, np.nan, np.inf, np.nan, 0]),
        ("reciprocal", [0, -0.0, np.inf, -np.inf, np.nan], [np.inf, -np.inf, 0, -0.0, np.nan]),
        ("reciprocal_root", [0, -0.0, np.inf, -1], [np.inf, -np.inf, 0, np.nan]),
        ("root", [0, -0.0, np.inf, -1, 4], [0, -0.0, np.inf, np.nan, 2]),
        ("sine", [0, -0.0, np.inf, np.nan, 0.25], [0, -0.0, np.nan, np.nan, 1]),
        ("cosine", [0, np.inf, np.nan, 0.5], [1, np.nan, np.nan, -1]),
    ],
)
def test_special_values(name: str, given: list[float], wanted: list[float], arch: str) -> None:
    x = np.array(given, np.float32)
    got = poisoned(x.size, np.float32)
    run(arch, "transcendental.hip", name, x, x, x, got, np.uint32(x.size))
    expected = np.array(wanted, np.float32)
    np.testing.assert_array_equal(got, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(expected)[number])
