# SPDX-License-Identifier: Apache-2.0
"""FFI custom calls on ROCm: launches, command buffers and their replay, extents, streams."""

import os
import subprocess
import sys
from collections.abc import Iterator

import jax
import numpy as np
import pytest
import rocm_calls
from emulator import compiler
from emulator.runtime import Runtime

pytestmark = [
    pytest.mark.rocm,
    pytest.mark.skipif(bool(compiler.why_missing()), reason=compiler.why_missing()),
]

COUNT = 128


@pytest.fixture
def runtime(platform: str) -> Iterator[Runtime]:
    if not platform.startswith("emulated"):
        pytest.skip("asks the emulator")
    emulated = Runtime()
    emulated.take_reports()
    yield emulated
    emulated.take_reports()


def numbers(start: int) -> jax.Array:
    return jax.device_put(np.arange(start, start + COUNT, dtype=np.int32))


def chain(x: jax.Array) -> jax.Array:
    """Enough calls in a row for XLA to make a command buffer of them."""
    for _ in range(6):
        x = rocm_calls.double_and_increment(x)
    return x


def chain_in_numpy(x: jax.Array) -> np.ndarray:
    return 64 * np.asarray(x) + 63


def test_a_call_with_a_workspace() -> None:
    x = numbers(5)
    y = jax.jit(rocm_calls.double_and_increment)(x)
    np.testing.assert_array_equal(np.asarray(y), 2 * np.asarray(x) + 1)


