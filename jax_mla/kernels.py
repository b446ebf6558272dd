# SPDX-License-Identifier: Apache-2.0
"""AITER's decode kernels as data: what each code object takes, and how that is known.

`aiter_kernels.csv` has one row for each way to use a code object, `aiter_denied.csv` the code
objects that are never used, with the reason. Both are keyed by the SHA-256 of the file: the same
name has had many binaries.

Every kernel takes rows of 512 + 64 numbers and packed token indices (pages of one token), in
workgroups of 256 threads. More heads than a kernel has rows for go in groups of its heads, each a
launch of its own (in persistent mode works of its own): in a grid of several groups, workgroups of
the 16-row kernels write over one another's log-sum-exp.
"""

import csv
import dataclasses
from collections.abc import Callable
from importlib import resources
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_mla.call import Unserved
from jax_mla.validation import is_fp8

ARCHES = ("gfx942", "gfx950")
MODES = ("split", "persistent")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One way to use one of AITER's code objects.

    Attributes:
      arch: what it was compiled for.
      q_dtype: "bf16" or "fp8"; so kv_dtype.
      mode: "split" (a grid of sequences and splits) or "persistent" (a list of works).
      heads: query heads of a launch, or of a work.
      q_lens: query tokens per sequence that it is used for.
      rows: (query, head) pairs of a workgroup.
      takes_rows: whether it takes fewer heads than that without padding.
      row_argument: what it takes for "number of rows": "heads", or "rows", heads times q_len.
      kv_block: tokens of a block. In split mode block j belongs to split j mod num_kv_splits, which
        has a result for a query, or NaN, only if the query sees a key of it.
      whole_out: what it writes for a sequence in one piece, in place of the partial result: "f32"
        (the partial result as ever), "bf16" (the output), or "fault".
      whole_lse: whether it writes the log-sum-exp of such a sequence.
      kv_scale: what an fp8 cache's scale is "applied" to: everything, or the "scores" alone, so
        that the output lacks it; "-" for a bf16 cache.
      address_bits: of the offset into the cache; 32 means below 4 GiB and 2**24 tokens.
      evidence: "emulated" (run, and right against float64), "doubtful" (run, and wrong or ended for
        a race or a missing wait, of the kernel's or the emulator's making), or "disassembly".
      file: name of the code object, without ".co".
      sha256: of the file, in hexadecimal.
    """

    arch: str
    q_dtype: str
    kv_dtype: str
    mode: str
    heads: int
    q_lens: tuple[int, ...]
    rows: int
    takes_rows: bool
    row_argument: str
    kv_block: int
    whole_out: str
    whole_lse: bool
    kv_scale: str
    address_bits: int
    evidence: str
    file: str
    sha256: str

    @property
    def selectable(self) -> bool:
        """Only what has been seen to compute the right result is used."""
        return self.evidence == "emulated"

    @property
    def min_splits(self) -> int:
        """Fewest splits at which it writes partial results with their log-sum-exp."""
        return 1 if self.whole_out == "f32" and self.whole_lse else 2


@dataclasses.dataclass(frozen=True)
class Denied:
    """A code object that is never used, and why not."""

    arch: str
    reason: str
    file: str
    sha256: str


def select(
    arch: str,
    q_dtype: np.dtype,
    kv_dtype: np.dtype,
    mode: str,
    q_len: int,
    heads: int,
    *,
    table: tuple[Kernel, ...] | None = None,
) -> Kernel:
    """The kernel that reads the cache the fewest times, of those the one with the fewest rows.

    Raises:
      Unserved: no selectable kernel takes the dtypes and q_len in this mode.
    """
    table = TABLE if table is None else table
    q, kv = dtype_name(q_dtype), dtype_name(kv_dtype)
    cell = [k for k in table if (k.arch, k.q_dtype, k.kv_dtype) == (arch, q, kv)]
    fitting = [k for k in cell if k.mode == mode and q_len in k.q_lens and k.selectable]
    if not fitting:
        raise Unserved(_why_none(cell, arch, q, kv, mode, q_len))
    return min(fitting, key=lambda k: (-(-heads // k.heads), k.heads))


def _why_none(cell: list[Kernel], arch: str, q: str, kv: str, mode: str, q_len: int) -> str:
    unproven = any(k.mode == mode and q_len in k.q_lens for k in cell)
    state = "only kernels that no run has shown to be right" if unproven else "no kernel"
    lens = {m: {n for k in cell if k.selectable and k.mode == m for n in k.q_lens} for m in MODES}
    served = "; ".join(
        f"mode {m!r} with q_len {', '.join(map(str, sorted(lens[m])))}" for m in MODES if lens[m]
    )
    return (
        f"AITER has {state} for {q} q on a {kv} cache in mode {mode!r} with q_len {q_len} on "
        f"{arch} (it serves: {served or 'none'})"
    )


def dtype_name(dtype: np.dtype) -> str:
    """How the table names a dtype; the dtype's own name where the table has none."""
    if is_fp8(dtype):
        return "fp8"
    return "bf16" if dtype == jnp.bfloat16 else str(dtype)


def _q_lens(text: str) -> tuple[int, ...]:
    """ "1 4" and "2-4" as tuples."""
    spans = [part.split("-") for part in text.split()]
    return tuple(n for span in spans for n in range(int(span[0]), int(span[-1]) + 1))


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((resources.files("jax_mla") / name).read_text().splitlines()))


_PARSE: dict[Any, Callable[[str], Any]] = {
    int: int,
    str: str,
    bool: "yes".__eq__,
    tuple[int, ...]: _q_lens,
}


def _kernel(row: dict[str, str]) -> Kernel:
    return Kernel(*(_PARSE[field.type](row[field.name]) for field in dataclasses.fields(Kernel)))


TABLE = tuple(map(_kernel, _rows("aiter_kernels.csv")))
DENIED = tuple(Denied(**row) for row in _rows("aiter_denied.csv"))
