# SPDX-License-Identifier: Apache-2.0
"""Stage 1 of decode, launched alone: partial results against NumPy in float64."""

import dataclasses
import struct
from typing import Any

import cases
import compare
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


def run(case: cases.Case, device: str, splits: int = 3) -> tuple[np.ndarray, np.ndarray, Any]:
    """out `[batch, q_len, splits, heads, latent_dim]`, lse, and what the emulator counted."""
    batch, q_len, heads, width = case.q.shape
    pages, page_size, _ = case.kv_pages.shape
    slots = case.page_indices.shape[1]
    rows = (batch, q_len, splits, heads)
    size = int(np.prod(rows))
    arrays = {
        "q": case.q,
        "kv_pages": case.kv_pages,
        "lengths": case.lengths,
        "page_indices": case.page_indices,
        "partial": np.full(size * case.latent_dim + GUARD, POISON, np.float32),
        "partial_lse": np.full(size + GUARD, POISON, np.float32),
    }
    for name in ("q_scale", "kv_scale"):
        if (value := getattr(case, name)) is not None:
            arrays[name] = np.array([value.item()], np.float32)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        array.flags.writeable = name in ("partial", "partial_lse")
    pointers = ("q", "kv_pages", "lengths", "page_indices", "q_scale", "kv_scale", "partial",
                "partial_lse")  # fmt: skip
    (scale,) = struct.unpack("<i", struct.pack("<f", case.scale))
    numbers = (scale, q_len, heads, splits, pages, page_size, slots, slots * page_size)
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
        grid=(splits, -(-q_len * heads // TILE_ROWS), batch),
        threads=THREADS,
        arrays=arrays,
        arguments=lambda at: pack([*(("P", at.get(name, 0)) for name in pointers), *numbers]),
    )
    counters = run_on(device, launch)
    partial, lse = arrays["partial"], arrays["partial_lse"]
    assert (partial[-GUARD:] == POISON).all() and (lse[-GUARD:] == POISON).all()
    return partial[:-GUARD].reshape(*rows, -1), lse[:-GUARD].reshape(rows), counters


def expected(case: cases.Case, splits: int) -> tuple[np.ndarray, np.ndarray]:
    """What each split has to write, NaN where it has no key that the query sees."""
    batch, q_len, heads, _ = case.q.shape
    pages, page_size, width = case.kv_pages.shape
    q = case.q.astype(np.float64) * (1.0 if case.q_scale is None else case.q_scale.item())
    kv_scale = 1.0 if case.kv_scale is None else case.kv_scale.item()
    out = np.full((batch, q_len, splits, heads, case.latent_dim), np.nan)
    lse = np.full((batch, q_len, splits, heads), np.nan)
    for row, length in enumerate(case.lengths.clip(0, case.page_indices.shape[1] * page_size)):
        ids = case.page_indices[row, : -(-length // page_size)].clip(0, pages - 1)
        keys = case.kv_pages[ids].reshape(-1, width).astype(np.float64)
        for query in range(q_len):
            token = np.arange(max(length - q_len + query + 1, 0))
            for split in range(splits):
                mine = keys[token[token // KV_BLOCK % splits == split]]
                if len(mine) == 0:
                    continue
                scores = q[row, query] @ mine.T * case.scale * kv_scale
                top = scores.max(axis=1, keepdims=True)
                weights = np.exp(scores - top)
                total = weights.sum(axis=1, keepdims=True)
                out[row, query, split] = weights / total @ mine[:, : case.latent_dim]
                lse[row, query, split] = (top + np.log(total))[:, 0]
    return out, lse


def check(case: cases.Case, device: str, splits: int = 3) -> Any:
    """The bar is that of an output in the dtype that the weights have."""
    out, lse, counters = run(case, device, splits)
    expected_out, expected_lse = expected(case, splits)
    seen = ~np.isnan(expected_lse)
    dtype = np.float16 if case.q.dtype == np.float16 else cases.DTYPES["bf16"][0]
    compare.assert_close(out[seen].astype(dtype), lse[seen], expected_out[seen], expected_lse[seen])
    idle = ~seen.any(axis=(1, 3))  # splits without a key are left alone
    assert (out.swapaxes(1, 2)[idle] == POISON).all()
    assert (lse.swapaxes(1, 2)[idle] == POISON).all()
    return counters


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


@on_devices
@pytest.mark.parametrize("splits", [1, 2, 3, 7])
def test_lengths_around_blocks(splits: int, device: str) -> None:
    lengths = (0, 1, 2, 31, 32, 33, 34, 63, 64, 65, 97)
    check(cases.make(2, 3, 16, "bf16", lengths, capacity=112), device, splits)


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
    case.kv_pages[case.page_indices[0, 2], 5, column] = np.nan  # token 37
    out, lse, _ = run(case, device)
    assert np.isnan(out[0, 0, 1]).all() and np.isnan(lse[0, 0, 1]).all()
    assert np.isfinite(out[0, 0, [0, 2]]).all() and np.isfinite(out[1]).all()
    assert np.isfinite(lse[0, 0, [0, 2]]).all() and np.isfinite(lse[1]).all()


@on_devices
def test_every_launch_has_the_same_bits(device: str) -> None:
    case = cases.make(20, 2, 16, "bf16")
    first, second = run(case, device), run(case, device)
    for a, b in zip(first[:2], second[:2], strict=True):
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize("device", AMD)
@pytest.mark.parametrize("dtypes", ["bf16", "fp8"])
@pytest.mark.parametrize(("heads", "tiles"), [(4, 1), (16, 1), (20, 2)])
def test_each_byte_is_moved_once(heads: int, tiles: int, dtypes: str, device: str) -> None:
    """The rows in use, and their pages, for each tile of rows; q for each split that has keys."""
    lengths, splits = (100, 33, 0, 200), 3
    used, parts = sum(lengths), 3 + 2 + 0 + 3
    case = cases.make(heads, 1, 16, dtypes_on(dtypes, device), lengths, capacity=208)
    traffic = check(case, device, splits).traffic
    token_bytes = case.kv_pages.itemsize * 576
    assert traffic["kv_pages"].read_total == tiles * used * token_bytes
    assert traffic["kv_pages"].read_distinct == used * token_bytes
    assert traffic["page_indices"].read_total == tiles * used * 4
    assert traffic["q"].read_total == parts * heads * 576 * case.q.itemsize
    for name, size in (("partial", 512), ("partial_lse", 1)):
        assert traffic[name].written_total == parts * heads * size * 4
        assert traffic[name].written_distinct == traffic[name].written_total
