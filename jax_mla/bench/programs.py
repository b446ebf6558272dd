# SPDX-License-Identifier: Apache-2.0
"""The programs whose times are compared, and how they are timed. See `jax_mla.bench`."""

import dataclasses
import functools
import gc
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_mla.bench.points import LATENT, SCALE, WIDTH, Point
from jax_mla.bench.summary import Summary, summarize
from jax_mla.decode import decode
from jax_mla.target import platform_of, resolve
from jax_mla.validation import is_fp8

LONG_BYTES = 1_000_000_000  # that a long program reads at least, as far as CALLS allows
POOL_BYTES = 640_000_000  # of the pages that programs draw from: more than two caches of an MI300X
FLUSH_BYTES = 256 << 20
CALLS = (10, 64)  # of a program, at least and at most
REPLAYS, FLUSHED_REPLAYS = 20, 200
BURSTS, BURST_CALLS, BURST_SECONDS = 5, 20, 0.1
SINGLE_SECONDS = 1.0
OVERHEAD_CALLS = 10
# One call after the other as they come, in command buffers however few they are.
_OPTIONS = {
    "xla_gpu_command_buffer_scheduling_mode": "SERIALIZE",
    "xla_gpu_graph_min_graph_size": 1,
}

Decode = Callable[..., Any]  # of q, pool, lengths and page_indices


def on_gpu() -> bool:
    """Whether the default device is one."""
    return platform_of(jax.devices()[0]) in ("rocm", "cuda")


@functools.cache
def compiler_options() -> dict[str, Any]:
    """Those of _OPTIONS that this XLA has."""

    def known(name: str) -> bool:
        try:
            jax.jit(lambda: jnp.int32(0), compiler_options={name: _OPTIONS[name]})()
        except Exception:  # plugins raise what they like
            return False
        return True

    return {name: _OPTIONS[name] for name in _OPTIONS if known(name)}


# --- Operands -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Operands:
    """Of a point.

    Attributes:
      q: `[batch, q_len, heads, width]`.
      pool: `[pages, page_size, width]`.
      lengths: `[batch]`.
      tables: page tables, one for each call of a program. They take the pool's pages in turn, and
        begin again where it ends.
      scales: of float8 operands.
    """

    q: jax.Array
    pool: jax.Array
    lengths: jax.Array
    tables: list[jax.Array]
    scales: dict[str, Any]

    def caller(self, function: Callable[..., Any]) -> Callable[[], Any]:
        """Calls of a function of q, pool, lengths and table, each with the next table."""
        turn = itertools.cycle(self.tables)
        return lambda: function(self.q, self.pool, self.lengths, next(turn))

    @property
    def warm_tables(self) -> list[jax.Array]:
        """As many that all hold the same pages. Arrays of their own: XLA merges equal calls."""
        return [jnp.array(self.tables[0]) for _ in self.tables]


