# SPDX-License-Identifier: Apache-2.0
"""Times decode through `jax.jit` on JAX's default device: `python -m jax_mla bench`.

What each column is, in microseconds for one call unless it says otherwise:

* cold: calls one after the other in one program, each on other pages of a pool of more than twice
  the cache. The time of a program of 2n calls less that of n calls, over n, so that neither launch
  nor dispatch is in it; median of 20 pairs, 10 <= n <= 64. XLA replays the calls from a command
  buffer (a CUDA or HIP graph) unless XLA_FLAGS=--xla_gpu_enable_command_buffer= forbids it. It is
  told to keep them in order (SERIALIZE): a dependency of one on the other would need a kernel of
  its own between them, which would be timed as well.
* read: the same number of bytes, read once by a kernel that does nothing else, in the same way.
  read / cold is the fraction of a plain read's speed that decode reaches.
* warm: as cold, but every call on the same pages, as many of which are in the cache as it holds.
* flushed: a call that was queued behind a program that reads and writes 256 MB. The time of both
  less that of the flush alone; median of 200. Goals are of triton.testing.do_bench on a graph of
  one call, which flushes in the same way; to that belongs the start of the graph, 4 us on an H200.
* jit: calls one after the other from Python, without waiting for each: what dispatch makes of it.
* jnp: plain jax.numpy (gather, einsum, softmax, einsum), as jit.
* overhead: how much longer an asynchronous call of decode keeps the host than an empty jitted call
  on the same operands; sequences are empty, so that the device is not in the way.

On a CPU, cold is the median of single calls that are waited for, and there is no warm, flushed or
overhead; benchmarks/decode.py does that better.

Spreads are between the quartiles. A point that fails says so, and the others go on.
"""

import argparse
import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jax_mla import __version__, kernel_page
from jax_mla.bench import clocks, programs, report
from jax_mla.bench.points import LENGTHS, Point, goal, sweep
from jax_mla.bench.programs import Operands
from jax_mla.bench.summary import Summary

_QUICK = (Point(1, 1024, 4), Point(4, 256, 16))


def add_arguments(parser: argparse.ArgumentParser, positive: Callable[[str], int]) -> None:
    """The options of the command."""

    def numbers(name: str, **options: Any) -> None:
        parser.add_argument(name, type=positive, nargs="+", metavar="N", **options)

    numbers("--batch", help="sequences; default: those of the goals, each with its tokens")
    numbers("--tokens", help="of a sequence, on average")
    numbers("--heads", help="query heads; default: those of the goals, 4 and 16")
    numbers("--page-size", default=[64], help="tokens of a page (64)")
    numbers("--q-len", default=[1], help="query tokens per sequence (1)")
    parser.add_argument(
        "--dtypes", nargs="+", choices=kernel_page.DTYPES, default=["bf16"], help="q-cache"
    )
    parser.add_argument(
        "--lengths", nargs="+", choices=LENGTHS, default=["equal"],
        help="all alike, or uniform in 1 to 2 * tokens - 1 with the same sum",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=200, help="start no point after (200)")
    parser.add_argument("--quick", action="store_true", help="two small points, as a smoke run")
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), help="for bench.json and bench.png"
    )


def main(options: argparse.Namespace) -> int:
    """Runs the sweep; the exit status is 1 if a point failed."""
    points = list(_QUICK) if options.quick else sweep(
        options.batch, options.tokens, options.heads, options.dtypes,
        options.page_size, options.q_len, options.lengths,
    )  # fmt: skip
    facts = describe()
    print(report.header(facts), flush=True)
    results: list[dict[str, Any]] = []
    start = time.monotonic()
    for point in points:
        if time.monotonic() - start > options.seconds:
            print(f"\nleft out for want of time: {len(points) - len(results)} points (--seconds)")
            break
        results.append(measure(point))
        print(report.row(results[-1]), flush=True)
    report.write(options.out, {**facts, "results": results})
    return 1 if any(result["error"] for result in results) else 0


def describe() -> dict[str, Any]:
    """What runs where."""
    device = jax.devices()[0]
    return {
        "command": ["python", "-m", "jax_mla", *sys.argv[1:]],
        "platform": device.platform,
        "device_kind": device.device_kind,
        "versions": {"jax_mla": __version__, "jax": jax.__version__},
        "compiler_options": programs.compiler_options(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def measure(point: Point) -> dict[str, Any]:
    """All times of a point, as a row of the JSON."""
    times: dict[str, Summary] = {}
    result: dict[str, Any] = {
        **dataclasses.asdict(point),
        "kv_bytes": point.kv_bytes,
        "goal": goal(point, jax.devices()[0].device_kind),
        "error": None,
        "clocks": None,
    }
    try:
        # Pools are shared by the points that differ in their queries only.
        shape = dataclasses.replace(point, heads=1, q_len=1)
        operands = programs.make_operands(point, _pool(shape))
        times |= _read(shape)
        if programs.on_gpu():
            _measure_replayed(point, operands, times, result)
        _measure_jitted(point, operands, times)
    except Exception as error:  # whatever it is, the other points are worth having
        result["error"] = f"{type(error).__name__}: {error}"
    result["times"] = {name: dataclasses.asdict(summary) for name, summary in times.items()}
    return result


@functools.lru_cache(maxsize=1)
def _pool(shape: Point) -> jax.Array:
    return programs.make_pool(shape)


@functools.lru_cache(maxsize=1)
def _read(shape: Point) -> dict[str, Summary]:
    """`read`, and on a GPU `read_flushed`."""
    calls = programs.calls_of(shape)
    once, short, long = (
        functools.partial(programs.read_program(shape.kv_bytes, n), _pool(shape))
        for n in (1, calls, 2 * calls)
    )
    if not programs.on_gpu():
        return {"read": programs.single(once)}
    return {
        "read": programs.replayed(short, long, calls),
        "read_flushed": programs.Flush().timed(once),
    }


def _measure_replayed(
    point: Point, operands: Operands, times: dict[str, Summary], result: dict[str, Any]
) -> None:
    """cold, warm and flushed, and the clocks meanwhile."""
    calls = programs.calls_of(point)
    decode = programs.ours(operands)
    short, long = (programs.program(decode, n) for n in (calls, 2 * calls))
    for name, tables in (("cold", operands.tables), ("warm", operands.warm_tables)):
        arguments = (operands.q, operands.pool, operands.lengths, tables)
        times[name] = programs.replayed(
            functools.partial(short, *arguments), functools.partial(long, *arguments), calls
        )
    in_flight = [long(*arguments) for _ in range(20)]
    result["clocks"] = clocks.read()
    jax.block_until_ready(in_flight)
    times["flushed"] = programs.Flush().timed(operands.caller(jax.jit(decode)))


def _measure_jitted(point: Point, operands: Operands, times: dict[str, Summary]) -> None:
    """jit, jnp where it fits, and overhead; on a CPU cold."""
    time_of = programs.burst if programs.on_gpu() else programs.single
    decode = jax.jit(programs.ours(operands))
    times["jit"] = time_of(operands.caller(decode))
    if programs.on_gpu():
        times["overhead"] = programs.overhead(decode, operands)
    else:
        times["cold"] = times["jit"]
    if programs.plain_fits(point):
        times["jnp"] = time_of(operands.caller(jax.jit(programs.plain(operands))))
