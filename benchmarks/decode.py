# SPDX-License-Identifier: Apache-2.0
"""Times jax_mla.decode against decode written out in jnp and PyTorch: a table, JSON and a plot.

python benchmarks/decode.py [--quick] [--batch N ...] [--tokens N ...] [--heads N ...]
                            [--entries NAME ...] [--out DIR]

Caches are bfloat16, sequences full, pages shuffled. Calls take their pages in turn from a pool that
no cache holds. A time is that of one call that is waited for, so its launch is in it.
"""

import argparse
import functools
import importlib
import itertools
import json
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import floors
import jax
import jax.numpy as jnp
import numpy as np
import written_out
from written_out import BLOCK, LATENT, SCALE, WIDTH

import jax_mla
from jax_mla import native

PAGE_SIZE = 64
TOKEN_BYTES = WIDTH * 2
POOL_BYTES = 640_000_000  # more than two last-level caches, also of an MI300X (256 MB)
TOLERANCE = 2e-2  # of the largest output, which bfloat16 rounds by up to 4e-3
SETTLE = 0.01  # seconds of a burst before timing: the previous entry's threads may still spin
BURST_CALLS, BURST_SECONDS = 5, 0.05
QUANTILES = (0, 5, 10, 25, 50, 75, 90, 95, 100)
# What is timed: how plots call it, and its colour.
STYLES = {
    "decode": ("jax_mla.decode", "#0072b2"),
    "avx2": ("jax_mla.decode, AVX2 alone", "#56b4e9"),
    "xla": ("jax_mla.decode, implementation='xla'", "#009e73"),
    "jnp": ("plain jnp", "#d55e00"),
    "blockwise": ("blockwise jnp", "#e69f00"),
    "torch_attention": ("PyTorch, gather and SDPA", "#666666"),
    "torch_products": ("PyTorch, gather and products", "#aaaaaa"),
    "read": ("reading the pages", "#000000"),
    "products": ("the dot products alone", "#cc79a7"),
}
FLOORS = ("read", "products")


class Pool(NamedTuple):
    pages: jax.Array  # [pages, PAGE_SIZE, WIDTH]
    bits: jax.Array  # the same as uint16
    order: np.ndarray  # in which tables take the pages
    torch_pages: Any