def make_pool(point: Point) -> jax.Array:
    """At least two calls' pages, and POOL_BYTES; the numbers repeat."""
    turns = max(2, -(-POOL_BYTES // point.kv_bytes))
    return _random((turns * point.pages, point.page_size, WIDTH), _dtypes(point)[1])


def make_operands(point: Point, pool: jax.Array) -> Operands:
    """Random numbers; pages in shuffled order."""
    order = np.random.default_rng(0).permutation(len(pool)).astype(np.int32)
    turns = order[: len(order) // point.pages * point.pages].reshape(-1, point.pages)
    q_dtype, kv_dtype = _dtypes(point)
    scales = {"q_scale": q_dtype, "kv_scale": kv_dtype}
    return Operands(
        _random((point.batch, point.q_len, point.heads, WIDTH), q_dtype),
        pool,
        jnp.asarray(point.sequence_lengths),
        [jnp.asarray(point.page_table(turns[i % len(turns)])) for i in range(2 * calls_of(point))],
        {name: np.float32(1) for name, dtype in scales.items() if is_fp8(dtype)},
    )


def calls_of(point: Point) -> int:
    """Of the short program; the long one has twice as many."""
    return max(CALLS[0], min(CALLS[1], -(-LONG_BYTES // (2 * point.kv_bytes))))


def _dtypes(point: Point) -> tuple[np.dtype, np.dtype]:
    """Of q and the cache, float8 in the device's kind."""
    platform = platform_of(jax.devices()[0])
    fp8 = resolve(None, "rocm" if platform == "rocm" else "cuda").fp8_dtype
    bf16: np.dtype = jnp.dtype(jnp.bfloat16)
    return fp8 if point.dtypes == "fp8" else bf16, bf16 if point.dtypes == "bf16" else fp8


def _random(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Normally distributed numbers, about a million and then again: large pools take no time."""
    count, *row = shape
    rows = min(count, max(1, (1 << 20) // math.prod(row)))
    numbers = np.random.default_rng(0).standard_normal((rows, *row), np.float32).astype(dtype)
    if rows == count:
        return jnp.asarray(numbers)
    repeats = (-(-count // rows), *[1] * len(row))
    tiled: jax.Array = jax.jit(lambda x: jnp.tile(x, repeats)[:count])(numbers)
    return tiled


# --- Programs -------------------------------------------------------------------------------------


def ours(operands: Operands) -> Decode:
    """decode as a user calls it, less the jit."""
    return functools.partial(decode, scale=SCALE, latent_dim=LATENT, **operands.scales)


def plain(operands: Operands) -> Decode:
    """Decode as one writes it without a kernel: gather, einsum, softmax, einsum."""
    # The CPU of jax 0.7 refuses some products of bfloat16.
    dtype = jnp.bfloat16 if on_gpu() else jnp.float32
    factor = operands.scales.get("q_scale", 1) * operands.scales.get("kv_scale", 1) * SCALE

    def call(
        q: jax.Array, pool: jax.Array, lengths: jax.Array, page_indices: jax.Array
    ) -> jax.Array:
        kv = pool[page_indices].reshape(len(q), -1, WIDTH).astype(dtype)
        scores = jnp.einsum(
            "bqhw,bkw->bqhk", q.astype(dtype), kv, preferred_element_type=jnp.float32
        )
        seen = lengths[:, None] - q.shape[1] + jnp.arange(q.shape[1]) + 1
        mask = jnp.arange(kv.shape[1]) < seen[:, :, None, None]
        weights = jax.nn.softmax(jnp.where(mask, scores * factor, -jnp.inf)).astype(kv.dtype)
        return jnp.einsum("bqhk,bkl->bqhl", weights, kv[..., :LATENT]).astype(jnp.bfloat16)

    return call


def plain_fits(point: Point) -> bool:
    """Whether there is memory for what it gathers, in bfloat16, and for as much again."""
    statistics = jax.devices()[0].memory_stats()  # None on a CPU
    if not statistics or "bytes_limit" not in statistics:
        return point.kv_bytes < 1_000_000_000
    gathered = point.batch * point.pages_per_seq * point.page_size * WIDTH * 2
    return bool(3 * gathered < statistics["bytes_limit"] - statistics["bytes_in_use"])


def program(call: Decode, count: int) -> Any:
    """`count` calls, each with a table of its own; the result is a number of each.

    Takes all tables, whatever `count` is, so that its launch does not depend on it.
    """

    def run(
        q: jax.Array, pool: jax.Array, lengths: jax.Array, tables: Sequence[jax.Array]
    ) -> jax.Array:
        results = [call(q, pool, lengths, table) for table in tables[:count]]
        return jnp.stack([x[0, 0, 0, 0] for x in results])

    return jax.jit(run, keep_unused=True, compiler_options=compiler_options())


def read(pool: jax.Array, first: int, size: int) -> jax.Array:
    """Reads that part of a pool, in bytes: our kernel on a GPU, 8 blocks of threads to a unit."""
    if not on_gpu():
        numbers = pool.itemsize
        return jnp.sum(pool.reshape(-1)[first // numbers : (first + size) // numbers])
    platform = platform_of(jax.devices()[0])
    blocks = min(8 * resolve(None, platform).compute_units, -(-size // 4096))
    call = jax.ffi.ffi_call(
        f"jax_mla_read_{platform}_v1", jax.ShapeDtypeStruct((blocks, 8), jnp.uint32)
    )
    sums: jax.Array = call(pool, first=np.int64(first), size=np.int64(size))
    return sums


def read_program(size: int, count: int) -> Any:
    """`count` reads of `size` bytes, which take the pool's bytes in turn; a number of each."""

    def run(pool: jax.Array) -> jax.Array:
        turns = pool.nbytes // size
        results = []
        for i in range(count):
            # Less by a piece each time that the pool begins again: XLA merges equal calls.
            results.append(read(pool, i % turns * size, size - i // turns * 16))
        return jnp.stack([x.reshape(-1)[0] for x in results])

    return jax.jit(run, compiler_options=compiler_options())


@functools.cache
def _flush_program() -> Any:
    return jax.jit(lambda x: x + 1, donate_argnums=0)


# --- Timing ---------------------------------------------------------------------------------------


def replayed(short: Callable[[], Any], long: Callable[[], Any], calls: int) -> Summary:
    """A call in the middle of others: what `long`, which has so many more, takes over `short`."""
    return _difference(short, long, calls, REPLAYS)


class Flush:
    """Reads and writes 256 MB, which leaves the cache full of other, modified lines."""

    def __init__(self) -> None:
        self.scratch = jnp.zeros(FLUSH_BYTES // 4, jnp.int32)

    def __call__(self) -> jax.Array:
        self.scratch = _flush_program()(self.scratch)
        return self.scratch

    def timed(self, call: Callable[[], Any]) -> Summary:
        """A call that was queued behind a flush: flush and call, less the flush alone."""

        def flush_and_call() -> Any:
            self()
            return call()

        return _difference(self, flush_and_call, 1, FLUSHED_REPLAYS)


def _difference(
    short: Callable[[], Any], long: Callable[[], Any], calls: int, replays: int
) -> Summary:
    """In turns, since clocks drift. Results are dropped before the next: addresses stay."""
    for _ in range(3):
        jax.block_until_ready(short())
        jax.block_until_ready(long())
    gc.collect()
    times = [waited(long) - waited(short) for _ in range(replays)]
    return summarize([t / calls for t in times], calls)


def waited(call: Callable[[], Any]) -> float:
    """Seconds until the result is there."""
    start = time.perf_counter()
    result = call()
    jax.block_until_ready(result)
    return time.perf_counter() - start


def single(call: Callable[[], Any]) -> Summary:
    """Calls that are waited for."""
    jax.block_until_ready(call())
    count = max(5, min(REPLAYS, int(SINGLE_SECONDS / waited(call))))
    return summarize([waited(call) for _ in range(count)])


def burst(call: Callable[[], Any]) -> Summary:
    """Calls that follow one another without waiting, dispatch included."""
    jax.block_until_ready(call())
    count = max(1, min(BURST_CALLS, int(BURST_SECONDS / waited(call))))
    times = [waited(lambda: [call() for _ in range(count)]) / count for _ in range(BURSTS)]
    return summarize(times, count)


def overhead(decode: Callable[..., Any], operands: Operands) -> Summary:
    """What an asynchronous call without work keeps the host for, less an empty program."""
    empty = jax.jit(lambda q, pool, lengths, table: lengths + 1, keep_unused=True)
    idle = dataclasses.replace(operands, lengths=jnp.zeros_like(operands.lengths))
    calls = idle.caller(decode), idle.caller(empty)
    for call in calls:
        jax.block_until_ready(call())
    times = []
    for _ in range(REPLAYS):
        ours, theirs = map(_dispatched, calls)
        times.append(ours - theirs)
    return summarize(times, OVERHEAD_CALLS)


def _dispatched(call: Callable[[], Any]) -> float:
    """Seconds that the host is kept by a call."""
    start = time.perf_counter()
    results = [call() for _ in range(OVERHEAD_CALLS)]
    seconds = time.perf_counter() - start
    jax.block_until_ready(results)
    return seconds / OVERHEAD_CALLS
