# SPDX-License-Identifier: Apache-2.0
"""AITER missing, spoilt or foreign, programs for another GPU: said by name, and life goes on.

Each state is entered in a process of its own, which ends with a call that is in order.
"""

import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asm_call
import cases
import compare
import jax
import numpy as np
import oracle
import processes
import pytest

import jax_mla
from jax_mla import Target, _native, aiter, kernels
from jax_mla.kernels import Kernel
from jax_mla.target import resolve

pytestmark = [pytest.mark.rocm, pytest.mark.usefixtures("aiter_kernels")]

CASE = cases.make(4, lengths=(40, 0, 9), capacity=48, first_row=True)
MADE_UP = "ab" * 32  # a hash


def kernel_of_case() -> Kernel:
    bf16 = CASE.q.dtype
    return kernels.select(resolve(None, "rocm").arch, bf16, bf16, "split", q_len=1, heads=4)


# --- In the other process -------------------------------------------------------------------------


def decode(**options: Any) -> None:
    """A call that ends in an error or in the right numbers."""
    options |= CASE.options | {"return_residuals": True}
    with jax.default_matmul_precision("highest"):
        out, lse = jax.jit(lambda *x: jax_mla.decode(*x, **options))(*CASE.operands)
    compare.assert_close(np.asarray(out), np.asarray(lse), *oracle.decode(CASE))


def failure(call: Callable[[], Any]) -> str:
    try:
        call()
    except jax.errors.JaxRuntimeError as error:
        return str(error)
    raise AssertionError("no error")


def without_the_code_object() -> dict[str, Any]:
    """What can be done where the code object of the call cannot be had."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode()
        error = failure(lambda: decode(implementation="asm"))
        decode(num_kv_splits=2)  # another program
    said = [str(warning.message) for warning in caught if warning.category is UserWarning]
    return {"warnings": said, "error": error}


def lowered_for(arch: str) -> dict[str, Any]:
    target = Target(arch, 100)
    error = failure(lambda: decode(implementation="asm", target=target))
    decode(implementation="asm")
    return {"error": error}


def launched(*, symbol: str | None = None, content: bytes | None = None, arch: str = "") -> Any:
    """A call of a code object that is like the right one but for the arguments; twice."""
    found = aiter.find(kernel_of_case())
    _native.add_code_object(
        MADE_UP, "made_up", arch or found.arch, symbol or found.symbol, content or found.content
    )
    call = asm_call.split_call() | {"code_object": MADE_UP}
    error = failure(lambda: asm_call.run(call))
    assert failure(lambda: asm_call.run(call)) == error
    decode(implementation="asm")
    return {"error": error}


def of_another_platform() -> dict[str, Any]:
    found, reason = _native.driver("cuda")
    call = asm_call.split_call()
    error = failure(lambda: asm_call.run(call, target="jax_mla_decode_kernel_cuda_v1"))
    decode(implementation="asm")
    return {"found": found, "reason": reason, "error": error}


# --- From here ------------------------------------------------------------------------------------


def outcome(call: str, **environment: str | None) -> Any:
    return processes.call("test_rocm_bad_states", call, **environment)


def foreign(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def truncated(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def unlisted(file: Path) -> None:
    table = file.with_name(aiter.TABLE)
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if file.name not in line))


def writable(file: Path) -> None:
    file.parent.chmod(0o777)


def gone(file: Path) -> None:
    shutil.rmtree(file.parents[2])


@pytest.mark.parametrize(
    ("spoil", "unknown", "reason"),
    [
        (gone, "allow", r"AITER \(JAX_MLA_AITER_DIR\): .*No such file"),
        (foreign, None, r"another build \(SHA-256 .*JAX_MLA_AITER_UNKNOWN=allow uses it untested"),
        (truncated, "allow", r"\.co: .*"),
        (unlisted, "allow", r"mla_asm\.csv does not list "),
        (writable, "allow", r"others can write it, and it is code: chmod -R go-w "),
    ],
)
def test_a_spoilt_folder(
    spoil: Callable[[Path], None], unknown: str | None, reason: str, tmp_path: Path
) -> None:
    kernel = kernel_of_case()
    whole = aiter.discover(kernel.arch).folder
    assert whole is not None
    hsa = tmp_path / "hsa"
    shutil.copytree(whole / kernel.arch / "mla", hsa / kernel.arch / "mla")
    for path in (hsa, *hsa.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    spoil(hsa / kernel.arch / "mla" / f"{kernel.file}.co")
    result = outcome(
        "without_the_code_object()", JAX_MLA_AITER_DIR=str(hsa), JAX_MLA_AITER_UNKNOWN=unknown
    )
    (said,) = result["warnings"]  # once is enough
    assert re.search(f"lowering for rocm with implementation='kernel': .*{reason}", said), said
    needed = (
        f"FAILED_PRECONDITION: jax_mla decode: .*AITER's code object with SHA-256 {kernel.sha256}"
    )
    assert re.search(needed, result["error"]) and "python -m jax_mla doctor" in result["error"]


def test_a_program_for_another_arch() -> None:
    here = resolve(None, "rocm").arch
    (other,) = {"gfx942", "gfx950"} - {here}
    error = outcome(f"lowered_for({other!r})")["error"]
    said = (
        f"FAILED_PRECONDITION: jax_mla decode: the program was lowered for {other} and ROCm device"
    )
    assert said in error and f"is a {here}: lower it again, with target=None" in error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("content=b'broken'", "ROCm module_load_data: hipErrorInvalid"),
        ("symbol='no_such_kernel'", "ROCm module_get_function: hipErrorNotFound"),
        ("arch='gfx90a'", "AITER's made_up is for gfx90a, not gfx9"),
    ],
)
def test_a_code_object_that_the_driver_refuses(changes: str, message: str) -> None:
    error = outcome(f"launched({changes})")["error"]
    assert "FAILED_PRECONDITION: jax_mla decode: " in error
    assert message in error and "python -m jax_mla doctor" in error


def test_the_handlers_of_another_platform() -> None:
    result = outcome("of_another_platform()")
    if result["found"]:
        pytest.skip("CUDA's driver is here as well")
    assert "libcuda.so.1" in result["reason"]
    assert "jax_mla_decode_kernel_cuda_v1" in result["error"]
