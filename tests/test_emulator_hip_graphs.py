# SPDX-License-Identifier: Apache-2.0
"""The emulated HIP runtime: stream capture and graphs."""

import ctypes
from collections.abc import Iterator
from ctypes import byref, c_void_p

import hip
import numpy as np
import pytest


@pytest.fixture
def device() -> Iterator[hip.Hip]:
    yield hip.load()
    hip.load().runtime.take_reports()


def instantiate(device: hip.Hip, graph: c_void_p | int) -> int:
    return device.make("hipGraphInstantiate", graph, None, None, 0)


def zeros(device: hip.Hip) -> int:
    return device.to_device(np.zeros(4, np.int32))


def fill(device: hip.Hip, address: int, value: int, stream: int) -> None:
    hip.ok(device.hipMemsetD32Async(address, value, 4, stream))


def values(device: hip.Hip, address: int) -> set[int]:
    return set(device.to_host(address, 4).tolist())


def test_captured_work_runs_at_each_launch_and_not_before(device: hip.Hip) -> None:
    stream, address = device.stream(), zeros(device)
    with device.capture(stream) as graph:
        fill(device, address, 7, stream)
    assert values(device, address) == {0}
    executable = instantiate(device, graph)
    for _ in range(2):
        fill(device, address, 1, stream)
        with device.runtime.recording() as records:
            hip.ok(device.hipGraphLaunch(executable, stream))
            hip.ok(device.hipStreamSynchronize(stream))
        assert values(device, address) == {7}
        assert (records.graph_launches, records.graph_nodes, records.fills) == (1, 1, 1)


def test_forked_streams_are_captured_with_their_order(device: hip.Hip) -> None:
    main, side = device.stream(), device.stream()
    fork, join = device.event(), device.event()
    a, b = zeros(device), zeros(device)
    with device.capture(main) as graph:
        fill(device, a, 5, main)
        hip.ok(device.hipEventRecord(fork, main))
        hip.ok(device.hipStreamWaitEvent(side, fork, 0))
        hip.ok(device.hipMemcpyAsync(b, a, 16, 0, side))
        hip.ok(device.hipEventRecord(join, side))
        hip.ok(device.hipStreamWaitEvent(main, join, 0))
        fill(device, a, 6, main)
    hip.ok(device.hipGraphLaunch(instantiate(device, graph), main))
    assert (values(device, a), values(device, b)) == ({6}, {5})
    fill(device, a, 1, side)  # no longer captured
    assert values(device, a) == {1}


def test_a_fork_that_does_not_come_back(device: hip.Hip) -> None:
    main, side, fork, graph = device.stream(), device.stream(), device.event(), c_void_p()
    address = zeros(device)
    hip.ok(device.hipStreamBeginCapture(main, 0))
    hip.ok(device.hipEventRecord(fork, main))
    hip.ok(device.hipStreamWaitEvent(side, fork, 0))
    fill(device, address, 1, side)
    assert device.hipStreamEndCapture(main, byref(graph)) == hip.CAPTURE_UNJOINED
    assert not graph.value


def test_waiting_while_capturing(device: hip.Hip) -> None:
    stream, graph = device.stream(), c_void_p()
    hip.ok(device.hipStreamBeginCapture(stream, 0))
    assert device.hipStreamSynchronize(stream) == hip.CAPTURE_UNSUPPORTED
    assert device.hipStreamEndCapture(stream, byref(graph)) == hip.CAPTURE_INVALIDATED
    hip.ok(device.hipStreamSynchronize(stream))


@pytest.mark.parametrize("mode", [0, 1], ids=["global", "thread local"])
def test_allocating_while_capturing(device: hip.Hip, mode: int) -> None:
    stream, pointer = device.stream(), c_void_p()
    with device.capture(stream, mode):
        code = device.hipMalloc(byref(pointer), ctypes.c_size_t(64))
        assert code == hip.CAPTURE_UNSUPPORTED
    hip.ok(device.hipMalloc(byref(pointer), ctypes.c_size_t(64)))


def test_waiting_for_an_event_from_outside_while_capturing(device: hip.Hip) -> None:
    stream, event = device.stream(), device.event()
    hip.ok(device.hipEventRecord(event, None))
    with device.capture(stream):
        assert device.hipStreamWaitEvent(stream, event, 0) == hip.CAPTURE_ISOLATION


def test_nodes_are_updated_in_the_executable_only(device: hip.Hip) -> None:
    a, b, c = (device.to_device(np.full(4, v, np.int32)) for v in (1, 2, 3))
    to, stream = zeros(device), device.stream()
    graph = device.make("hipGraphCreate", 0)
    node = device.make("hipGraphAddMemcpyNode1D", graph, None, 0, to, a, 16, 0)
    first, second = instantiate(device, graph), instantiate(device, graph)
    hip.ok(device.hipGraphExecMemcpyNodeSetParams1D(second, node, to, b, 16, 0))
    for executable, value in ((first, 1), (second, 2), (first, 1)):
        hip.ok(device.hipGraphLaunch(executable, stream))
        assert values(device, to) == {value}
    code = device.hipGraphExecMemcpyNodeSetParams1D(second, node + 8, to, c, 16, 0)
    assert code == hip.INVALID_VALUE


def test_child_graphs_are_copies_and_can_be_exchanged(device: hip.Hip) -> None:
    stream, address = device.stream(), zeros(device)

    def filling(value: int) -> c_void_p:
        with device.capture(stream) as graph:
            fill(device, address, value, stream)
        return graph

    child, parent = filling(8), device.make("hipGraphCreate", 0)
    node = device.make("hipGraphAddChildGraphNode", parent, None, 0, child)
    hip.ok(device.hipGraphDestroy(child))
    executable = instantiate(device, parent)
    hip.ok(device.hipGraphLaunch(executable, stream))
    assert values(device, address) == {8}
    hip.ok(device.hipGraphExecChildGraphNodeSetParams(executable, node, filling(9)))
    hip.ok(device.hipGraphLaunch(executable, stream))
    assert values(device, address) == {9}


def test_edges_hold_in_any_order() -> None:
    """A diamond: whichever middle comes first, the end sees both."""
    program = """
import ctypes, hip
device, log = hip.load(), []
append = hip.HostFunction(lambda number: log.append(number))
main, side, fork, join = device.stream(), device.stream(), device.event(), device.event()
with device.capture(main) as graph:
    hip.ok(device.hipLaunchHostFunc(main, append, 1))
    hip.ok(device.hipEventRecord(fork, main))
    hip.ok(device.hipStreamWaitEvent(side, fork, 0))
    hip.ok(device.hipLaunchHostFunc(side, append, 2))
    hip.ok(device.hipLaunchHostFunc(main, append, 3))
    hip.ok(device.hipEventRecord(join, side))
    hip.ok(device.hipStreamWaitEvent(main, join, 0))
    hip.ok(device.hipLaunchHostFunc(main, append, 4))
executable = device.make("hipGraphInstantiate", graph, None, None, 0)
for _ in range(20):
    hip.ok(device.hipGraphLaunch(executable, main))
hip.ok(device.hipStreamSynchronize(main))
print(*("".join(map(str, log[i : i + 4])) for i in range(0, len(log), 4)))
"""
    assert set(hip.run_with("streams=random,seed=3", program).split()) == {"1234", "1324"}
