# SPDX-License-Identifier: Apache-2.0
"""The problems that are recorded: lengths around the block and q_len, and what is unkind."""

import dataclasses
from collections.abc import Iterator

from jax_mla.kernels import Kernel


@dataclasses.dataclass(frozen=True)
class Case:
    """A small problem.

    Attributes:
      row: of the table; says how the kernel is called.
      lengths: of the sequences.
      splits: in split mode.
      cuts: in persistent mode, the tokens at which each sequence is cut into works.
      workgroups: in persistent mode; the works are dealt out evenly, in order.
      pool: "plain"; "nan" in its first row, which no sequence uses; "wrap 24" for token indices
        that are 2**24 too high; "wrap 32" for ones that lie 2**32 bytes, and a bit, too high.
      numbered: in persistent mode, whether works say which sequence they are of; else they say 0.
    """

    row: Kernel
    q_len: int
    lengths: tuple[int, ...]
    splits: int = 1
    cuts: tuple[tuple[int, ...], ...] = ()
    workgroups: int = 1
    pool: str = "plain"
    numbered: bool = True

    @property
    def name(self) -> str:
        parts = [f"{self.row.heads}x{self.q_len}", "lengths " + " ".join(map(str, self.lengths))]
        if self.row.mode == "split":
            parts.append(f"splits {self.splits}")
        else:
            cuts = " ".join(",".join(map(str, cut)) or "-" for cut in self.cuts)
            parts.append(f"cuts {cuts}, workgroups {self.workgroups}")
        parts += [f"pool {self.pool}"] if self.pool != "plain" else []
        return ", ".join(parts + ([] if self.numbered else ["not numbered"]))

    def in_bf16(self, out: str) -> bool:
        """Whether that output is: the whole one, in place of the partial one in one split."""
        alone = self.row.mode == "split" and self.splits == 1
        return out == "final" or (alone and self.row.whole_out == "bf16")


def of(row: Kernel) -> Iterator[Case]:
    """Those of one row of the table."""
    make = _split_cases if row.mode == "split" else _persistent_cases
    for q_len in sorted({row.q_lens[0], row.q_lens[-1]}):
        yield from make(row, q_len)


def _lengths(block: int, q_len: int) -> tuple[int, ...]:
    edges = {1, q_len - 1, q_len, block - 1, block, block + 1, 3 * block + 5}
    return (0, *sorted(edges - {0}))


def _split_cases(row: Kernel, q_len: int) -> Iterator[Case]:
    block, last = row.kv_block, q_len == row.q_lens[-1]
    for count in (1, 2, 5) if last else (2,):
        yield Case(row, q_len, _lengths(block, q_len), splits=count)
    for heads in (1, 5) if row.takes_rows else ():
        fewer = dataclasses.replace(row, heads=heads)
        yield Case(fewer, q_len, (block + 1,), splits=2)
    if last:
        yield Case(row, q_len, (16, 32, 48, 64, 65, 128), splits=2, pool="nan")
        yield Case(row, q_len, (block + 3,), splits=2, pool="wrap 24")
        yield Case(row, q_len, (block + 3,), splits=2, pool="wrap 32")


def _persistent_cases(row: Kernel, q_len: int) -> Iterator[Case]:
    block, last = row.kv_block, q_len == row.q_lens[-1]
    lengths = _lengths(block, q_len)[1:]
    yield Case(row, q_len, lengths, cuts=((),) * len(lengths), workgroups=3)
    if last:
        cuts = ((block,), (), (block, 2 * block + 16))
        yield Case(row, q_len, (2 * block + 9, 7, 3 * block + 1), cuts=cuts, workgroups=2)
        yield Case(row, q_len, (9, 0, 9), cuts=((), (), ()), workgroups=1)
        yield Case(row, q_len, (9, 7, 8), cuts=((), (), ()), workgroups=2, numbered=False)
        cuts = ((), (), (), (), (), (), (16,))
        yield Case(row, q_len, (16, 32, 48, 64, 65, 128, 65), cuts=cuts, workgroups=2, pool="nan")
        yield Case(row, q_len, (block + 3,), cuts=((),), pool="wrap 24")
        yield Case(row, q_len, (block + 3,), cuts=((),), pool="wrap 32")


def for_arguments(row: Kernel) -> Case:
    """On which the arguments are observed."""
    block, q_len = row.kv_block, row.q_lens[-1]
    if row.mode == "split":
        return Case(row, q_len, (block + 9, 2 * block + 11), splits=2)
    return Case(row, q_len, (block + 9, 2 * block + 11), cuts=((), (block,)), workgroups=2)
