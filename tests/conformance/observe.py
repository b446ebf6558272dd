# SPDX-License-Identifier: Apache-2.0
"""Runs a case and says what there is to record of it."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiter_decode
import numpy as np
from aiter_decode import Problem, launch_persistent, launch_split
from emulator.machine import Fault, Machine

from conformance.cases import Case

SLOTS, SLOT_BYTES = 23, 16
Q_SCALE, KV_SCALE = 1.7, 0.37
SCORE_SCALE = 0.1352  # of what q and cache stand for
RESULTS = (("partial", "partial_lse"), ("final", "final_lse"))
# A kernel that was sent astray must come to an end.
MAX_INSTRUCTIONS = 1_000_000
# Options of the emulator. How AITER's kernels wait for data is no question here; ours, which a
# compiler made, are held to all there is.
THEIRS, OURS = {"waits": 0}, {"waits": 2, "uninitialised": 1}


class _Problem(Problem):
    """With scales that are not 1, a pool whose first row is unused, and perhaps an altered slot."""

    def __init__(self, case: Case, root: Path | None, altered: int | None) -> None:
        super().__init__(
            aiter_decode.of_row(case.row, case.q_len, root), list(case.lengths), seed=0
        )
        self.altered = altered
        scale = SCORE_SCALE
        if case.row.q_dtype == "fp8":
            self.q_scale[:] = Q_SCALE
            scale /= Q_SCALE
        if case.row.kv_dtype == "fp8":
            self.kv_scale[:] = KV_SCALE
            scale /= KV_SCALE
        self.scale = scale
        self.tokens = np.random.default_rng(1).permutation(len(self.cache) - 1)[: sum(case.lengths)]
        self.tokens = (self.tokens + 1).astype(np.int32)
        if case.pool == "nan":
            self.cache[0] = np.nan
        elif case.pool == "wrap 24":
            self.tokens += 2**24
        elif case.pool == "wrap 32":
            # The last of them is still in the pool, if what counts is the low 32 bits.
            self.tokens = np.minimum(self.tokens, len(self.cache) - 2)
            self.tokens += -(-(2**32) // self.cache.strides[0])

    def arguments(self, outputs: dict[str, np.ndarray], **scalars: int) -> bytes:
        block = bytearray(super().arguments(outputs, **scalars))
        if self.altered is not None:
            begin = self.altered * SLOT_BYTES
            block[begin : begin + 8] = b"\xa5" * 8
        return bytes(block)


@dataclasses.dataclass
class _Run:
    """A launch's outputs, and which of their bytes and of the argument block's it touched.

    `fragments` are the pieces of each sequence, in persistent mode: partial row, begin and end.
    """

    outputs: dict[str, np.ndarray]
    written: dict[str, np.ndarray]
    arguments_read: np.ndarray
    fragments: list[list[tuple[int, int, int]]]


def _run(case: Case, root: Path | None, altered: int | None = None, **options: int) -> _Run:
    """Raises Fault."""
    run = _Run({}, {}, np.zeros(0, np.uint8), [])

    def watch(machine: Machine, outputs: dict[str, np.ndarray]) -> None:
        run.outputs = {name: outputs[name] for pair in RESULTS for name in pair if name in outputs}
        run.written = {name: machine.track(array) for name, array in run.outputs.items()}
        run.arguments_read = machine.track_arguments(SLOTS * SLOT_BYTES)
        if not case.numbered:
            outputs["works"][:, 0] = 0

    problem = _Problem(case, root, altered)
    options = {"max_instructions": MAX_INSTRUCTIONS, **options}
    if case.row.mode == "split":
        launch_split(problem, case.splits, watch=watch, **options)
    else:
        cuts = [list(cut) for cut in case.cuts]
        _, run.fragments = launch_persistent(problem, cuts, case.workgroups, watch=watch, **options)
    run.written = {name: touched & 2 == 2 for name, touched in run.written.items()}
    return run


def observe(case: Case, root: Path | None, **options: int) -> Any:
    """What is recorded of a case: "outside", or rows written and numbers from them.

    `root` is the folder that the kernel is in; None: AITER's.
    """
    try:
        run = _run(case, root, **options)
    except Fault as fault:
        if "outside the memory this launch may touch" not in str(fault):
            raise
        return "outside"
    seen = _seen(case, run)
    return {out: _results(run, out, lse, seen[out]) for out, lse in RESULTS if out in run.outputs}


def _results(run: _Run, out: str, lse: str, seen: set[int]) -> dict[str, Any]:
    """Values by place: (query, split), partial row or query."""
    heads = run.outputs[out].shape[-2]
    rows = {name: _written_rows(run, name, heads) for name in (out, lse)}
    values = {}
    for place in range(rows[out].shape[0]):
        words = []
        for name, width in ((out, aiter_decode.LATENT), (lse, 1)):
            array = run.outputs[name].reshape(-1, heads, width)[place]
            if rows[name][place].all():
                words += _digest(array, place) if place in seen else ["unseen", _kind(array)]
            else:
                words += ["-", "-"]
        if words != ["-"] * 4:
            values[str(place)] = " ".join(words)
    return {"out": _spans(rows[out]), "lse": _spans(rows[lse]), "values": values}


def _seen(case: Case, run: _Run) -> dict[str, set[int]]:
    """The places whose query sees a token of what the result is of."""
    seen: dict[str, set[int]] = {"partial": set(), "final": set()}
    for sequence, length in enumerate(case.lengths):
        for query in range(case.q_len):
            place, count = sequence * case.q_len + query, length - case.q_len + query + 1
            if case.row.mode == "split":
                blocks = range(min(case.splits, -(-count // case.row.kv_block)))
                seen["partial"] |= {place * case.splits + split for split in blocks}
                continue
            for partial_row, begin, _ in run.fragments[sequence]:
                if begin < count:
                    whole = partial_row < 0
                    seen["final" if whole else "partial"].add(
                        place if whole else partial_row + query
                    )
    return seen


def _kind(array: np.ndarray) -> str:
    """In a word: the value of all, or "finite"."""
    array = array.astype(np.float64)
    for value in (0.0, -np.inf, np.nan):
        if np.array_equal(array, np.full_like(array, value), equal_nan=True):
            return f"{value:g}"
    assert np.isfinite(array).all(), "some finite and some not"
    return "finite"


def _written_rows(run: _Run, name: str, heads: int) -> np.ndarray:
    """`[place, head]`, whether every byte of that row was written; none may be written in part."""
    array = run.outputs[name]
    width = array.nbytes // array.size * (aiter_decode.LATENT if not name.endswith("lse") else 1)
    written = run.written[name].reshape(-1, heads, width)
    assert (written.all(axis=2) == written.any(axis=2)).all(), f"{name}: rows written in part"
    return written.all(axis=2)


def _digest(rows: np.ndarray, place: int) -> list[str]:
    """One element, and a random projection of all, which notices a change of any."""
    weights = np.random.default_rng(rows.size).standard_normal(rows.shape) / np.sqrt(rows.size)
    rows = rows.astype(np.float64)
    sample = rows[place * 5 % rows.shape[0], place * 37 % rows.shape[1]]
    with np.errstate(invalid="ignore"):  # infinities of both signs: NaN
        return [f"{x:.7g}" for x in (sample, (rows * weights).sum())]


def _spans(rows: np.ndarray) -> str:
    """The indices of true ones, as in "0-15 32-47"."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rows.ravel(), [False]])))
    return " ".join(f"{a}-{b - 1}" for a, b in edges.reshape(-1, 2))


def arguments(case: Case, root: Path | None, **options: int) -> dict[str, str]:
    """The slots that a kernel reads, and those whose rubbish changes what it does."""
    plain = _run(case, root, **options)
    read = plain.arguments_read.reshape(SLOTS, SLOT_BYTES).any(axis=1)
    matter = [slot for slot in range(SLOTS) if _differs(case, root, plain, slot, options)]
    return {
        "read": _offsets(np.flatnonzero(read)),
        "matter": _offsets(matter),
    }


def _offsets(slots: Iterable[int]) -> str:
    return " ".join(f"{slot * SLOT_BYTES:#x}" for slot in slots)


def _differs(
    case: Case, root: Path | None, plain: _Run, slot: int, options: dict[str, int]
) -> bool:
    try:
        run = _run(case, root, slot, **options)
    except Fault:
        return True
    return any(
        run.outputs[name].tobytes() != plain.outputs[name].tobytes() for name in plain.outputs
    )
