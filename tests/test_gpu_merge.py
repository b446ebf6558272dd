# SPDX-License-Identifier: Apache-2.0
"""The merge through JAX: the handler, the driver, the loading of code and command buffers."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu_merge
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from emulator.runtime import Runtime
from merging import DTYPES, Problem

from jax_mla import _native

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not _native.device_code(), reason="built without device code (JAX_MLA_DEVICE=none)"
    ),
]

PROBLEMS = {
    "splits": Problem([0, 1, 16, 17, 40, 4096], splits=5, scale=0.37),
    "queries": Problem([2, 17, 33, 100], q_len=4),
    "groups": Problem([50, 9], heads=20, head_stride=1, groups=2, splits=4),
    "persistent": Problem([4096, 0, 2, 50], q_len=3, parts=[40, 0, 1, 2], scale=1.7),
    "clamped": Problem([-5, 2**31 - 1, 10**6], capacity=40, splits=4),
    "narrow": Problem([40, 7], latent_dim=256),
    "nobody": Problem([0, 0]),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_merge_against_float64(name: str, dtype: str) -> None:
    problem = PROBLEMS[name]
    problem.check(*gpu_merge.run(problem, dtype), dtype)


def test_an_empty_batch_launches_nothing() -> None:
    out, lse = gpu_merge.run(Problem([]))
    assert out.shape == (0, 1, 4, 512) and lse.shape == (0, 1, 4)


def test_command_buffers_replay_with_other_lengths(platform: str) -> None:
    """Six calls in a row are captured; each replay has its own partial results and lengths."""
    problems = [Problem(lengths, seed=sum(lengths)) for lengths in ([3, 90], [48, 0], [0, 17])]

    def chain(*arrays: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        partial, *rest = arrays
        results = []
        for _ in range(6):
            results.append(gpu_merge.merge(problems[0], "f32", partial, *rest))
            partial = partial.at[0, 0, 0, 0, 0].add(results[-1][0][0, 0, 0, 0] * 0)
        return results

    captured = jax.jit(chain)
    for turn in range(12):
        problem = problems[turn % 3]
        out, lse = gpu_merge.run(problem)
        for merged_out, merged_lse in captured(*gpu_merge.operands(problem)):
            np.testing.assert_array_equal(np.asarray(merged_out), out)
            np.testing.assert_array_equal(np.asarray(merged_lse), lse)
        problem.check(out, lse, "f32")
    if platform.startswith("emulated"):
        with Runtime().recording() as records:
            jax.block_until_ready(captured(*gpu_merge.operands(problems[0])))
        assert records.graph_launches > 0
        merges = [launch for launch in records.launches if "jax_mla_merge" in launch.kernel]
        assert len(merges) == 6


def test_one_launch_and_each_byte_once(platform: str) -> None:
    if not platform.startswith("emulated"):
        pytest.skip("asks the emulator")
    problem = Problem([100, 20, 0], splits=5)
    call = jax.jit(functools.partial(gpu_merge.merge, problem, "f32"))
    arrays = jax.device_put(gpu_merge.operands(problem))
    jax.block_until_ready(call(*arrays))
    with Runtime().recording() as records:
        jax.block_until_ready(call(*arrays))
    (launch,) = records.launches
    assert (records.copies, records.fills, records.module_loads) == (0, 0, [])
    traffic, used = launch.counters.traffic, len(problem.rows())
    assert traffic["partial"].read_total == used * 512 * 4
    assert traffic["partial_lse"].read_total == used * 4
    assert traffic["out"].written_total == 12 * 512 * 4
    assert traffic["lse"].written_total == 12 * 4


@pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")
def test_a_second_device() -> None:
    problem = PROBLEMS["queries"]
    call = jax.jit(functools.partial(gpu_merge.merge, problem, "f32"))
    out, lse = call(*jax.device_put(gpu_merge.operands(problem), jax.devices()[1]))
    assert out.device == jax.devices()[1]
    problem.check(np.asarray(out), np.asarray(lse), "f32")


FIRST_CALLS = """
import functools, threading
import jax, numpy as np
import gpu_merge
from emulator import environment
from emulator.runtime import Runtime
from merging import Problem

problem = Problem([50, 9], splits=4)
call = jax.jit(functools.partial(gpu_merge.merge, problem, "f32"))
places = [jax.device_put(gpu_merge.operands(problem), d) for d in jax.devices()[:2]]
programs = [call.lower(*arrays).compile() for arrays in places]
jax.block_until_ready(places)
ready, results = threading.Barrier(8), [None] * 8

def first_call(thread):
    ready.wait()
    results[thread] = programs[thread % len(places)](*places[thread % len(places)])

with Runtime().recording() as records:
    threads = [threading.Thread(target=first_call, args=(n,)) for n in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    jax.block_until_ready(results)
for out, lse in results:
    problem.check(np.asarray(out), np.asarray(lse), "f32")
loads = [names for names in records.module_loads if "jax_mla_merge_f32" in names]
print("loads", len(loads), "launches", len(records.launches))
"""


def test_first_calls_of_eight_threads_load_once_a_device(platform: str) -> None:
    if not platform.startswith("emulated"):
        pytest.skip("asks the emulator")
    program = "import platforms\n" + FIRST_CALLS
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["loads", "2", "launches", "8"], done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": np.zeros(2, np.float32)}, "lengths: expected dtype S32, got F32"),
        ({"partial_lse": np.zeros((2, 1, 3, 8), np.float32)}, "partial_lse: expected shape"),
        ({"partial": np.zeros((3, 1, 3, 16, 512), np.float32)}, "partial_lse: expected shape"),
        ({"groups": np.int64(2)}, "partial: expected 2 groups of 2 sequences, got 2"),
        ({"head_stride": np.int64(6)}, "1 groups of 16 rows do not hold 4 heads of stride 6"),
        ({"kv_block": np.int64(0)}, "expected a positive kv_block"),
        ({"persistent": True}, "reduce_indptr: expected shape"),
        ({"out": np.int32}, "out: expected dtype BF16, F16 or F32, got S32"),
        ({"heads": 0}, None),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str | None) -> None:
    operands = {
        "partial": np.zeros((2, 1, 3, 16, 512), np.float32),
        "partial_lse": np.zeros((2, 1, 3, 16), np.float32),
        "lengths": np.zeros(2, np.int32),
        "out_scale": np.ones((), np.float32),
    }
    attributes = {
        "persistent": False,
        "groups": np.int64(1),
        "head_stride": np.int64(4),
        "kv_block": np.int64(16),
        "capacity": np.int64(64),
    }
    change = dict(change)
    rows = (2, 1, change.pop("heads", 4))
    results = (
        jax.ShapeDtypeStruct((*rows, 512), change.pop("out", np.float32)),
        jax.ShapeDtypeStruct(rows, jnp.float32),
    )
    operands |= {name: x for name, x in change.items() if name in operands}
    attributes |= {name: x for name, x in change.items() if name in attributes}
    call = jax.ffi.ffi_call(gpu_merge.target(), results)
    if message is None:
        jax.block_until_ready(call(*operands.values(), **attributes))
        return
    with pytest.raises(jax.errors.JaxRuntimeError, match=re.escape(message)) as error:
        jax.block_until_ready(call(*operands.values(), **attributes))
    assert "INVALID_ARGUMENT: jax_mla merge: " in str(error.value)
    problem = PROBLEMS["narrow"]  # and nothing is broken
    problem.check(*gpu_merge.run(problem), "f32")
