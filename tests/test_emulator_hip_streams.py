# SPDX-License-Identifier: Apache-2.0
"""The emulated HIP runtime: the order of streams and events, in order and at random."""

import json

import hip
import pytest

# Two streams whose tasks write down their numbers; `edge` lets 4 come after 2.
PROGRAM = """
import json, hip
device, log = hip.load(), []
append = hip.HostFunction(lambda number: log.append(number))
a, b, event = device.stream(), device.stream(), device.event()
for number in (1, 2, 3):
    hip.ok(device.hipLaunchHostFunc(a, append, number))
    if number == 2:
        hip.ok(device.hipEventRecord(event, a))
if {edge}:
    hip.ok(device.hipStreamWaitEvent(b, event, 0))
for number in (4, 5, 6):
    hip.ok(device.hipLaunchHostFunc(b, append, number))
at_once = len(log)
hip.ok(device.hipDeviceSynchronize())
print(json.dumps([at_once, log]))
"""
SEEDS = range(8)


def run(options: str, edge: bool) -> tuple[int, list[int]]:
    """How many tasks were done when the host had queued all, and the order of all."""
    at_once, log = json.loads(hip.run_with(options, PROGRAM.format(edge=edge)))
    return at_once, log


def test_in_order_all_is_done_at_once() -> None:
    assert run("streams=ordered", edge=False) == (6, [1, 2, 3, 4, 5, 6])


def test_random_orders_are_legal_and_different() -> None:
    logs, host_ran_ahead = [], False
    for seed in SEEDS:
        at_once, log = run(f"streams=random,seed={seed}", edge=False)
        host_ran_ahead |= at_once < 6
        assert [n for n in log if n <= 3] == [1, 2, 3]
        assert [n for n in log if n > 3] == [4, 5, 6]
        logs.append(tuple(log))
    assert host_ran_ahead
    assert len(set(logs)) > 2
    assert any(log.index(4) < log.index(2) for log in logs)


def test_an_event_is_waited_for_in_any_order() -> None:
    for seed in SEEDS:
        _, log = run(f"streams=random,seed={seed}", edge=True)
        assert log.index(2) < log.index(4)


def test_the_default_stream_waits_for_blocking_ones_and_they_for_it() -> None:
    program = """
import ctypes, hip
device, log = hip.load(), []
append = hip.HostFunction(lambda number: log.append(number))
blocking = device.make("hipStreamCreateWithFlags", ctypes.c_uint(0))
for stream, number in ((blocking, 1), (None, 2), (blocking, 3), (None, 4)):
    hip.ok(device.hipLaunchHostFunc(stream, append, number))
hip.ok(device.hipDeviceSynchronize())
print(log)
"""
    for seed in SEEDS:
        assert hip.run_with(f"streams=random,seed={seed}", program).strip() == "[1, 2, 3, 4]"


def test_queries_and_waits_of_a_busy_stream() -> None:
    program = """
import threading, hip
device, gate = hip.load(), threading.Event()
stop = hip.HostFunction(lambda _: gate.wait())
stream, event = device.stream(), device.event()
hip.ok(device.hipLaunchHostFunc(stream, stop, None))
hip.ok(device.hipEventRecord(event, stream))
print(device.hipStreamQuery(stream), device.hipEventQuery(event))
gate.set()
hip.ok(device.hipEventSynchronize(event))
hip.ok(device.hipStreamSynchronize(stream))
print(device.hipStreamQuery(stream), device.hipEventQuery(event))
"""
    output = hip.run_with("streams=random", program)
    assert output.split() == [str(hip.NOT_READY)] * 2 + [str(hip.SUCCESS)] * 2


def test_an_error_behind_the_hosts_back_is_told_by_the_next_wait() -> None:
    program = """
import hip
device = hip.load()
address, stream = device.malloc(64), device.stream()
hip.ok(device.hipMemsetD32Async(address, 1, 17, stream))
print(device.hipStreamSynchronize(stream), device.hipStreamSynchronize(stream))
print(device.runtime.take_reports())
"""
    codes, report = hip.run_with("streams=random", program).split("\n", 1)
    assert codes.split() == [str(hip.INVALID_VALUE), str(hip.SUCCESS)]
    assert "fill of 68 bytes" in report


@pytest.mark.parametrize("options", ["streams=sideways", "speed=3", "devices=two"])
def test_options_that_mean_nothing_are_refused(options: str) -> None:
    with pytest.raises(AssertionError, match="no meaning"):
        hip.run_with(options, "import hip; hip.load().hipDeviceSynchronize()")
