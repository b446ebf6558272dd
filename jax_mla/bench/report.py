# SPDX-License-Identifier: Apache-2.0
"""The table, the JSON and the plot of `python -m jax_mla bench`."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax_mla.bench.summary import Summary

_COLUMNS = (
    "batch x tokens", "heads", "dtypes", "page", "q_len", "read", "cold", "GB/s", "read / cold",
    "warm", "flushed", "read flushed", "goal", "jit", "jnp / jit", "overhead",
)  # fmt: skip
# What is plotted: how it is called, and its colour.
_STYLES = {
    "read": ("plain read", "#666666"),
    "cold": ("decode", "#0072b2"),
    "jnp": ("plain jnp", "#d55e00"),
}


def header(facts: Mapping[str, Any]) -> str:
    """What runs, and the head of the table."""
    names = [f"{name} {version}" for name, version in facts["versions"].items()]
    options = " ".join(f"{name}={value}" for name, value in facts["compiler_options"].items())
    return "\n".join(
        [
            f"{facts['device_kind']} ({facts['platform']}), {', '.join(names)}",
            f"XLA: {options or 'no options'}; XLA_FLAGS={facts['xla_flags']!r}",
            "Microseconds; what the columns are: python -m pydoc jax_mla.bench",
            "",
            f"| {' | '.join(_COLUMNS)} |",
            f"|{'---|' * len(_COLUMNS)}",
        ]
    )


def row(result: Mapping[str, Any]) -> str:
    """A row of the table, and under it the error of a point that failed."""
    times = {name: Summary(**time) for name, time in result["times"].items()}
    name = f"{result['batch']} x {result['tokens']}"
    if result["lengths"] != "equal":
        name += f" ({result['lengths']})"
    cold, goal = times.get("cold"), result["goal"].get("goal")
    cells = (
        name,
        *(str(result[field]) for field in ("heads", "dtypes", "page_size", "q_len")),
        _time(times.get("read")),
        _time(cold),
        "-" if cold is None else f"{result['kv_bytes'] / cold.median / 1e3:.4g}",
        _ratio(times, "read", "cold"),
        _time(times.get("warm")),
        _time(times.get("flushed")),
        _time(times.get("read_flushed")),
        "-" if goal is None else f"{goal:g}",
        _time(times.get("jit")),
        _ratio(times, "jnp", "jit"),
        _time(times.get("overhead")),
    )
    line = f"| {' | '.join(cells)} |"
    return line if result["error"] is None else f"{line}\n{name}: {result['error']}"


def _time(time: Summary | None) -> str:
    """Median and half the spread."""
    return "-" if time is None else f"{time.median:.4g} ± {time.spread / 2:.2g}"


def _ratio(times: Mapping[str, Summary], name: str, over: str) -> str:
    both = name in times and over in times
    return f"{times[name].median / times[over].median:.2f}" if both else "-"


def write(folder: Path, everything: Mapping[str, Any]) -> None:
    """bench.json and, with matplotlib, bench.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(everything, indent=1) + "\n")
    print(f"\nwrote {folder / 'bench.json'}")
    try:
        plot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        print("no bench.png: matplotlib is not installed")
        return
    plot.switch_backend("Agg")
    _plot(plot, everything, folder / "bench.png")
    print(f"wrote {folder / 'bench.png'}")


def _plot(plot: Any, everything: Mapping[str, Any], path: Path) -> None:
    """Speed over bytes under the roof of the plain read, a panel for each number of heads."""
    results = [r for r in everything["results"] if "cold" in r["times"]]
    heads = sorted({r["heads"] for r in results})
    if not heads:
        return
    figure = plot.figure(figsize=(4.8 * len(heads) + 0.8, 4.8), layout="constrained")
    for panel, number in zip(
        figure.subplots(1, len(heads), sharey=True, squeeze=False)[0], heads, strict=True
    ):
        here = sorted((r for r in results if r["heads"] == number), key=lambda r: r["kv_bytes"])
        for name, (label, color) in _STYLES.items():
            speeds: dict[float, list[float]] = {}
            for r in (r for r in here if name in r["times"]):
                speed = r["kv_bytes"] / r["times"][name]["median"] / 1e3
                speeds.setdefault(r["kv_bytes"] / 1e6, []).append(speed)
            if name == "read":  # the roof
                panel.plot(list(speeds), list(map(max, speeds.values())), color=color, label=label)
                continue
            sizes = [size for size, of_size in speeds.items() for _ in of_size]
            flat = [speed for of_size in speeds.values() for speed in of_size]
            panel.plot(sizes, flat, "o", color=color, label=label, mec="white")
        panel.set(xscale="log", xlabel="KV bytes of a call (MB)")
        panel.set_title(f"{number} heads")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.axes[0].set_ylabel("GB/s")
    figure.suptitle(f"MLA decode on {everything['device_kind']}")
    figure.savefig(path, dpi=120)
