# SPDX-License-Identifier: Apache-2.0
"""docs/kernels.md, from the kernel table and `explain`: `python -m jax_mla explain --page`."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from jax_mla import kernels
from jax_mla.explain import Explanation, explain_sizes
from jax_mla.target import Target

TARGETS = {"gfx942": Target("gfx942", 304), "gfx950": Target("gfx950", 256)}
DTYPES = ("bf16", "bf16-fp8", "fp8")
HEADS = (4, 12, 16, 24, 32, 64, 128)
Q_LENS = (1, 2, 3, 4)
MODELS = (
    ("Kimi-Linear, TP 8", 4),
    ("GLM-5, TP 8", 8),
    ("Kimi-K3, TP 8", 12),
    ("DeepSeek-V3, TP 1", 128),
)
_COLUMNS = ("kernel", "heads padded to", "groups", "cut", "launches", "workspace", "bytes")

_INTRODUCTION = """\
# Which of AITER's kernels serves what

Made by `python -m jax_mla explain --page > docs/kernels.md`; a test keeps it in step.

What `implementation="asm"` comes to on MI300X (gfx942, 304 compute units) and MI355X (gfx950, 256),
for 32 sequences of at most 8192 tokens in pages of 64. `python -m jax_mla explain --heads 4` and
`jax_mla.explain(...)` say it for other calls.

* *groups*: more heads than the kernel has go in groups, each of which reads the cache.
* *cut*: in split mode every sequence has so many parts; in persistent mode so many compute units
  share the tokens of the batch, fewer than there are where cuts would cost too much traffic.
* *launches*: per layer. The token indices, and the plan of persistent mode, are made once a step.
* *bytes*: read and written by all launches, every access counted, over what has to be (cache,
  table, q and results once), with all sequences full. Derived, not measured.
* Only kernels that were right against float64 in emulation are used. Where AITER has none, or none
  of that kind, the call is not served; `explain` says which.
"""


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    yield "## Models"
    for arch, target in TARGETS.items():
        yield f"\n### {arch}\n"
        rows = []
        for (model, heads), dtypes, mode in itertools.product(MODELS, DTYPES, kernels.MODES):
            rows.append((model, heads, dtypes, mode, *_cells(target, heads, dtypes, mode, 1)))
        yield from _table(("model", "heads", "dtypes", "mode", *_COLUMNS), rows)
    yield "\n## Heads, query tokens, dtypes"
    for arch, target in TARGETS.items():
        yield f"\n### {arch}, all cells\n"
        yield from _table(("dtypes", "mode", "q_len", "heads", *_COLUMNS), _all_cells(target))
    yield "\n## The kernels\n"
    yield from _table(
        ("arch", "q", "cache", "mode", "heads", "q_len", "block", "known from", "code object"),
        [
            (k.arch, k.q_dtype, k.kv_dtype, k.mode, k.heads, _spans(k.q_lens), k.kv_block,
             k.evidence, f"`{k.file}`")
            for k in kernels.TABLE
        ],
    )  # fmt: skip
    yield "\n## Code objects that are never used\n"
    yield from _table(
        ("arch", "code object", "why"),
        [(d.arch, f"`{d.file}`", d.reason) for d in kernels.DENIED],
    )


def _all_cells(target: Target) -> Iterator[tuple[object, ...]]:
    for dtypes, mode, q_len in itertools.product(DTYPES, kernels.MODES, Q_LENS):
        cells = {heads: _cells(target, heads, dtypes, mode, q_len) for heads in HEADS}
        if len(set(cells.values())) == 1:  # refused, whatever the heads
            yield (dtypes, mode, q_len, "any", *cells[HEADS[0]])
            continue
        for heads, text in cells.items():
            yield (dtypes, mode, q_len, heads, *text)


def _cells(target: Target, heads: int, dtypes: str, mode: str, q_len: int) -> tuple[str, ...]:
    """One call, as the texts of _COLUMNS."""
    try:
        said = explain_sizes(
            heads, target=target, dtypes=dtypes, q_len=q_len, mode=mode, implementation="asm"
        )
    except NotImplementedError:
        return "not served", *[""] * (len(_COLUMNS) - 1)
    return _served(said)


def _served(said: Explanation) -> tuple[str, ...]:
    plan = said.asm
    assert plan is not None
    padding = ""
    if plan.heads.padded_heads > plan.heads.heads:
        padding = " (repeated)" if plan.heads.head_stride > 1 else " (zeros)"
    cut = str(plan.num_kv_splits) if plan.works is None else f"{plan.works.units} units"
    return (
        f"`{plan.kernel.file}`",
        f"{plan.heads.padded_heads}{padding}",
        str(plan.heads.groups),
        cut,
        str(plan.launches),
        f"{plan.workspace_bytes / 2**20:.1f} MiB",
        f"{said.bytes_ratio:.2f}",
    )


def _spans(numbers: Sequence[int]) -> str:
    """(1, 2, 3, 4) as "1-4", (1, 4) as "1, 4"."""
    if len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers))


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    header = tuple(columns)
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
