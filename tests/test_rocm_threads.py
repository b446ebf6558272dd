# SPDX-License-Identifier: Apache-2.0
"""First calls of many threads at once: every code object is loaded once on each device."""

import functools
import itertools
import threading
from collections import Counter
from typing import Any

import cases
import compare
import jax
import numpy as np
import oracle
import processes
import pytest
from emulator.runtime import Runtime

import jax_mla
from jax_mla.kernels import MODES

pytestmark = [pytest.mark.rocm, pytest.mark.usefixtures("aiter_kernels")]

DEVICES, THREADS = 2, 8
#: Kernels of ours, in code objects of their own.
OURS = ("jax_mla_expand", "jax_mla_plan", "jax_mla_pointers", "jax_mla_merge_bf16")


def step(case: cases.Case, mode: str, *operands: jax.Array) -> Any:
    num_pages, page_size, _ = case.kv_pages.shape
    metadata = jax_mla.make_metadata(
        *operands[2:],
        page_size=page_size,
        num_pages=num_pages,
        heads=case.q.shape[2],
        q_dtype=case.q.dtype,
        kv_dtype=case.kv_pages.dtype,
        mode=mode,
    )
    options = case.options | {"metadata": metadata, "implementation": "asm"}
    return jax_mla.decode(*operands, **options, return_residuals=True)


def first_calls() -> dict[str, int]:
    """In a new process: how often each kernel was loaded, where there are none of XLA's."""
    case = cases.make(4, lengths=(40, 9), capacity=48, first_row=True)
    programs = []
    for mode, device in itertools.product(MODES, jax.devices("rocm")[:DEVICES]):
        operands = jax.device_put(case.operands, device)
        lowered = jax.jit(functools.partial(step, case, mode)).lower(*operands)
        programs.append((lowered.compile(), operands))
    jax.block_until_ready([operands for _, operands in programs])
    ready, results = threading.Barrier(THREADS), [None] * THREADS

    def call(thread: int) -> None:
        program, operands = programs[thread % len(programs)]
        ready.wait()
        results[thread] = program(*operands)

    with Runtime().recording() as records:
        threads = [threading.Thread(target=call, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        jax.block_until_ready(results)
    expected = oracle.decode(case)
    for out, lse in results:
        compare.assert_close(np.asarray(out), np.asarray(lse), *expected)
    return Counter(name for names in records.module_loads for name in names)


def test_each_code_object_is_loaded_once_a_device(platform: str) -> None:
    if not platform.startswith("emulated"):
        pytest.skip("asks the emulator")
    loads = processes.call("test_rocm_threads", "first_calls()")
    ours = {name: loads.pop(name) for name in OURS}
    assert ours == dict.fromkeys(OURS, DEVICES)
    aiter = [count for name, count in loads.items() if "a16w16" in name]
    assert aiter == [DEVICES] * len(MODES)
