# SPDX-License-Identifier: Apache-2.0
"""Which of our own kernels serves a call, and how the keys are dealt out."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from jax_mla.call import Call, Unserved
from jax_mla.kernel_plan import plan
from jax_mla.target import Target

H200, H100, A100 = Target("sm_90", 132), Target("sm_90", 114), Target("sm_80", 108)
MI300X, MI355X = Target("gfx942", 304), Target("gfx950", 256)
BF16, FP8 = np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)


def call(**changes: Any) -> Call:
    sizes: dict[str, Any] = {
        "batch": 8, "q_len": 1, "heads": 4, "width": 576, "latent_dim": 512, "num_pages": 1024,
        "page_size": 64, "pages_per_seq": 16, "q_dtype": BF16, "kv_dtype": BF16,
    }  # fmt: skip
    return Call(**(sizes | changes))


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({}, "decode_sm90"),
        ({"page_size": 1}, "decode_sm90"),
        ({"kv_dtype": FP8}, "decode_sm90"),
        ({"q_dtype": FP8, "kv_dtype": FP8, "page_size": 2}, "decode_sm90"),
        ({"kv_dtype": FP8, "page_size": 1}, "decode"),  # a row is no multiple of 128 bytes
        ({"width": 512}, "decode"),
        ({"width": 320, "latent_dim": 256}, "decode"),
        ({"num_pages": 2**31 // 9 // 64}, "decode_sm90"),
        ({"num_pages": 2**31 // 9 // 64 + 1}, "decode"),  # nine lines a row, below 2^31
    ],
)
def test_which_kernel(changes: dict[str, Any], source: str) -> None:
    assert plan(call(**changes), H200).source == source
    assert plan(call(**changes), A100).source == "decode"


@pytest.mark.parametrize(("target", "block"), [(H200, 64), (A100, 32)])
def test_blocks_of_keys_are_counted_in_32_bits(target: Target, block: int) -> None:
    full = {"batch": 2**15, "page_size": block, "heads": 17}  # two tiles
    plan(call(**full, pages_per_seq=2**15 - 1), target)
    with pytest.raises(Unserved, match=f"fewer than 2.31 blocks of {block} keys"):
        plan(call(**full, pages_per_seq=2**15), target)


@pytest.mark.parametrize(
    ("target", "batch", "heads", "workers"),
    [
        (H200, 1, 4, 132),
        (H200, 7, 16, 126),  # 18 to each
        (H200, 64, 4, 128),
        (H200, 64, 17, 128),  # two tiles of rows
        (H200, 100, 4, 132),  # 100 would leave a quarter of the GPU idle
        (H200, 110, 4, 110),
        (H200, 128, 4, 128),
        (H200, 133, 4, 132),
        (H200, 134, 4, 132),  # and 67 half of it
        (H200, 256, 4, 128),
        (H100, 32, 4, 96),
        (A100, 16, 4, 96),
        (MI300X, 64, 4, 256),
        (MI355X, 64, 4, 512),
    ],
)
def test_workers_cut_jobs_of_one_length_alike(
    target: Target, batch: int, heads: int, workers: int
) -> None:
    assert plan(call(batch=batch, heads=heads), target).workers == workers


@pytest.mark.parametrize(
    ("heads", "q_len", "tile_rows", "tiles"), [(8, 1, 8, 1), (3, 3, 16, 1), (16, 2, 16, 2)]
)
def test_room_for_partial_results(heads: int, q_len: int, tile_rows: int, tiles: int) -> None:
    made = plan(call(batch=3, heads=heads, q_len=q_len), H200)
    assert (made.tile_rows, made.row_tiles, made.weights) == (tile_rows, tiles, 2)
    assert made.workspace_bytes == (made.workers + 3 * tiles) * tile_rows * 514 * 4
    fixed = plan(call(batch=3, heads=heads, q_len=q_len), H200, num_kv_splits=5)
    assert (fixed.workers, fixed.num_kv_splits) == (0, 5)
    assert fixed.workspace_bytes == 5 * 3 * tiles * tile_rows * 514 * 4


@pytest.mark.parametrize("target", [H200, A100])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 448}, "expected latent_dim \\+ rope of 512\\+64"),
        ({"q_dtype": np.dtype(np.float32)}, "expected a bfloat16, float16 or float8 q"),
        ({"batch": 2**16}, "expected at most 65535 sequences"),
        ({"kv_dtype": np.dtype(ml_dtypes.float8_e4m3fnuz)}, "float8_e4m3fn"),
    ],
)
def test_what_there_is_no_kernel_for(changes: dict[str, Any], message: str, target: Target) -> None:
    with pytest.raises(Unserved, match=message):
        plan(call(**changes), target)


def test_splits_that_are_too_many() -> None:
    assert plan(call(), H200, num_kv_splits=2**16).num_kv_splits == 2**16
    with pytest.raises(Unserved, match="at most 65536 num_kv_splits, got 65537"):
        plan(call(), H200, num_kv_splits=2**16 + 1)
