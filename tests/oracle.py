# SPDX-License-Identifier: Apache-2.0
"""MLA decode in NumPy float64, one sequence and one query at a time: what everything is held to."""

import numpy as np
from cases import Case


def decode(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """out `[batch, q_len, heads, latent_dim]` and lse `[batch, q_len, heads]` of a case."""
    batch, q_len, heads, _ = case.q.shape
    q = case.q.astype(np.float64) * (1.0 if case.q_scale is None else case.q_scale.item())
    kv_scale = 1.0 if case.kv_scale is None else case.kv_scale.item()
    out = np.zeros((batch, q_len, heads, case.latent_dim))
    lse = np.full((batch, q_len, heads), -np.inf)
    for row, length in enumerate(case.lengths.tolist()):
        keys = _keys(case, row, length).astype(np.float64) * kv_scale
        for t in range(q_len):
            seen = keys[: max(length - q_len + t + 1, 0)]
            if len(seen) == 0:
                continue
            scores = case.scale * q[row, t] @ seen.T
            top = scores.max(axis=1, keepdims=True)
            weights = np.exp(scores - top)
            total = weights.sum(axis=1, keepdims=True)
            out[row, t] = weights / total @ seen[:, : case.latent_dim]
            lse[row, t] = (top + np.log(total))[:, 0]
    return out, lse


def _keys(case: Case, row: int, length: int) -> np.ndarray:
    """`[length, width]`, the cache rows of one sequence in order."""
    page_size = case.kv_pages.shape[1]
    pages = case.page_indices[row, : -(-length // page_size)]
    return case.kv_pages[pages].reshape(-1, case.kv_pages.shape[2])[:length]
