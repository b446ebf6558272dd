# SPDX-License-Identifier: Apache-2.0
"""Inputs for decode, with everything poisoned that must not be read."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

SCALE = 192**-0.5
# What no kernel may follow: the page id that stands past a sequence's length.
ABSURD_PAGE = 2147480000

DTYPES = {
    "bf16": (ml_dtypes.bfloat16, ml_dtypes.bfloat16),
    "f16": (np.float16, np.float16),
    "f32": (np.float32, np.float32),
    "fp8fn": (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fn),
    "fp8fnuz": (ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e4m3fnuz),
    "bf16-fp8fn": (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn),
    "bf16-fp8fnuz": (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fnuz),
}
HEADS = (*range(1, 17), 17, 20, 24, 32, 40, 48, 64, 96, 128)
Q_LENS = (1, 2, 4)
PAGE_SIZES = (1, 16, 64)


@dataclasses.dataclass(frozen=True)
class Case:
    """Operands of decode as NumPy arrays."""

    q: np.ndarray
    kv_pages: np.ndarray
    lengths: np.ndarray
    page_indices: np.ndarray
    scale: float = SCALE
    latent_dim: int = 512
    q_scale: np.ndarray | None = None
    kv_scale: np.ndarray | None = None

    @property
    def operands(self) -> tuple[jax.Array, ...]:
        arrays = (self.q, self.kv_pages, self.lengths, self.page_indices)
        return tuple(jnp.asarray(x) for x in arrays)

    @property
    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"scale": self.scale, "latent_dim": self.latent_dim}
        for name in ("q_scale", "kv_scale"):
            if (value := getattr(self, name)) is not None:
                options[name] = jnp.asarray(value)
        return options


def make(
    heads: int = 4,
    q_len: int = 1,
    page_size: int = 16,
    dtypes: str = "bf16",
    lengths: tuple[int, ...] | None = None,
    *,
    latent_dim: int = 512,
    rope: int = 64,
    capacity: int = 192,
    seed: int = 0,
    finite: bool = False,
    first_row: bool = False,
) -> Case:
    """A case whose pool, table and tails hold NaN and absurd pages wherever they may.

    lengths default to empty, shorter than q_len, one, about a page, and the whole capacity. finite
    leaves the pool without NaN, first_row its first row, which AITER's kernels read.
    """
    rng = np.random.default_rng(seed)
    pages_per_seq = -(-capacity // page_size)
    full = pages_per_seq * page_size
    if lengths is None:
        lengths = (full, 0, max(q_len - 1, 1), page_size, min(page_size + 1, full), 77)
    batch, width = len(lengths), latent_dim + rope
    q_dtype, kv_dtype = DTYPES[dtypes]

    num_pages = batch * pages_per_seq + 3
    table = rng.permutation(num_pages)[: batch * pages_per_seq].reshape(batch, pages_per_seq)
    table = table.astype(np.int32)
    pool = rng.standard_normal((num_pages, page_size, width)).astype(kv_dtype)
    live = np.zeros((num_pages, page_size), bool)
    for row, length in enumerate(lengths):
        used = -(-length // page_size)
        for slot in range(used):
            live[table[row, slot], : length - slot * page_size] = True
        table[row, used:] = ABSURD_PAGE
    live[0, 0] |= first_row
    if not finite:
        pool[~live] = np.nan
    scales = {}
    if dtypes.startswith("fp8"):
        scales["q_scale"] = np.asarray(0.7, np.float32)
    if "fp8" in dtypes:
        scales["kv_scale"] = np.asarray([1.3], np.float32)
    return Case(
        q=rng.standard_normal((batch, q_len, heads, width)).astype(q_dtype),
        kv_pages=pool,
        lengths=np.asarray(lengths, np.int32),
        page_indices=table,
        latent_dim=latent_dim,
        **scales,
    )


def in_large_pool(case: Case) -> Case:
    """The same with its pages all over a pool of more than 4 GiB and, of bfloat16, 2**31 elements.

    They lie at both ends, around 2**31 and 2**32 bytes and evenly in between. The rest is zeros,
    which no memory backs until somebody reads them.
    """
    pages, page_size, width = case.kv_pages.shape
    page_bytes = page_size * width * case.kv_pages.dtype.itemsize
    count = (2**32 + 2**28) // page_bytes
    used = np.unique(case.page_indices[case.page_indices < pages])
    edges = {0, count - 1}
    for limit in (2**31, 2**32):
        edges |= {limit // page_bytes + i for i in (-1, 0, 1)}
    places = [*edges, *range(2, count, count // len(used))][: len(used)]
    assert len({*places}) == len(used) > len(edges)

    pool = np.zeros(count * page_bytes, np.uint8).view(case.kv_pages.dtype)
    pool = pool.reshape(count, page_size, width)
    pool[places] = case.kv_pages[used]
    table = case.page_indices.copy()
    for page, place in zip(used, places, strict=True):
        table[case.page_indices == page] = place
    return dataclasses.replace(case, kv_pages=pool, page_indices=table)


def product() -> list[tuple[int, int, int, str]]:
    """Every combination of heads, q_len, page size and dtypes."""
    return list(itertools.product(HEADS, Q_LENS, PAGE_SIZES, DTYPES))


def pairwise() -> list[tuple[int, int, int, str]]:
    """A part of `product` that holds every pair of values of every two parameters."""
    return [
        (heads, Q_LENS[(i + j) % 3], PAGE_SIZES[(i + 2 * j) % 3], dtypes)
        for i, heads in enumerate(HEADS)
        for j, dtypes in enumerate(DTYPES)
    ]


def covering(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Some of the rows, which hold every pair of values of every two columns that the rows hold."""

    def pairs(row: tuple[Any, ...]) -> set[Any]:
        return set(itertools.combinations(enumerate(row), 2))

    chosen, missing = [], set().union(*map(pairs, rows))
    while missing:
        chosen.append(max(rows, key=lambda row: len(pairs(row) & missing)))
        missing -= pairs(chosen[-1])
    return chosen
