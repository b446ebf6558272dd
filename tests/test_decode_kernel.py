# SPDX-License-Identifier: Apache-2.0
"""Stage 1 of decode, launched alone: partial results against NumPy in float64."""

import dataclasses
import struct
from typing import Any

import cases
import compare
import dealing
import numpy as np
import pytest
from gpu import AMD, DEVICES, Launch, pack, run_on

from jax_mla import _native
from jax_mla.kernel_plan import KV_BLOCK, TILE_ROWS, WIDTHS

THREADS = 256
GUARD = 64  # elements after each result, which must stay as they are
POISON = -77.0

# NVIDIA GPUs of every age run the code for the oldest.
on_devices = pytest.mark.parametrize("device", (*DEVICES, "cuda sm_80"))


def dtypes_on(name: str, device: str) -> str:
    """Of "bf16", "f16", "fp8" and "bf16-fp8", with the device's own fp8."""
    return name + ("fnuz" if device == "gfx942" else "fn") if "fp8" in name else name


@dataclasses.dataclass(frozen=True)
class Results:
    """What a launch left, poison where it wrote nothing, and what the emulator counted of it."""

    partial: np.ndarray  # [parts, TILE_ROWS, latent_dim]
    partial_lse: np.ndarray  # [parts, TILE_ROWS]
    out: np.ndarray  # [batch, q_len * heads, latent_dim]
    lse: np.ndarray  # [batch, q_len * heads]
    counters: Any


