# SPDX-License-Identifier: Apache-2.0
"""How our own kernels deal out the keys of a batch, restated in NumPy: csrc/kernels/shares.h."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Cut:
    """Keys begin .. end - 1 of a sequence, for the rows of a tile.

    Attributes:
      part: where the partial results are.
      whole: there is no other cut of the job, and no partial result.
    """

    sequence: int
    tile: int
    part: int
    begin: int
    end: int
    whole: bool


def owners(parts: int, blocks: int) -> np.ndarray:
    """Of blocks in a row: contiguous parts, part i from block i * blocks / parts on."""
    count = max(min(parts, blocks), 1)
    begins = np.arange(count + 1) * blocks // count
    return np.arange(count).repeat(np.diff(begins))


def cuts(
    lengths: np.ndarray, tiles: int, block: int, splits: int, workers: int, part_blocks: int = 4
) -> list[Cut]:
    """Of all jobs: `splits` of each, or with 0 what `workers` share."""
    counts = -(-lengths // block)
    total = tiles * int(counts.sum())
    shared = owners(min(workers, max(total // part_blocks, 32)), total)
    first, found = 0, []
    for sequence, (length, count) in enumerate(zip(lengths.tolist(), counts.tolist(), strict=True)):
        for tile in range(tiles):
            job = sequence * tiles + tile
            owner = owners(splits, count) if splits else shared[first : first + count]
            first += count
            for number in np.unique(owner).tolist():
                blocks = np.flatnonzero(owner == number)
                part = job * splits + number if splits else job + number
                begin, end = blocks[0] * block, min((blocks[-1] + 1) * block, length)
                found.append(Cut(sequence, tile, part, begin, end, len(blocks) == count))
    return found
