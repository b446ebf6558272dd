# SPDX-License-Identifier: Apache-2.0
"""Times decode on a GPU through `jax.jit`, against XLA and a plain read of the same bytes.

python benchmarks/gpu.py  prints a markdown table. Calls follow one another without waiting, each on
other pages of a pool of more than twice the GPU's cache; a time is the median over bursts, and
dispatch by JAX is in it.
"""

import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jax_mla

POINTS = ((1, 1024), (1, 8192), (1, 65536), (4, 8192), (16, 1024), (16, 8192), (64, 8192),
          (128, 4096))  # fmt: skip
HEADS = (4, 16)
PAGE_SIZE = 64
POOL_TOKENS = 2**19  # 604 MB in bfloat16
BURSTS, CALLS = 9, 50


def main() -> None:
    pages = POOL_TOKENS // PAGE_SIZE
    pool = jax.random.normal(jax.random.key(0), (pages, PAGE_SIZE, 576), jnp.bfloat16)
    order = np.random.default_rng(0).permutation(pages).astype(np.int32)
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, bfloat16, pages of {PAGE_SIZE}\n"
    )
    print("| batch x tokens | heads | kernel, us | GB/s | xla / kernel | kernel / read |")
    print("|---|---|---|---|---|---|")
    for batch, tokens in POINTS:
        per_call = batch * tokens // PAGE_SIZE
        turns = max(pages // per_call, 1)
        tables = [
            jnp.asarray(order[turn * per_call :][:per_call].reshape(batch, -1))
            for turn in range(min(turns, CALLS))
        ]
        lengths = jnp.full((batch,), tokens, jnp.int32)
        size = batch * tokens * 576 * 2
        parts = [
            jax.lax.dynamic_slice_in_dim(pool, turn * per_call, per_call)
            for turn in range(min(turns, CALLS))
        ]
        read = burst_time(jax.jit(lambda x: x.astype(jnp.float32).sum()), [(p,) for p in parts])
        del parts
        for heads in HEADS:
            q = jax.random.normal(jax.random.key(1), (batch, heads, 576), jnp.bfloat16)
            arguments = [(q, pool, lengths, table) for table in tables]
            kernel, xla = (
                burst_time(
                    jax.jit(
                        functools.partial(
                            jax_mla.decode, scale=192**-0.5, implementation=implementation
                        )
                    ),
                    arguments,
                )
                for implementation in ("kernel", "xla")
            )
            print(
                f"| {batch} x {tokens} | {heads} | {kernel * 1e6:.1f} | {size / kernel / 1e9:.0f} "
                f"| {xla / kernel:.1f} | {kernel / read:.2f} |",
                flush=True,
            )


def burst_time(call: Callable[..., jax.Array], arguments: list[tuple[jax.Array, ...]]) -> float:
    """Seconds a call, median over bursts."""
    jax.block_until_ready(call(*arguments[0]))
    times = []
    for _ in range(BURSTS):
        start = time.perf_counter()
        for number in range(CALLS):
            result = call(*arguments[number % len(arguments)])
        jax.block_until_ready(result)
        times.append((time.perf_counter() - start) / CALLS)
    return statistics.median(times)


if __name__ == "__main__":
    main()