def run(case: cases.Case, device: str, splits: int = 3, workers: int = 0) -> Results:
    batch, q_len, heads, width = case.q.shape
    pages, page_size, _ = case.kv_pages.shape
    slots = case.page_indices.shape[1]
    tiles = -(-q_len * heads // TILE_ROWS)
    parts = batch * tiles * splits if splits else batch * tiles + workers
    rows = {"partial": parts * TILE_ROWS, "out": batch * q_len * heads}
    half = np.dtype(np.float16) if case.q.dtype == np.float16 else cases.DTYPES["bf16"][0]
    written = {
        "partial": np.full(rows["partial"] * case.latent_dim + GUARD, POISON, np.float32),
        "partial_lse": np.full(rows["partial"] + GUARD, POISON, np.float32),
        "out": np.full(rows["out"] * case.latent_dim + GUARD, POISON, half),
        "lse": np.full(rows["out"] + GUARD, POISON, np.float32),
    }
    read = {
        "q": case.q,
        "kv_pages": case.kv_pages,
        "lengths": case.lengths,
        "page_indices": case.page_indices,
    }
    for name in ("q_scale", "kv_scale"):
        if (value := getattr(case, name)) is not None:
            read[name] = np.array([value.item()], np.float32)
    arrays = {name: np.ascontiguousarray(array) for name, array in (read | written).items()}
    for name, array in arrays.items():
        array.flags.writeable = name in written
    pointers = ("q", "kv_pages", "lengths", "page_indices", "q_scale", "kv_scale", *written)
    (scale,) = struct.unpack("<i", struct.pack("<f", case.scale))
    numbers = (scale, batch, q_len, heads, splits, workers, pages, page_size, slots,
               slots * page_size)  # fmt: skip
    kernel = "_".join(
        dict.fromkeys(
            {2: "f16" if array.dtype == np.float16 else "bf16", 1: "fp8"}[array.itemsize]
            for array in (case.q, case.kv_pages)
        )
    )
    device, _, forced = device.partition(" ")
    launch = Launch(
        source=(lambda _: _native.device_code()["decode", forced][1]) if forced else "decode",
        kernel=f"jax_mla_decode_{kernel}_{case.latent_dim}_{width - case.latent_dim}",
        grid=(splits, tiles, batch) if splits else (workers, 1, 1),
        threads=THREADS,
        arrays=arrays,
        arguments=lambda at: pack([*(("P", at.get(name, 0)) for name in pointers), *numbers]),
    )
    counters = run_on(device, launch)
    for name in written:
        assert (arrays[name][-GUARD:].astype(np.float32) == POISON).all(), name
    return Results(
        arrays["partial"][:-GUARD].reshape(parts, TILE_ROWS, -1),
        arrays["partial_lse"][:-GUARD].reshape(parts, TILE_ROWS),
        arrays["out"][:-GUARD].reshape(batch, q_len * heads, -1),
        arrays["lse"][:-GUARD].reshape(batch, -1),
        counters,
    )


def expected(case: cases.Case, splits: int, workers: int) -> Results:
    """What has to be written, in float64; NaN where nothing has."""
    batch, q_len, heads, _ = case.q.shape
    pages, page_size, width = case.kv_pages.shape
    tiles = -(-q_len * heads // TILE_ROWS)
    parts = batch * tiles * splits if splits else batch * tiles + workers
    partial = np.full((parts, TILE_ROWS, case.latent_dim), np.nan)
    out = np.full((batch, q_len * heads, case.latent_dim), np.nan)
    partial_lse, lse = np.full(partial.shape[:2], np.nan), np.full(out.shape[:2], np.nan)
    q = case.q.astype(np.float64) * (1.0 if case.q_scale is None else case.q_scale.item())
    kv_scale = 1.0 if case.kv_scale is None else case.kv_scale.item()
    lengths = case.lengths.clip(0, case.page_indices.shape[1] * page_size)
    for cut in dealing.cuts(lengths, tiles, KV_BLOCK, splits, workers):
        ids = case.page_indices[cut.sequence, : -(-cut.end // page_size)].clip(0, pages - 1)
        keys = case.kv_pages[ids].reshape(-1, width)[cut.begin : cut.end].astype(np.float64)
        for row in range(cut.tile * TILE_ROWS, min((cut.tile + 1) * TILE_ROWS, q_len * heads)):
            query, head = divmod(row, heads)
            sees = max(lengths[cut.sequence] - q_len + query + 1 - cut.begin, 0)
            scores = keys[:sees] @ q[cut.sequence, query, head] * case.scale * kv_scale
            result = np.zeros(case.latent_dim), -np.inf
            if len(scores) > 0:
                weights = np.exp(scores - scores.max())
                mean = weights @ keys[:sees, : case.latent_dim] / weights.sum()
                result = mean, scores.max() + np.log(weights.sum())
            if cut.whole:
                out[cut.sequence, row], lse[cut.sequence, row] = result
                out[cut.sequence, row] *= kv_scale
            else:
                place = cut.part, row % TILE_ROWS
                partial[place], partial_lse[place] = result
    return Results(partial, partial_lse, out, lse, None)


def check(case: cases.Case, device: str, splits: int = 3, workers: int = 0) -> Any:
    """The bar is that of an output in the dtype that the weights have."""
    got, want = run(case, device, splits, workers), expected(case, splits, workers)
    for values, lse, want_values, want_lse in (
        (got.partial, got.partial_lse, want.partial, want.partial_lse),
        (got.out, got.lse, want.out, want.lse),
    ):
        written = ~np.isnan(want_lse)
        compare.assert_close(
            values[written].astype(got.out.dtype),
            lse[written],
            want_values[written],
            want_lse[written],
        )
        assert (values[~written].astype(np.float32) == POISON).all()
        assert (lse[~written] == POISON).all()
    return got.counters


@on_devices
@pytest.mark.parametrize("dtypes", ["bf16", "f16", "fp8", "bf16-fp8"])
def test_dtypes(dtypes: str, device: str) -> None:
    """Sequences that are empty, shorter than q_len, and of one token up to seven blocks."""
    check(cases.make(3, 2, 16, dtypes_on(dtypes, device)), device)


@on_devices
@pytest.mark.parametrize("dtypes", ["f16", "fp8"])
@pytest.mark.parametrize(("latent_dim", "rope"), WIDTHS)
def test_widths(latent_dim: int, rope: int, dtypes: str, device: str) -> None:
    dtypes = dtypes_on(dtypes, device)
    case = cases.make(5, 1, 16, dtypes, (70, 33), latent_dim=latent_dim, rope=rope, capacity=80)
    check(case, device)


@on_devices
@pytest.mark.parametrize(
    ("heads", "q_len"), [(1, 1), (16, 1), (17, 1), (1, 4), (5, 4), (12, 3), (128, 1)]
)
def test_tiles_of_rows(heads: int, q_len: int, device: str) -> None:
    """Full tiles, and such as end, or begin, in the middle of a query's heads."""
    check(cases.make(heads, q_len, 16, "bf16", (70, 2), capacity=80), device)


@on_devices
@pytest.mark.parametrize("page_size", [1, 5, 16, 64, 100])
def test_page_sizes(page_size: int, device: str) -> None:
    check(cases.make(4, 1, page_size, "bf16", (70, 100, 5), capacity=100), device)


LENGTHS_AROUND_BLOCKS = (0, 1, 2, 31, 32, 33, 34, 63, 64, 65, 97)


@on_devices
@pytest.mark.parametrize("splits", [1, 2, 3, 7])
def test_lengths_around_blocks(splits: int, device: str) -> None:
    check(cases.make(2, 3, 16, "bf16", LENGTHS_AROUND_BLOCKS, capacity=112), device, splits)


@on_devices
@pytest.mark.parametrize("heads", [2, 20])
@pytest.mark.parametrize("workers", [1, 2, 5, 12, 40, 70])
def test_workers_share_all_keys(workers: int, heads: int, device: str) -> None:
    """One has all; each has some of a job, or of several; there are more than blocks (20 or 60)."""
    case = cases.make(heads, 2, 16, "bf16", LENGTHS_AROUND_BLOCKS, capacity=112)
    check(case, device, 0, workers)


@on_devices
@pytest.mark.parametrize(("lengths", "cuts"), [((1030,), 32), ((4200, 0, 40), 34)])
def test_parts_have_four_blocks_once_there_are_32(
    lengths: tuple[int, ...], cuts: int, device: str
) -> None:
    """33 blocks are 32 parts; 134 are 33, of which the last has keys of two sequences."""
    case = cases.make(1, 1, 16, "bf16", lengths, capacity=4208)
    assert len(dealing.cuts(case.lengths, 1, KV_BLOCK, 0, 200)) == cuts
    check(case, device, 0, 200)


@on_devices
@pytest.mark.parametrize("batch", [33, 70, 150])
def test_workers_find_their_sequences_in_large_batches(batch: int, device: str) -> None:
    """More than a wave looks at together, most of them empty."""
    lengths = tuple(40 if i % 29 == 28 or i > batch - 3 else 0 for i in range(batch))
    check(cases.make(1, 1, 16, "bf16", lengths, capacity=48), device, 0, 7)


@on_devices
@pytest.mark.parametrize("dtypes", ["f16", "fp8", "bf16-fp8"])
def test_workers_finish_whole_sequences(dtypes: str, device: str) -> None:
    """In the dtype of the output, and by the scale of the cache."""
    case = cases.make(3, 1, 16, dtypes_on(dtypes, device), (64, 64, 5), capacity=64)
    check(case, device, 0, 2)  # 2 blocks, 2 and 1


@on_devices
def test_lengths_and_pages_are_clamped(device: str) -> None:
    """Whatever they are: to the page table, and to the pool."""
    case = cases.make(4, 2, 16, "bf16", (48, 48, 48, 48), capacity=48, finite=True)
    pages = case.page_indices.copy()
    pages[1] = [cases.ABSURD_PAGE, -1, -(2**31)]
    pages[2, 1] = 2**31 - 1
    lengths = np.array([-5, 48, 10**6, 2**31 - 1], np.int32)
    check(dataclasses.replace(case, lengths=lengths, page_indices=pages), device)


@on_devices
def test_large_scores(device: str) -> None:
    """Of about a hundred: nearly all weight is on one key."""
    case = cases.make(4, 1, 16, "bf16", (70, 100), capacity=112)
    check(dataclasses.replace(case, scale=2.0), device)


@on_devices
def test_scores_that_grow_with_every_block(device: str) -> None:
    """Each takes what was summed before down to next to nothing."""
    case = cases.make(4, 1, 16, "bf16", (112,), capacity=112)
    q = np.ones_like(case.q)
    pool = np.sign(case.kv_pages) * np.array(2**-4, case.kv_pages.dtype)
    token = np.arange(112)[:, None]
    rows = pool[case.page_indices[0]].reshape(112, -1)
    rows[:, :64] = (token // KV_BLOCK + 1).astype(rows.dtype)
    pool[case.page_indices[0]] = rows.reshape(7, 16, -1)
    check(dataclasses.replace(case, q=q, kv_pages=pool), device, splits=1)


@on_devices
@pytest.mark.parametrize("column", [3, 540])
def test_nan_comes_out_of_the_split_that_holds_it(column: int, device: str) -> None:
    """In a value, and where only the score has it."""
    case = cases.make(4, 1, 16, "bf16", (100, 70), capacity=112)
    case.kv_pages[case.page_indices[0, 2], 5, column] = np.nan  # token 37, in the first of 2 splits
    got = run(case, device, splits=2)
    partial, lse = got.partial[:, :4], got.partial_lse[:, :4]
    assert np.isnan(partial[0]).all() and np.isnan(lse[0]).all()
    assert np.isfinite(partial[1:]).all() and np.isfinite(lse[1:]).all()


@on_devices
@pytest.mark.parametrize("workers", [0, 3])
def test_every_launch_has_the_same_bits(workers: int, device: str) -> None:
    case = cases.make(20, 2, 16, "bf16")
    first, second = (run(case, device, 0 if workers else 3, workers) for _ in range(2))
    for name in ("partial", "partial_lse", "out", "lse"):
        a, b = (np.ascontiguousarray(getattr(x, name)).view(np.uint8) for x in (first, second))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("device", AMD)
@pytest.mark.parametrize("dtypes", ["bf16", "fp8"])
@pytest.mark.parametrize(("heads", "tiles"), [(4, 1), (16, 1), (20, 2)])
@pytest.mark.parametrize("workers", [0, 4])
def test_each_byte_is_moved_once(
    workers: int, heads: int, tiles: int, dtypes: str, device: str
) -> None:
    """The rows in use, and their pages, for each tile of rows; q for each part."""
    lengths = np.array((100, 33, 0, 200))
    splits, used = 0 if workers else 3, int(lengths.sum())
    case = cases.make(
        heads, 1, 16, dtypes_on(dtypes, device), tuple(lengths.tolist()), capacity=208
    )
    traffic = check(case, device, splits, workers).traffic
    token_bytes = case.kv_pages.itemsize * 576
    assert traffic["kv_pages"].read_total == tiles * used * token_bytes
    assert traffic["kv_pages"].read_distinct == used * token_bytes
    assert traffic["page_indices"].read_total == tiles * used * 4
    cuts = dealing.cuts(lengths, tiles, KV_BLOCK, splits, workers)
    rows = {
        whole: sum(
            min(heads - cut.tile * TILE_ROWS, TILE_ROWS) for cut in cuts if cut.whole == whole
        )
        for whole in (False, True)
    }
    assert traffic["q"].read_total == (rows[False] + rows[True]) * 576 * case.q.itemsize
    sizes = (
        ("partial", 2048, False),
        ("partial_lse", 4, False),
        ("out", 1024, True),
        ("lse", 4, True),
    )
    for name, size, whole in sizes:
        assert traffic[name].written_total == rows[whole] * size
        assert traffic[name].written_distinct == traffic[name].written_total
