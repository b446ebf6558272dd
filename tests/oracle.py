# SPDX-License-Identifier: Apache-2.0
"""MLA decode in NumPy float64, one sequence and one query at a time: what everything is held to."""

from collections.abc import Iterator, Sequence

import numpy as np
from cases import Case

# Relative error of a weight that is computed in float32.
_WEIGHT_ERROR = 4e-6


def decode(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """out `[batch, q_len, heads, latent_dim]` and lse `[batch, q_len, heads]` of a case."""
    out, lse = _unseen(case)
    for row, t, scores, values in _queries(case):
        lse[row, t] = _log_sum_exp(scores)
        out[row, t] = np.exp(scores - lse[row, t, :, None]) @ values
    return out, lse


def decode_rounding(
    case: Case, parts: Sequence[np.ndarray], block: int, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same by kernels that round the weights of the keys to the dtype that they multiply in.

    They go over each part of a sequence's keys block by block, and what they round is the weight
    relative to the highest in the part so far. One that lies in the middle between two numbers may
    be rounded to either, by the last bits of a float32.

    Args:
      case: the operands.
      parts: for each sequence the number of the part that each key belongs to, the same for all
        keys of a block: `[keys]`, or `[q_len, heads, keys]`.
      block: keys that a kernel takes at a time.
      dtype: of rounded weights.

    Returns:
      out, lse, and how far each element of out may be off for such weights.
    """
    out, lse = _unseen(case)
    doubt = np.zeros_like(out)
    for row, t, scores, values in _queries(case):
        lse[row, t] = _log_sum_exp(scores)
        part = parts[row] if parts[row].ndim == 1 else parts[row][t]
        highest = _highest_so_far(scores, part, block)
        weights, unit = np.exp(scores - highest), np.exp(highest - lse[row, t, :, None])
        low, rounded, high = (
            (weights * factor).astype(dtype).astype(np.float64) * unit
            for factor in (1 - _WEIGHT_ERROR, 1, 1 + _WEIGHT_ERROR)
        )
        out[row, t] = rounded @ values
        doubt[row, t] = (high - low) @ np.abs(values)
    return out, lse, doubt


def _unseen(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """out and lse of queries that see no key."""
    rows = case.q.shape[:3]
    return np.zeros((*rows, case.latent_dim)), np.full(rows, -np.inf)


def _queries(case: Case) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """For each that sees a key: sequence, query, scores `[heads, keys]`, values of the keys."""
    q = case.q.astype(np.float64) * (1.0 if case.q_scale is None else case.q_scale.item())
    kv_scale = 1.0 if case.kv_scale is None else case.kv_scale.item()
    q_len = q.shape[1]
    for row, length in enumerate(case.lengths.tolist()):
        keys = _keys(case, row, length).astype(np.float64) * kv_scale
        for t in range(q_len):
            seen = keys[: max(length - q_len + t + 1, 0)]
            if len(seen) > 0:
                yield row, t, case.scale * q[row, t] @ seen.T, seen[:, : case.latent_dim]


def _log_sum_exp(scores: np.ndarray) -> np.ndarray:
    top = scores.max(axis=1)
    result: np.ndarray = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    return result


def _highest_so_far(scores: np.ndarray, part: np.ndarray, block: int) -> np.ndarray:
    """For each key the highest score of its part, up to the end of its block."""
    heads, keys = scores.shape
    blocks = -(-keys // block)
    padded = np.full((heads, blocks * block), -np.inf)
    padded[:, :keys] = scores
    highest = padded.reshape(heads, blocks, block).max(axis=2)
    part = np.broadcast_to(part, (heads, part.shape[-1]))[:, :keys:block]
    for number in np.unique(part):
        mine = np.where(part == number, highest, -np.inf)
        highest = np.where(part == number, np.maximum.accumulate(mine, axis=1), highest)
    return highest.repeat(block, axis=1)[:, :keys]


def _keys(case: Case, row: int, length: int) -> np.ndarray:
    """`[length, width]`, the cache rows of one sequence in order."""
    page_size = case.kv_pages.shape[1]
    pages = case.page_indices[row, : -(-length // page_size)]
    return case.kv_pages[pages].reshape(-1, case.kv_pages.shape[2])[:length]