def test_launches_are_recorded_with_their_traffic(runtime: Runtime) -> None:
    function = jax.jit(rocm_calls.double_and_increment)
    x = numbers(0)
    jax.block_until_ready(function(x))
    with runtime.recording() as records:
        jax.block_until_ready(function(x))
    first, second = records.launches
    assert (first.kernel, second.kernel) == ("to_workspace", "from_workspace")
    assert first.grid == (COUNT // 64, 1, 1)
    assert first.block == (64, 1, 1)
    assert first.counters.waves == first.counters.workgroups == COUNT // 64
    # Each wave loads and stores once; that the kernel is so short is the compiler's doing.
    assert first.counters.vector_memory == 2 * first.counters.waves
    assert first.counters.traffic["operand 0"].read_distinct == 4 * COUNT
    assert first.counters.traffic["operand 0"].written_total == 0
    assert first.counters.traffic["result 1"].written_distinct == 4 * COUNT
    assert second.counters.traffic["result 1"].read_total == 4 * COUNT
    assert second.counters.traffic["result 0"].written_total == 4 * COUNT


def test_command_buffer_is_replayed_with_new_inputs() -> None:
    function = jax.jit(chain)
    for start in (0, 7, -3, 1000, 2):
        x = numbers(start)
        np.testing.assert_array_equal(np.asarray(function(x)), chain_in_numpy(x))


def test_command_buffer_follows_changed_addresses(runtime: Runtime) -> None:
    """Results that are kept take new memory each time, so the graph must be updated."""
    function = jax.jit(chain)
    inputs = [numbers(start) for start in range(6)]
    with runtime.recording() as records:
        kept = [jax.block_until_ready(function(x)) for x in inputs]
    assert len({y.unsafe_buffer_pointer() for y in kept}) == len(kept)
    for x, y in zip(inputs, kept, strict=True):
        np.testing.assert_array_equal(np.asarray(y), chain_in_numpy(x))
    assert records.graph_launches > 0


def test_command_buffer_is_one_graph_launch(runtime: Runtime) -> None:
    function = jax.jit(chain)
    for start in range(3):
        jax.block_until_ready(function(numbers(start)))
    x = numbers(11)
    with runtime.recording() as records:
        y = jax.block_until_ready(function(x))
    np.testing.assert_array_equal(np.asarray(y), chain_in_numpy(x))
    assert records.graph_launches == 1
    assert records.graph_nodes == len(records.launches) == 12


def test_overrun_by_one_element_between_two_arrays(runtime: Runtime) -> None:
    """All arrays lie in one allocation: only the handler knows where its own end."""
    function = jax.jit(lambda x: rocm_calls.call("test_launch", "overrun", x, confined=True)[0])
    with pytest.raises(jax.errors.JaxRuntimeError):
        jax.block_until_ready(function(numbers(0)))
    report = runtime.take_reports()
    assert "overrun" in report
    # Whether another array lies right behind is XLA's choice.
    assert "0 bytes past the end of 'result 0'" in report or "byte 0 of 'operand 0'" in report
    y = jax.jit(rocm_calls.double_and_increment)(numbers(3))  # JAX lives on
    np.testing.assert_array_equal(np.asarray(y), 2 * np.arange(3, 3 + COUNT) + 1)


def test_without_extents_the_overrun_is_not_seen(runtime: Runtime) -> None:
    """Why handlers declare extents, and proof that the report above comes from them."""
    function = jax.jit(lambda x: rocm_calls.call("test_launch", "overrun", x, confined=False)[0])
    y = np.asarray(function(numbers(0)))
    np.testing.assert_array_equal(y[1:], np.arange(COUNT - 1))
    assert runtime.take_reports() == ""


# --- Streams: what only shows when they do not run in order ---------------------------------------

PROGRAM = """
import sys
from emulator import environment
environment.activate()
import jax, jax.numpy as jnp, numpy as np, rocm_calls
forget = sys.argv[1] == "forget"
aside = lambda x: rocm_calls.call("test_launch_aside", "increment", x, forget=forget)[0]

@jax.jit
def program(x):
    for _ in range(8):
        x = aside(x) * 2
    return x

wrong = 0
for start in range(4):
    x = np.arange(start, start + 64, dtype=np.int32)
    want = 256 * x + 510
    wrong += not np.array_equal(np.asarray(program(x)), want)
print("wrong", wrong)
"""


def runs_that_were_wrong(handler: str, streams: str) -> int:
    environment = os.environ | {
        "JAX_MLA_EMULATOR": f"{os.environ['JAX_MLA_EMULATOR']},devices=1,{streams}"
    }
    command = [sys.executable, "-c", PROGRAM, handler]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("seed", [1, 2])
def test_a_handler_that_forgets_to_wait_is_found_out(runtime: Runtime, seed: int) -> None:
    assert runs_that_were_wrong("forget", f"streams=random,seed={seed}") > 0


def test_a_handler_that_forgets_to_wait_goes_unseen_in_order(runtime: Runtime) -> None:
    assert runs_that_were_wrong("forget", "streams=ordered") == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_handler_that_waits_is_right_in_any_order(runtime: Runtime, seed: int) -> None:
    assert runs_that_were_wrong("wait", f"streams=random,seed={seed}") == 0


def test_jax_itself_is_right_in_any_order(runtime: Runtime) -> None:
    """The runtime's random order is a legal one: XLA's own programs and graphs stay right."""
    program = """
from emulator import environment
environment.activate()
import jax, numpy as np, rocm_calls
from test_rocm_calls import chain, chain_in_numpy, numbers
function = jax.jit(chain)
wrong = sum(
    not np.array_equal(np.asarray(function(x)), chain_in_numpy(x)) for x in map(numbers, range(5))
)
mean = jax.jit(lambda a: (a @ a.T).mean(0))(np.ones((16, 16), np.float32))
wrong += not np.array_equal(np.asarray(mean), np.full(16, 16.0))
print("wrong", wrong)
"""
    environment = os.environ | {
        "JAX_MLA_EMULATOR": f"{os.environ['JAX_MLA_EMULATOR']},devices=1,streams=random,seed=5"
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split()[-2:] == ["wrong", "0"], done.stderr


def test_a_kernel_that_is_not_there(runtime: Runtime) -> None:
    function = jax.jit(lambda x: rocm_calls.call("test_launch", "missing", x, confined=True)[0])
    with pytest.raises(jax.errors.JaxRuntimeError, match="missing"):
        jax.block_until_ready(function(numbers(0)))


def test_a_fault_is_an_error_with_a_report(runtime: Runtime) -> None:
    """An address at which nothing was ever allocated."""
    function = jax.jit(lambda x: rocm_calls.call("test_launch", "astray", x, confined=False)[0])
    with pytest.raises(jax.errors.JaxRuntimeError):
        jax.block_until_ready(function(numbers(0)))
    report = runtime.take_reports()
    assert "astray" in report
    assert "global_store_dword" in report
