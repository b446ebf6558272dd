# SPDX-License-Identifier: Apache-2.0
"""Launches AITER's decode kernels on the emulated GPU and measures them against float64.

The calling convention (argument block, work lists, the way splits share the keys) is written here
from what the kernels were seen to read; nothing comes from AITER's sources.
"""

import dataclasses
import functools
import itertools
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from emulator.machine import Counters, Machine

from jax_mla import kernels

BF16 = np.dtype(ml_dtypes.bfloat16)
FP8 = {
    "gfx942": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "gfx950": np.dtype(ml_dtypes.float8_e4m3fn),
}
WIDTH, LATENT = 576, 512
SOFTMAX_SCALE = 0.1352
Q_SCALE, KV_SCALE = 0.05, 0.037  # of fp8; the softmax scale is divided by them again


def folder() -> Path | None:
    """The `hsa` folder of an AITER checkout, if there is one."""
    path = os.environ.get("JAX_MLA_AITER_DIR")
    return Path(path) if path else None


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One decode code object and how it has to be called.

    Attributes:
      file: name without ".co", under `<arch>/mla`.
      q_len: query tokens of a sequence.
      q, kv: "bf16" or "fp8".
      heads: query heads, all over one KV head.
      tile: tokens that a split takes at a time (split kernels).
      workgroup_rows: (query, head) pairs of a workgroup (split kernels); None: one holds all.
      final_lse: whether it has an output for the log-sum-exp of whole sequences.
      scaled: whether the output has the factor kv_scale.
      single_is_bf16: with one split, the output is bf16 and no log-sum-exp is written.
      rows: the argument "number of query rows", if it is not heads * q_len.
      reads_beyond: it reads some bytes past the pool's last row, so there is one more.
      root: the `hsa` folder that it is in; None: AITER's.
    """

    arch: str
    file: str
    q_len: int = 1
    q: str = "bf16"
    kv: str = "bf16"
    heads: int = 16
    tile: int = 64
    workgroup_rows: int | None = None
    final_lse: bool = False
    scaled: bool = True
    single_is_bf16: bool = False
    rows: int | None = None
    reads_beyond: bool = False
    root: Path | None = None

    @property
    def path(self) -> Path:
        root = self.root or folder()
        assert root is not None
        return root / self.arch / "mla" / f"{self.file}.co"


def of_row(k: kernels.Kernel, q_len: int, root: Path | None = None) -> Kernel:
    """How a row of jax_mla's table is called."""
    return Kernel(
        arch=k.arch,
        file=k.file,
        q_len=q_len,
        q=k.q_dtype,
        kv=k.kv_dtype,
        heads=k.heads,
        tile=k.kv_block,
        workgroup_rows=k.rows,
        final_lse=k.mode == "persistent" and k.whole_lse,
        scaled=k.kv_scale != "scores",
        single_is_bf16=k.whole_out == "bf16",
        rows=k.heads * (q_len if k.row_argument == "rows" else 1),
        root=root,
    )


@dataclasses.dataclass
class Errors:
    """Worst errors: outputs over their largest value, log-sum-exp absolute, both after a merge."""

    out: float = 0.0
    lse: float = 0.0
    merged: float = 0.0

    def include(self, other: "Errors") -> None:
        for name in ("out", "lse", "merged"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))


