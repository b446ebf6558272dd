# SPDX-License-Identifier: Apache-2.0
"""Stage 1 of decode, launched alone: partial results against NumPy in float64."""

import struct
from typing import Any

import cases
import compare
import numpy as np
import pytest
from gpu import DEVICES, Launch, pack, run_on

THREADS, ROWS, KV_BLOCK = 256, 16, 32
WIDTHS = [(512, 64), (256, 64), (256, 32), (512, 0)]
GUARD = 64  # elements after each result, which must stay as they are
POISON = -77.0

on_devices = pytest.mark.parametrize("device", DEVICES)


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
    launch = Launch(
        source="decode",
        kernel=f"jax_mla_decode_{kernel}_{case.latent_dim}_{width - case.latent_dim}",
        grid=(splits, -(-q_len * heads // ROWS), batch),
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
