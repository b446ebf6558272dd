# SPDX-License-Identifier: Apache-2.0
"""Persistent planners token by token, in plain integers: AITER's, and this package's.

`aiter` restates get_mla_metadata_v1_2, its sequential variant, from a description of it (page size,
folded heads, tiles of queries, the rule for short tails); `buffer_sizes` the rules by which its
callers size the buffers. Heads below 16 are padded first, as the seed of this project did there.
`all_partial` makes the same cuts and sends every piece through the merge.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Plan:
    """AITER's six buffers without the pointers; only what is written, as lists."""

    work_indptr: list[int]
    work_info: list[list[int]]
    reduce_indptr: list[int]
    reduce_final_map: dict[int, tuple[int, int]]
    reduce_partial_map: list[int]


@dataclasses.dataclass(frozen=True)
class Piece:
    """Keys `start` to `end` of a tile (units of kv_indptr), worked on by `unit`."""

    tile: int
    unit: int
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Tile:
    """Queries that go over a sequence's keys together; `keys` that they may see."""

    sequence: int
    q_start: int
    q_end: int
    keys: int


def cut(
    tiles: Sequence[Tile], sequence_keys: Sequence[int], block: int, units: int, num_splits: int,
    overhead: int, tail: int,
) -> Iterator[Piece]:  # fmt: skip
    """Deals tiles out to units, in order. A cut that leaves fewer than `tail` keys is not made."""
    blocks = [-(-sequence_keys[t.sequence] // block) for t in tiles]
    payload = -(-sum(b + overhead for b in blocks) // num_splits) + overhead
    tile = done = 0
    for unit in range(units):
        room = payload
        while tile < len(tiles):
            left = blocks[tile] - done
            keys, all_keys = tiles[tile].keys, sequence_keys[tiles[tile].sequence]
            whole = room >= left + overhead
            if not whole:
                if room <= overhead:
                    break
                end = min((done + room - overhead) * block, keys)
                whole = all_keys - end < tail
                if not whole:
                    yield Piece(tile, unit, done * block, end)
                    done += room - overhead
                    break
            yield Piece(tile, unit, done * block, keys)
            room -= left + overhead
            tile, done = tile + 1, 0


def aiter(
    lengths: Sequence[int],
    *,
    arch: str = "gfx942",
    heads: int = 16,
    q_len: int = 1,
    q_dtype: str = "bf16",
    kv_dtype: str = "bf16",
    compute_units: int,
    block: int = 16,
    page_size: int = 1,
    last_page_lens: Sequence[int] = (),
    max_split_per_batch: int = -1,
    tail: int | None = None,
    causal: bool = True,
) -> Plan:
    """AITER's plan; lengths in units of kv_indptr, tokens or pages. tail: max_seqlen_qo."""
    folds, heads = folded(arch, heads, q_len, q_dtype, kv_dtype)
    rows = 64 if small_tiles(arch, heads, q_len, q_dtype, kv_dtype) else 128
    split_queries = q_len * heads * folds > rows
    count = 1
    if split_queries:
        count = q_len if 2 * heads > rows else -(-q_len * heads // rows)
    size = -(-q_len // count)

    tiles = []
    for folded_sequence in range(len(lengths) * folds):
        for t in range(count):
            start = folded_sequence * q_len + t * size
            trim = count - 1 - t
            if folds > 1:
                trim = count - (start // folds) % q_len - 1
            trim = max(trim, 0) if causal and page_size == 1 else 0
            sequence = folded_sequence // folds
            end = min(start + size, (folded_sequence + 1) * q_len)
            tiles.append(Tile(sequence, start, end, lengths[sequence] - trim))

    batch = len(lengths) * folds
    num_splits = compute_units
    if max_split_per_batch >= 0:
        num_splits = min(compute_units, max_split_per_batch * batch)
    overhead = max(1, -(-16 // page_size))
    threshold = (q_len if tail is None else tail) if page_size == 1 else 0
    pieces = list(cut(tiles, lengths, block, compute_units, num_splits, overhead, threshold))

    kv_start = [0, *itertools.accumulate(lengths)]
    plan = Plan([0] * (compute_units + 1), [], [0], {}, [])
    partial = 0
    for tile, group in itertools.groupby(pieces, key=lambda p: p.tile):
        parts = list(group)
        t = tiles[tile]
        for piece in parts:
            offset = lengths[t.sequence] - piece.end
            if page_size > 1 and offset:
                offset = (offset - 1) * page_size + last_page_lens[t.sequence]
            location = -1
            if len(parts) > 1:
                location = partial
                plan.reduce_partial_map.append(partial)
                partial += size
            keys = (kv_start[t.sequence] + piece.start, kv_start[t.sequence] + piece.end)
            plan.work_info.append(
                [tile // count, location, t.q_start, t.q_end, *keys, offset, 0]
            )  # fmt: skip
            for unit in range(piece.unit, compute_units):
                plan.work_indptr[unit + 1] += 1
        if len(parts) > 1:
            plan.reduce_final_map[tile] = (t.q_start, t.q_end)
        plan.reduce_indptr.append(plan.reduce_indptr[-1] + (len(parts) if len(parts) > 1 else 0))
    return plan


def native(arch: str, heads: int, q_len: int, q_dtype: str, kv_dtype: str) -> bool:
    """Head counts that AITER plans for as they are."""
    fp8 = q_dtype == kv_dtype == "fp8"
    bf16 = "fp8" not in (q_dtype, kv_dtype)
    return (
        heads == 16
        or (heads == 64 and fp8 and q_len == 1)
        or (arch == "gfx950" and bf16)
        or (arch == "gfx942" and heads == 128 and fp8)
        or (arch == "gfx950" and heads in (32, 64, 128) and fp8)
    )


def folded(arch: str, heads: int, q_len: int, q_dtype: str, kv_dtype: str) -> tuple[int, int]:
    """(times that a sequence is repeated, heads of each), below 16 heads after padding."""
    if heads < 16 and 16 % heads == 0:
        heads = 16
    if native(arch, heads, q_len, q_dtype, kv_dtype):
        return 1, heads
    assert heads % 16 == 0, f"AITER does not plan for {heads} heads"
    return heads // 16, 16


def small_tiles(arch: str, heads: int, q_len: int, q_dtype: str, kv_dtype: str) -> bool:
    """Whether a workgroup takes 64 rows rather than 128."""
    packed = heads * q_len
    if arch == "gfx950" and "fp8" not in (q_dtype, kv_dtype):
        return packed >= 64 and heads <= 64 and (packed < 128 or heads == 48)
    return arch == "gfx950" and q_dtype == kv_dtype == "fp8" and heads == 32 and q_len == 3


def buffer_sizes(
    batch: int,
    *,
    arch: str = "gfx942",
    heads: int = 16,
    q_len: int = 1,
    q_dtype: str = "bf16",
    kv_dtype: str = "bf16",
    compute_units: int,
    max_split_per_batch: int = -1,
    fast: bool = True,
) -> dict[str, int]:
    """First dimensions of AITER's buffers (get_mla_metadata_info_v1, dense)."""
    heads = 16 if heads < 16 else heads
    packed = heads * q_len
    fp8 = q_dtype == kv_dtype == "fp8"
    bf16_950 = arch == "gfx950" and "fp8" not in (q_dtype, kv_dtype)
    if (bf16_950 and packed >= 64 and heads <= 64 and (packed < 128 or heads == 48)) or (
        arch == "gfx950" and fp8 and heads == 32 and q_len == 3
    ):
        tiles = q_len if 2 * heads > 64 else -(-packed // 64)
    elif (
        heads == 16
        or (arch == "gfx942" and fp8 and heads == 128)
        or (arch == "gfx950" and fp8 and ((heads == 32 and q_len == 4) or heads in (64, 128)))
        or (fp8 and heads == 64 and q_len == 1)
    ):
        tiles = -(-packed // 128)
    elif bf16_950 and (packed >= 128 or heads > 64) and heads != 48:
        tiles = q_len if 2 * heads > 128 else -(-packed // 128)
    else:
        tiles = -(-packed // 16)
    count = batch * tiles
    works = partials = count * compute_units
    if fast:
        works = (batch + compute_units - 1) * tiles
        partials = min(batch + compute_units - 1, 2 * (compute_units - 1)) * tiles
    if max_split_per_batch > 0:
        partials = max(partials, count + min(compute_units, max_split_per_batch * batch))
    return {
        "work_indptr": compute_units + 1,
        "work_info": works,
        "reduce_indptr": count + 1,
        "reduce_final_map": count,
        "reduce_partial_map": partials,
    }


def all_partial(
    lengths: Sequence[int], *, groups: int, q_len: int, block: int, units: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """work_indptr, work_info and reduce_indptr of this package; see jax_mla/persistent.py."""
    batch = len(lengths)
    jobs = [(b, g) for b in range(batch) for g in range(groups)]
    kept = [(b, g) for b, g in jobs if lengths[b] > 0]
    tiles = [Tile(b, (g * batch + b) * q_len, (g * batch + b + 1) * q_len, lengths[b])
             for b, g in kept]  # fmt: skip
    pieces = list(cut(tiles, lengths, block, units, units, 16, q_len))

    kv_start = [0, *itertools.accumulate(lengths)]
    work_indptr = np.zeros(units + 1, np.int32)
    work_info = np.zeros((batch * groups + units - 1, 8), np.int32)
    parts = dict.fromkeys(jobs, 0)
    for i, piece in enumerate(pieces):
        t = tiles[piece.tile]
        base, length = kv_start[t.sequence], lengths[t.sequence]
        work_info[i] = (
            t.q_start // q_len, i * q_len, t.q_start, t.q_end, base + piece.start, base + piece.end,
            length - piece.end, 0,
        )  # fmt: skip
        work_indptr[piece.unit + 1 :] += 1
        parts[kept[piece.tile]] += 1
    reduce_indptr = np.array([0, *itertools.accumulate(parts.values())], np.int32)
    return work_indptr, work_info, reduce_indptr