class Problem:
    """Random queries and a token-granular cache for some sequence lengths."""

    def __init__(self, kernel: Kernel, lengths: list[int], seed: int) -> None:
        self.kernel, self.lengths = kernel, lengths
        random = np.random.default_rng(seed)
        total = sum(lengths)
        types = {"bf16": BF16, "fp8": FP8[kernel.arch]}
        cache = random.standard_normal((total + 7, 1, 1, WIDTH)).astype(np.float32)
        self.cache = cache.astype(types[kernel.kv])
        if kernel.reads_beyond:
            self.cache = np.concatenate([self.cache, self.cache[:1]])
        self.tokens = random.permutation(total + 7)[:total].astype(np.int32)
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        queries = random.standard_normal((len(lengths) * kernel.q_len, kernel.heads, WIDTH))
        self.q = queries.astype(np.float32).astype(types[kernel.q])
        self.q_starts = (np.arange(len(lengths) + 1) * kernel.q_len).astype(np.int32)
        self.last_lengths = np.ones(len(lengths), np.int32)
        self.q_scale = np.array([Q_SCALE if kernel.q == "fp8" else 1.0], np.float32)
        self.kv_scale = np.array([KV_SCALE if kernel.kv == "fp8" else 1.0], np.float32)
        # In double precision, as the kernels get a float32 of it.
        self.scale = SOFTMAX_SCALE / (
            (Q_SCALE if kernel.q == "fp8" else 1.0) * (KV_SCALE if kernel.kv == "fp8" else 1.0)
        )

    def expected(self, row: int, query: int, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Output and log-sum-exp of one query over some of its sequence's tokens, in float64."""
        factor = float(Q_SCALE) if self.kernel.q == "fp8" else 1.0
        kv_factor = float(KV_SCALE) if self.kernel.kv == "fp8" else 1.0
        q = self.q[row * self.kernel.q_len + query].astype(np.float64) * factor
        keys = self.cache[self.tokens[self.starts[row] + taken], 0, 0].astype(np.float64)
        scores = (q @ keys.T) * kv_factor * self.scale
        top = scores.max(axis=1, keepdims=True)
        weights = np.exp(scores - top)
        total = weights.sum(axis=1, keepdims=True)
        out = weights / total @ keys[:, :LATENT] * (kv_factor if self.kernel.scaled else 1.0)
        return out, (top + np.log(total))[:, 0]

    def inputs(self) -> dict[str, np.ndarray]:
        names = ("cache", "tokens", "starts", "q", "q_starts", "last_lengths")
        return {name: getattr(self, name) for name in (*names, "q_scale", "kv_scale")}

    def arguments(self, outputs: dict[str, np.ndarray], **scalars: int) -> bytes:
        """The block of 16-byte slots: a value at the start of each, rubbish after it."""
        kernel, fp8_q = self.kernel, self.kernel.q == "fp8"
        rows = kernel.rows if kernel.rows is not None else kernel.heads * kernel.q_len
        slots: list[Any] = [
            outputs["partial"], outputs["partial_lse"], self.q, self.cache, self.starts,
            self.tokens, self.last_lengths, float(self.scale), rows, scalars.get("splits", 1),
            self.q.strides[0] * kernel.q_len, self.cache.strides[0], 0, self.q_starts,
            outputs["plan"], outputs.get("final"), self.q_scale if fp8_q else None,
            self.kv_scale if kernel.kv == "fp8" else None, scalars.get("single", 1),
            outputs.get("final_lse"), None, 1, 0,
        ]  # fmt: skip
        return b"".join(map(_slot, slots))


def _slot(value: np.ndarray | float | int | None) -> bytes:
    if isinstance(value, float):
        packed = struct.pack("<f", value)
    elif isinstance(value, int):
        packed = struct.pack("<I", value)
    else:
        packed = struct.pack("<Q", 0 if value is None else value.ctypes.data)
    return packed + b"\xa5" * (16 - len(packed))


def poisoned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """NaN in every type used here, and recognisable."""
    array = np.empty(shape, dtype)
    array.view(np.uint8).fill(0xFF)
    return array


def untouched(array: np.ndarray) -> bool:
    return bool((array.view(np.uint8) == 0xFF).all())


@functools.cache
def code(path: Path) -> bytes:
    return path.read_bytes()


def launch(
    problem: Problem,
    arguments: bytes,
    outputs: dict[str, np.ndarray],
    grid: tuple[int, int, int],
    machine: Machine | None = None,
    watch: Callable[[Machine, dict[str, np.ndarray]], None] | None = None,
    **options: Any,
) -> Counters:
    """Runs the kernel with every buffer registered, and only the outputs writable.

    `watch` is shown the machine and the outputs before the launch.
    """
    machine = machine or Machine(problem.kernel.arch, **options)
    for name, array in problem.inputs().items():
        machine.register(array, name, writable=False)
    for name, array in outputs.items():
        machine.register(array, name)
    module = machine.load(code(problem.kernel.path))
    (name,) = module.kernels
    if watch:
        watch(machine, outputs)
    return module.launch(name, grid=grid, block=(256, 1, 1), args=arguments)


def launch_split(problem: Problem, splits: int, **options: Any) -> dict[str, np.ndarray]:
    kernel, batch, queries = problem.kernel, len(problem.lengths), len(problem.q)
    single = kernel.single_is_bf16 and splits == 1
    outputs = {
        "partial": poisoned(
            (queries, splits, kernel.heads, LATENT), BF16 if single else np.float32
        ),
        "partial_lse": poisoned((queries, splits, kernel.heads), np.float32),
        "plan": (np.arange(batch + 1) * splits).astype(np.int32),
    }
    arguments = problem.arguments(outputs, splits=splits, single=int(single))
    rows = kernel.q_len * kernel.heads
    workgroups = -(-rows // (kernel.workgroup_rows or rows))
    launch(problem, arguments, outputs, (workgroups, batch, splits), **options)
    return outputs


def launch_persistent(
    problem: Problem, cuts: list[list[int]], slots: int, **options: Any
) -> tuple[dict[str, np.ndarray], list[list[tuple[int, int, int]]]]:
    kernel, queries = problem.kernel, len(problem.q)
    works, fragments, partial_rows = work_list(problem, cuts)
    each = -(-len(works) // slots)
    work_starts = np.minimum(np.arange(slots + 1) * each, len(works)).astype(np.int32)
    outputs = {
        "partial": poisoned((partial_rows + 3, 1, kernel.heads, LATENT), np.float32),
        "partial_lse": poisoned((partial_rows + 3, 1, kernel.heads), np.float32),
        "final": poisoned((queries, kernel.heads, LATENT), BF16),
        "final_lse": poisoned((queries, kernel.heads), np.float32),
        "plan": np.array([work_starts.ctypes.data, works.ctypes.data], np.uint64),
        "work_starts": work_starts,
        "works": works,
    }
    launch(problem, problem.arguments(outputs), outputs, (slots, 1, 1), **options)
    return outputs, fragments


def run_split(
    kernel: Kernel, lengths: list[int], splits: int, seed: int = 0, **options: Any
) -> Errors:
    """A split kernel: tiles of tokens go round robin over the splits; then a merge.

    A split whose tiles a query sees nothing of has no result for it, and what it holds there is not
    looked at; one that has no tile of the sequence must be left alone.
    """
    problem, single = Problem(kernel, lengths, seed), kernel.single_is_bf16 and splits == 1
    outputs = launch_split(problem, splits, **options)
    errors = Errors()
    for row, query in itertools.product(range(len(lengths)), range(kernel.q_len)):
        length, seen = lengths[row], lengths[row] - kernel.q_len + query + 1
        parts = []
        for split in range(splits):
            taken = np.arange(length)[np.arange(length) // kernel.tile % splits == split]
            at = row * kernel.q_len + query
            got, got_lse = outputs["partial"][at, split], outputs["partial_lse"][at, split]
            if taken.size == 0:
                assert untouched(got) and untouched(got_lse)
                continue
            taken = taken[taken < seen]
            if taken.size == 0:
                continue
            out, lse = problem.expected(row, query, taken)
            errors.out = max(errors.out, relative(got, out))
            if single:
                assert untouched(got_lse)
                continue
            errors.lse = max(errors.lse, absolute(got_lse, lse))
            parts.append((got, got_lse))
        if parts:
            errors.merged = max(errors.merged, merged_error(problem, row, query, seen, parts))
    return errors


def run_persistent(
    kernel: Kernel, lengths: list[int], cuts: list[list[int]], slots: int, seed: int = 0,
    **options: Any,
) -> Errors:  # fmt: skip
    """A persistent kernel: `cuts` are the tokens at which a sequence is cut into works."""
    problem, q_len = Problem(kernel, lengths, seed), kernel.q_len
    outputs, fragments = launch_persistent(problem, cuts, slots, **options)
    errors, used = Errors(), np.zeros(len(outputs["partial"]), bool)
    for row, length in enumerate(lengths):
        for query in range(q_len):
            seen, at = length - q_len + query + 1, row * q_len + query
            if len(fragments[row]) == 1:
                out, lse = problem.expected(row, query, np.arange(seen))
                errors.out = max(errors.out, relative(outputs["final"][at], out))
                if kernel.final_lse:
                    errors.lse = max(errors.lse, absolute(outputs["final_lse"][at], lse))
                continue
            parts = []
            for partial_row, start, stop in fragments[row]:
                used[partial_row + query] = True
                got = outputs["partial"][partial_row + query, 0]
                got_lse = outputs["partial_lse"][partial_row + query, 0]
                out, lse = problem.expected(row, query, np.arange(start, min(stop, seen)))
                errors.out = max(errors.out, relative(got, out))
                errors.lse = max(errors.lse, absolute(got_lse, lse))
                parts.append((got, got_lse))
            errors.merged = max(errors.merged, merged_error(problem, row, query, seen, parts))
    assert untouched(outputs["partial"][~used]) and untouched(outputs["partial_lse"][~used])
    return errors


def work_list(
    problem: Problem, cuts: list[list[int]]
) -> tuple[np.ndarray, list[list[tuple[int, int, int]]], int]:
    """Works of 8 int32, each sequence's fragments (partial row, start, stop), partial rows."""
    q_len, works, fragments, partial_rows = problem.kernel.q_len, [], [], 0
    for row, length in enumerate(problem.lengths):
        edges, first = [0, *cuts[row], length], int(problem.starts[row])
        fragments.append([])
        for start, stop in itertools.pairwise(edges):
            partial_row = partial_rows if cuts[row] else -1  # -1: straight to the final output
            partial_rows += q_len if cuts[row] else 0
            works.append([row, partial_row, row * q_len, (row + 1) * q_len, first + start,
                          first + stop, length - stop, 0])  # fmt: skip
            fragments[row].append((partial_row, start, stop))
    return np.array(works, np.int32), fragments, partial_rows


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return absolute(got, expected) / float(np.abs(expected).max())


def absolute(got: np.ndarray, expected: np.ndarray) -> float:
    error = np.abs(np.asarray(got, np.float64) - expected)
    return float(np.where(np.isnan(error), np.inf, error).max())


def merged_error(
    problem: Problem, row: int, query: int, seen: int, parts: list[tuple[np.ndarray, np.ndarray]]
) -> float:
    """The error of the parts' weighted sum against the whole."""
    outs = np.stack([out.astype(np.float64) for out, _ in parts])
    lses = np.stack([lse.astype(np.float64) for _, lse in parts])
    out, lse = problem.expected(row, query, np.arange(seen))
    top = lses.max(axis=0)
    weights = np.exp(lses - top)
    total = weights.sum(axis=0)
    merged = (weights[..., None] * outs).sum(axis=0) / total[:, None]
    return max(relative(merged, out), absolute(top + np.log(total), lse))
