# SPDX-License-Identifier: Apache-2.0
"""The compiler helper and the comparison themselves: what is wrong has to show."""

from pathlib import Path

import numpy as np
import pytest
from emulator import compiler
from witness import KERNELS, assert_same, needs_compiler, poisoned, run, run_on_host, triples


def test_a_difference_of_one_bit_shows() -> None:
    wanted = np.arange(1000, dtype=np.uint32)
    got = wanted.copy()
    assert_same(got, wanted)
    got[777] ^= 1 << 20
    with pytest.raises(pytest.fail.Exception, match=r"1 of 1000 differ\n.*777"):
        assert_same(got, wanted, wanted)


@pytest.mark.parametrize(
    ("got", "wanted", "same"),
    [(0.0, -0.0, False), (np.nan, 1.0, False), (1.0, np.nan, False), (-np.nan, np.nan, True)],
)
def test_zeros_and_nans(got: float, wanted: float, same: bool) -> None:
    pair = np.array([got], np.float32), np.array([wanted], np.float32)
    if same:
        assert_same(*pair)
    else:
        with pytest.raises(pytest.fail.Exception):
            assert_same(*pair)


def test_poison_is_no_result() -> None:
    with pytest.raises(pytest.fail.Exception):
        assert_same(poisoned(4, np.float32), np.zeros(4, np.float32))


@needs_compiler
@pytest.mark.parametrize("other", ["sub", "exclusive_add"])
def test_another_kernel_shows(other: str) -> None:
    x, y, z = triples(np.array([0, 1, 2, 0xFFFFFFFF], np.uint32), extra=192)
    got, wanted = poisoned(x.size, np.uint32), poisoned(x.size, np.uint32)
    run("gfx942", "integer.hip", "add3", x, y, z, got, np.uint32(x.size))
    run_on_host("integer.hip", other, x, y, z, wanted, np.uint32(x.size))
    with pytest.raises(pytest.fail.Exception):
        assert_same(got, wanted)
    run_on_host("integer.hip", "add3", x, y, z, wanted, np.uint32(x.size))
    assert_same(got, wanted)


@needs_compiler
def test_code_is_cached_by_content(tmp_path: Path) -> None:
    source = tmp_path / "kernel.hip"
    source.write_text('#include "device.h"\nKERNEL(64) one(u32 *x) { *x = 1; }\n')
    (tmp_path / "device.h").write_bytes((KERNELS / "device.h").read_bytes())
    first = compiler.device_code(source, "gfx942")
    modified = first.stat().st_mtime_ns
    assert compiler.device_code(source, "gfx942") == first
    assert first.stat().st_mtime_ns == modified
    others = {
        compiler.device_code(source, "gfx950"),
        compiler.device_code(source, "gfx942", level=0),
        compiler.device_code(source, "gfx942", flags=("-DX",)),
    }
    source.write_text('#include "device.h"\nKERNEL(64) one(u32 *x) { *x = 2; }\n')
    others.add(compiler.device_code(source, "gfx942"))
    assert len(others | {first}) == 5


@needs_compiler
def test_errors_are_the_compilers(tmp_path: Path) -> None:
    source = tmp_path / "kernel.hip"
    source.write_text("int broken(")
    with pytest.raises(RuntimeError, match=r"kernel\.hip:1:\d+: error:"):
        compiler.device_code(source, "gfx942")