class Entry(NamedTuple):
    name: str
    call: Callable[[int], Any]  # decodes with the table of that number, returns the finished result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    option = functools.partial(parser.add_argument, type=int, nargs="+", metavar="N")
    option("--batch", help="sequences, default: 1 8 32")
    option("--tokens", help="of each sequence, default: 1024 4096 16384")
    option("--heads", help="default: 4 16")
    parser.add_argument("--entries", nargs="+", choices=STYLES, help="besides decode, default: all")
    parser.add_argument("--quick", action="store_true", help="a smoke run: small sizes, few calls")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), metavar="DIR")
    args = parser.parse_args()
    batches = args.batch or ([1, 8] if args.quick else [1, 8, 32])
    lengths = args.tokens or ([1024] if args.quick else [1024, 4096, 16384])
    heads = args.heads or [4, 16]
    if min(*batches, *lengths, *heads) < 1 or any(n % BLOCK for n in lengths):
        parser.error(f"expected positive numbers, and --tokens in multiples of {BLOCK}")
    names = ["decode", *(name for name in args.entries or STYLES if name != "decode")]

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves torch room on a GPU
    overhead = measure_overhead()  # before PyTorch has threads
    torch = load_torch()
    largest = max(batches) * max(lengths) * TOKEN_BYTES
    pool = make_pool(max(POOL_BYTES // 4 if args.quick else POOL_BYTES, largest), torch)
    facts = describe(pool, torch)
    print_header(facts, names)
    results = []
    for shape in itertools.product(heads, lengths, batches):
        results.append(measure(pool, torch, *shape, names, quick=args.quick))
        print(format_row(results[-1]), flush=True)
    print(", ".join(f"{name} {value:.1f}" for name, value in overhead.items()))
    print("decode was lowered to:", ", ".join(sorted({r["lowered_to"] for r in results})))
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "decode.json"
    path.write_text(json.dumps({**facts, **overhead, "results": results}, indent=1) + "\n")
    print("wrote", path)
    plot(facts, results, args.out / "decode.png")


# --- What is timed --------------------------------------------------------------------------------


def load_torch() -> Any:
    """torch, or None if it is not installed or has no GPU where jax has one."""
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        return None
    if jax.default_backend() != "cpu":
        return torch if torch.cuda.is_available() else None
    torch.set_num_threads(os.cpu_count())
    return torch


def make_pool(num_bytes: int, torch: Any) -> Pool:
    rng = np.random.default_rng(0)
    shape = (-(-num_bytes // (PAGE_SIZE * TOKEN_BYTES)), PAGE_SIZE, WIDTH)
    pages = rng.standard_normal(shape, np.float32).astype(jnp.bfloat16)
    order = rng.permutation(shape[0]).astype(np.int32)
    torch_pages = None
    if torch is not None:
        device = "cpu" if jax.default_backend() == "cpu" else "cuda"
        torch_pages = torch.from_numpy(pages.view(np.int16)).view(torch.bfloat16).to(device)
    return Pool(jnp.asarray(pages), jnp.asarray(pages.view(np.uint16)), order, torch_pages)


def make_entries(
    pool: Pool, torch: Any, heads: int, tokens: int, batch: int, names: list[str]
) -> tuple[list[Entry], int, str]:
    """Those of the entries that there are here, the number of tables, and what decode became."""
    used = batch * tokens // PAGE_SIZE
    num_tables = len(pool.order) // used
    tables = list(pool.order[: num_tables * used].reshape(num_tables, batch, -1))
    page_indices = [jnp.asarray(table) for table in tables]
    lengths = jnp.full(batch, tokens, jnp.int32)
    q = jax.random.normal(jax.random.key(0), (batch, heads, WIDTH), jnp.bfloat16)

    def timed(function: Callable[..., Any], pages: jax.Array = pool.pages) -> Any:
        step = jax.jit(function)
        return lambda i: step(q, pages, lengths, page_indices[i]).block_until_ready()

    decode = functools.partial(jax_mla.decode, scale=SCALE, latent_dim=LATENT)
    calls = {
        "decode": timed(decode),
        "xla": timed(functools.partial(decode, implementation="xla")),
        "jnp": timed(written_out.plain),
        "blockwise": timed(written_out.blockwise, pool.bits),
    }
    if torch is not None:
        calls |= written_out.in_torch(torch, q, pool.torch_pages, tables)
    if ("cpu", "kernel") in native.LAUNCHES and jax.default_backend() == "cpu":
        calls["avx2"] = with_instruction_set("avx2", calls["decode"])
    if jax.default_backend() == "cpu" and (library := floors.load()) is not None:
        calls["read"] = floors.reader(library, pool.pages, tables)
        calls["products"] = floors.multiplier(library, batch * tokens * heads * (WIDTH + LATENT))
    text = jax.jit(decode).lower(q, pool.pages, lengths, page_indices[0]).as_text()
    custom_call = re.search(r"custom_call @(jax_mla\w+)", text)
    entries = [Entry(name, calls[name]) for name in names if calls.get(name) is not None]
    return entries, num_tables, "xla" if custom_call is None else custom_call[1]


def with_instruction_set(name: str, call: Callable[[int], Any]) -> Callable[[int], Any]:
    """The call with our native code held to one of its instruction sets."""
    from jax_mla import _native

    best, *_ = _native.instruction_sets()

    def forced(i: int) -> Any:
        _native.use_instruction_set(name)
        try:
            return call(i)
        finally:
            _native.use_instruction_set(best)

    return forced


# --- Timing ---------------------------------------------------------------------------------------


def measure(
    pool: Pool,
    torch: Any,
    heads: int,
    tokens: int,
    batch: int,
    names: list[str],
    *,
    quick: bool,
) -> dict[str, Any]:
    """Times short bursts of all entries in turn, so that a ratio is one of neighbours in time."""
    entries, num_tables, lowered_to = make_entries(pool, torch, heads, tokens, batch, names)
    errors = check(entries)
    turn = itertools.cycle(range(num_tables))
    estimates = {e.name: min(clock(e, turn), clock(e, turn)) for e in entries}
    times: dict[str, list[list[float]]] = {entry.name: [] for entry in entries}
    start, foreign = time.perf_counter(), others_seconds()
    deadline = start + (1 if quick else 8)
    for i in range(5 if quick else 60):
        if i >= 3 and time.perf_counter() > deadline:
            break
        first = i % len(entries)  # everyone gets to follow everyone
        for entry in entries[first:] + entries[:first]:
            times[entry.name].append(burst(entry, turn, estimates[entry.name]))
    others = (others_seconds() - foreign) / (time.perf_counter() - start)

    kv_bytes = batch * tokens * TOKEN_BYTES
    base = [statistics.median(part) for part in times["decode"]]
    report: dict[str, Any] = {}
    for name, parts in times.items():
        calls = [t for part in parts for t in part]
        ratios = [statistics.median(part) / b for part, b in zip(parts, base, strict=True)]
        quantiles = (np.percentile(calls, QUANTILES) * 1e6).tolist()
        report[name] = {
            "median_us": statistics.median(calls) * 1e6,
            "gb_per_s": kv_bytes / statistics.median(calls) / 1e9,
            "ratio": statistics.median(ratios),
            "calls": len(calls),
            "rounds": len(parts),
            "quantiles_us": dict(zip(map(str, QUANTILES), quantiles, strict=True)),
            "max_relative_error": errors.get(name),
        }
    shape = {"batch": batch, "tokens": tokens, "heads": heads, "kv_bytes": kv_bytes}
    return {**shape, "lowered_to": lowered_to, "cores_of_others": others, "entries": report}


def check(entries: list[Entry]) -> dict[str, float]:
    """Largest difference of each entry to the first, which has to be small. Compiles them too."""
    outs = {e.name: e.call(0) for e in entries if e.name not in FLOORS}
    arrays = {
        name: np.asarray(x if isinstance(x, jax.Array) else x.float().cpu()).astype(np.float32)
        for name, x in outs.items()
    }
    first = arrays["decode"]
    errors = {
        name: float(np.abs(x - first).max() / np.abs(first).max()) for name, x in arrays.items()
    }
    for name, error in errors.items():
        if not error < TOLERANCE:
            sys.exit(f"{name}: expected decode's result, is {error:.3g} off")
    return errors


def measure_overhead() -> dict[str, float]:
    """Medians of small calls in microseconds: of an empty jitted one, and of decode of nothing."""
    pages = jnp.zeros((16, PAGE_SIZE, WIDTH), jnp.bfloat16)
    q = jnp.zeros((1, 4, WIDTH), jnp.bfloat16)
    table = jnp.arange(16, dtype=jnp.int32)[None]
    decode = jax.jit(functools.partial(jax_mla.decode, scale=SCALE, latent_dim=LATENT))
    empty = jax.jit(lambda x: x + 1)

    def length(tokens: int) -> Callable[[int], Any]:
        lengths = jnp.full(1, tokens, jnp.int32)
        return lambda _: decode(q, pages, lengths, table).block_until_ready()

    entries = {
        "empty_jit_us": lambda _: empty(table).block_until_ready(),
        "decode_of_0_tokens_us": length(0),
        "decode_of_64_tokens_us": length(64),
        "decode_of_1024_tokens_us": length(1024),
    }
    times: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(50):
        for name, call in entries.items():
            times[name] += [clock(Entry(name, call), itertools.repeat(0)) for _ in range(20)][5:]
    return {name: statistics.median(values) * 1e6 for name, values in times.items()}


def clock(entry: Entry, turn: Iterator[int]) -> float:
    i = next(turn)
    start = time.perf_counter()
    entry.call(i)
    return time.perf_counter() - start


def others_seconds() -> float:
    """CPU seconds so far of other processes and, where a host says so, of other machines."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _idle, _wait, *interrupts_and_steal = stat.read_text().split()[1:9]
    ticks = sum(map(int, (user, nice, system, *interrupts_and_steal)))
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


def burst(entry: Entry, turn: Iterator[int], estimate: float) -> list[float]:
    """Seconds of each of a few calls in a row."""
    settled = time.perf_counter() + SETTLE
    while estimate < 10 * SETTLE and time.perf_counter() < settled:
        clock(entry, turn)
    count = min(BURST_CALLS, max(1, int(BURST_SECONDS / estimate)))
    return [clock(entry, turn) for _ in range(count)]


# --- Output ---------------------------------------------------------------------------------------


def describe(pool: Pool, torch: Any) -> dict[str, Any]:
    """The command and what it runs on."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    versions = {"jax_mla": jax_mla.__version__, "jax": jax.__version__, "numpy": np.__version__}
    return {
        "command": shlex.join(["python", *sys.argv]),
        "platform": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {**versions, "torch": None if torch is None else str(torch.__version__)},
        "layout": f"bfloat16, pages of {PAGE_SIZE}, width {WIDTH}, latent {LATENT}, full, shuffled",
        "pool_bytes": pool.pages.nbytes,
        "notes": [
            "GB/s: bytes of the sequences' KV over median time.",
            "ratio: time over decode's in the same round, median; > 1: decode is faster.",
            "blockwise: has its cache as uint16. torch: without a mask."
            if torch is not None
            else "torch: skipped, because it is not installed or has no GPU where jax has one.",
            f"read, products: {floors.threads()} threads, which are started in that time.",
        ],
    }


def print_header(facts: dict[str, Any], names: list[str]) -> None:
    print(f"{facts['platform']} ({facts['device_kind']}); {facts['cpu']}, {facts['cores']} cores")
    print(", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version))
    print(f"{facts['layout']}; pool of {facts['pool_bytes'] / 1e6:.0f} MB")
    print(*facts["notes"], sep="\n")
    print(
        "\nbatch tokens heads  KV MB | decode us  GB/s | time over decode's:",
        *names[1:],
        flush=True,
    )


def format_row(r: dict[str, Any]) -> str:
    decode = r["entries"]["decode"]
    row = f"{r['batch']:5} {r['tokens']:6} {r['heads']:5} {r['kv_bytes'] / 1e6:6.1f}"
    row += f" | {decode['median_us']:9.0f} {decode['gb_per_s']:5.2f} |"
    for name, entry in r["entries"].items():
        row += "" if name == "decode" else f" {name} {entry['ratio']:.2f}"
    others = r["cores_of_others"]
    return row + (f"  ! others took {others:.1f} cores" if others > 0.1 else "")


def plot(facts: dict[str, Any], results: list[dict[str, Any]], path: Path) -> None:
    """Time over KV bytes, a panel for each number of heads; lines go through means of equal x."""
    try:
        plt: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        print("PNG: skipped, matplotlib is not installed")
        return
    plt.switch_backend("Agg")
    heads = sorted({r["heads"] for r in results})
    markers = dict(zip(sorted({r["batch"] for r in results}), "os^Dv<>p*h", strict=False))
    size = (max(6.4, 4.6 * len(heads) + 0.8), 6.0)
    figure = plt.figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(heads), sharey=True, squeeze=False)
    for panel, num_heads in zip(axes[0], heads, strict=True):
        here = sorted((r for r in results if r["heads"] == num_heads), key=lambda r: r["batch"])
        for name in (name for name in STYLES if name in here[0]["entries"]):
            label, color = STYLES[name]
            points: dict[float, list[float]] = {}
            for r in here:
                x, y = r["kv_bytes"] / 1e6, r["entries"][name]["median_us"] / 1e3
                points.setdefault(x, []).append(y)
                panel.plot(x, y, markers.get(r["batch"], "."), color=color, mec="white", ms=8)
            means = [statistics.geometric_mean(points[x]) for x in sorted(points)]
            panel.plot(sorted(points), means, color=color, label=label, zorder=1.9)
        panel.set(xscale="log", yscale="log", xlabel="KV bytes of a call (MB)")
        panel.set_title(f"{num_heads} heads", fontsize=11)
        panel.grid(color="#e8e8e8", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        for axis in (panel.xaxis, panel.yaxis):
            axis.get_major_locator().set_params(subs=(1, 3))
            axis.set_major_formatter(lambda x, _: f"{x:g}")
            axis.set_minor_formatter("")
    axes[0, 0].set_ylabel("median time of a call (ms)")
    for batch, marker in markers.items():
        axes[0, 0].plot([], [], marker, color="#999999", label=f"batch {batch}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    cores = f", {facts['cores']} cores" if facts["platform"] == "cpu" else ""
    device = facts["cpu"] if facts["platform"] == "cpu" else facts["device_kind"]
    figure.suptitle(f"MLA decode, paged bfloat16 cache of width {WIDTH}: {device}{cores}")
    figure.savefig(path, dpi=160)
    print("wrote", path)


if __name__ == "__main__":
    main()
