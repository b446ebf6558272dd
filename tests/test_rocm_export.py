# SPDX-License-Identifier: Apache-2.0
"""Programs that leave their process: lowered where there is no AITER, or compiled."""

import dataclasses
import functools
import pickle
from pathlib import Path
from typing import Any

import cases
import compare
import jax
import numpy as np
import oracle
import processes
import pytest
from jax import export
from jax.experimental import serialize_executable

import jax_mla
from jax_mla import Target, aiter, kernels
from jax_mla.kernels import MODES
from jax_mla.target import resolve

pytestmark = [pytest.mark.rocm, pytest.mark.usefixtures("aiter_kernels")]

CASE = cases.make(4, lengths=(40, 0, 9), capacity=48, first_row=True)
TARGETS = ("jax_mla_decode_asm_rocm_v1", "jax_mla_metadata_rocm_v1")


def decode(mode: str, target: Target | None, *operands: jax.Array) -> Any:
    num_pages, page_size, _ = CASE.kv_pages.shape
    metadata = jax_mla.make_metadata(
        *operands[2:],
        page_size=page_size,
        num_pages=num_pages,
        heads=CASE.q.shape[2],
        q_dtype=CASE.q.dtype,
        kv_dtype=CASE.kv_pages.dtype,
        mode=mode,
        target=target,
    )
    options = CASE.options | {"metadata": metadata, "implementation": "asm"}
    return jax_mla.decode(*operands, **options, return_residuals=True)


def check(results: Any) -> None:
    out, lse = map(np.asarray, results)
    compare.assert_close(out, lse, *oracle.decode(CASE))


def run(call: str, **environment: str) -> Any:
    return processes.call("test_rocm_export", call, **environment)


def save(mode: str, target: Target, hashes: dict[str, str], path: str) -> None:
    """In a process without a GPU and without AITER. Its table has the hashes of what is used."""
    assert aiter.discover(target.arch).absent and jax.default_backend() == "cpu"
    known = (dataclasses.replace(k, sha256=hashes.get(k.file, k.sha256)) for k in kernels.TABLE)
    kernels.TABLE = tuple(known)
    exported = export.export(
        jax.jit(functools.partial(decode, mode, target)),
        platforms=["rocm"],
        disabled_checks=[export.DisabledSafetyCheck.custom_call(name) for name in TARGETS],
    )(*CASE.operands)
    Path(path).write_bytes(exported.serialize())


@pytest.mark.parametrize("mode", MODES)
def test_exported_where_there_is_no_aiter(mode: str, tmp_path: Path) -> None:
    path, target = tmp_path / "program", resolve(None, "rocm")
    found = aiter.discover(target.arch).objects
    hashes = {file: code.sha256 for file, code in found.items()}
    run(
        f"save({mode!r}, {target!r}, {hashes!r}, {str(path)!r})",
        JAX_PLATFORMS="cpu",
        JAX_MLA_AITER_DIR=str(tmp_path / "no such folder"),
    )
    check(export.deserialize(path.read_bytes()).call(*CASE.operands))


def cached() -> dict[str, int]:
    """In a new process with a compilation cache: what came of it."""
    events: list[str] = []
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
    for mode in MODES:
        check(jax.jit(functools.partial(decode, mode, None))(*CASE.operands))
    names = ("cache_hits", "cache_misses")
    return {name: events.count(f"/jax/compilation_cache/{name}") for name in names}


def test_the_compilation_cache_serves_a_new_process(tmp_path: Path) -> None:
    """Compiled by the first, loaded by the second."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    first, second = (run("cached()", **cache) for _ in range(2))
    assert first["cache_misses"] >= len(MODES)
    assert second == {"cache_hits": first["cache_misses"], "cache_misses": 0}


def load(paths: list[str]) -> None:
    """In a new process, which traces and lowers nothing."""
    for path in paths:
        program = serialize_executable.deserialize_and_load(
            *pickle.loads(Path(path).read_bytes()), execution_devices=jax.devices()[:1]
        )
        check(program(*CASE.operands))


def test_a_compiled_program_is_loaded_by_a_new_process(tmp_path: Path) -> None:
    paths = []
    for mode in MODES:
        compiled = jax.jit(functools.partial(decode, mode, None)).lower(*CASE.operands).compile()
        paths.append(str(tmp_path / mode))
        Path(paths[-1]).write_bytes(pickle.dumps(serialize_executable.serialize(compiled)))
    run(f"load({paths!r})")
