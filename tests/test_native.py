# SPDX-License-Identifier: Apache-2.0
"""The extension: when it is registered, what its handlers refuse, what it exports."""

import pathlib
import subprocess
import sys

import pytest

from jax_mla import _native, native, workspace


def test_built_with_the_oldest_api_and_loaded() -> None:
    assert _native.ffi_api == (0, 1)
    assert native.ABSENT is None


def test_newer_headers_are_refused_and_nothing_breaks(tmp_path: pathlib.Path) -> None:
    """Registered, such a handler would take the CPU backend down with it."""
    header = tmp_path / "xla/ffi/api/c_api.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define XLA_FFI_API_MAJOR 0\n#define XLA_FFI_API_MINOR 0\n")
    program = f"""
import jax, jax.numpy as jnp
jax.ffi.include_dir = lambda: {str(tmp_path)!r}
import jax_mla
from jax_mla import native
print(native.ABSENT)
pool = jax_mla.append(
    jnp.zeros((2, 4, 8)), jnp.ones((1, 1, 8)), jnp.ones(1, "int32"), jnp.ones((1, 1), "int32")
)
print(float(pool.sum()))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    reason, total = result.stdout.splitlines()
    assert reason == (
        "jax_mla._native was built with XLA FFI API 0.1 and this jaxlib has 0.0; upgrade jaxlib"
    )
    assert float(total) == 8  # append found its way without the handler


def test_a_missing_extension_is_a_reason_not_an_error() -> None:
    program = """
import sys
sys.modules["jax_mla._native"] = None
import jax_mla
from jax_mla import native
print(native.LAUNCHES, native.ABSENT)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("frozenset() jax_mla._native: ")


def test_only_the_module_is_exported() -> None:
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", str(pathlib.Path(_native.__file__))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[-1] for line in symbols.stdout.splitlines()] == ["PyInit__native"]


@pytest.mark.parametrize("weights", [1, 2])
@pytest.mark.parametrize("pointers", [False, True])
@pytest.mark.parametrize(("rows", "latent_dim"), [(0, 512), (1, 512), (16 * 7, 256), (2**25, 512)])
def test_the_workspace_is_carved_alike(
    rows: int, latent_dim: int, pointers: bool, weights: int
) -> None:
    here = workspace.carve(rows, latent_dim, pointers=pointers, weights=weights)
    assert tuple(here) == _native.carve_workspace(rows, latent_dim, pointers, weights)


@pytest.mark.parametrize(
    ("platform", "library"), [("rocm", "libamdhip64.so.7"), ("cuda", "libcuda.so.1")]
)
def test_drivers_that_are_not_here_are_reasons(platform: str, library: str) -> None:
    found, text = _native.driver(platform)
    assert found or library in text


def test_no_such_platform() -> None:
    with pytest.raises(ValueError, match="expected 'rocm' or 'cuda', got 'metal'"):
        _native.driver("metal")
