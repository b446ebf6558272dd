# SPDX-License-Identifier: Apache-2.0
"""How close is close enough: several measures at once, since each alone lets some fault pass."""

import dataclasses

import ml_dtypes
import numpy as np


@dataclasses.dataclass(frozen=True)
class Bar:
    """Bounds for one (sequence, query, head) vector, m being its largest reference value.

    Attributes:
      absolute: every element may be off by this times m, ...
      relative: ... or by this times itself.
      largest: no element may be off by more than this times m.
      cosine: bound of 1 - cosine of the angle to the reference.
      lse: absolute bound of the log-sum-exp.
    """

    absolute: float
    relative: float
    largest: float
    cosine: float
    lse: float


BARS = {
    np.dtype(ml_dtypes.bfloat16): Bar(3e-3, 2.01 / 128, 6e-3, 5e-6, 1e-4),
    np.dtype(np.float16): Bar(4e-4, 2.01 / 1024, 8e-4, 1e-7, 1e-4),
    np.dtype(np.float32): Bar(2e-6, 0.0, 2e-6, 1e-10, 1e-5),
}
# Against float64, where a kernel has rounded the weights of the keys to 8 or 16 bits, by q's dtype.
ROUNDED_WEIGHTS = {
    "bf16": Bar(6e-3, 2.01 / 128, 6e-3, 5e-6, 1e-4),
    "f16": Bar(8e-4, 2.01 / 1024, 8e-4, 1e-7, 1e-4),
    "fp8": Bar(np.inf, 0.0, np.inf, 3e-2, 1e-4),
}


def assert_close(
    out: np.ndarray,
    lse: np.ndarray,
    expected_out: np.ndarray,
    expected_lse: np.ndarray,
    doubt: np.ndarray | None = None,
    bar: Bar | None = None,
) -> None:
    """Holds out and lse, in their dtypes, against float64; unseen rows must be 0 and -inf.

    `doubt` is how far each element of out may be off besides; the bar is that of out's dtype.
    """
    bar = bar or BARS[np.asarray(out).dtype]
    out, lse = np.asarray(out).astype(np.float64), np.asarray(lse).astype(np.float64)
    assert out.shape == expected_out.shape, (out.shape, expected_out.shape)
    assert lse.shape == expected_lse.shape, (lse.shape, expected_lse.shape)
    assert np.isfinite(out).all(), f"not finite at {np.argwhere(~np.isfinite(out))[:5].tolist()}"

    unseen = np.isneginf(expected_lse)
    np.testing.assert_array_equal(np.isneginf(lse), unseen, "lse is -inf elsewhere")
    np.testing.assert_array_equal(out[unseen], 0.0, "a query that sees no key is not 0")
    doubt = np.zeros_like(expected_out) if doubt is None else doubt
    out, expected_out, doubt = out[~unseen], expected_out[~unseen], doubt[~unseen]
    np.testing.assert_allclose(lse[~unseen], expected_lse[~unseen], rtol=0, atol=bar.lse)

    error = np.abs(out - expected_out)
    most = np.abs(expected_out).max(axis=-1, keepdims=True)
    allowed = np.maximum(bar.absolute * most, bar.relative * np.abs(expected_out)) + doubt
    assert (error <= allowed).all(), f"element: {(error / allowed).max():.3g} of the bar"
    over = error - doubt
    assert (over <= bar.largest * most).all(), f"largest: {(over / most).max():.3g} of m"
    # A small angle; its cosine is 1 - angle**2 / 2.
    angle = np.sqrt(2 * bar.cosine) + np.linalg.norm(doubt, axis=-1) / _norm(expected_out)
    distance = 1 - (out * expected_out).sum(-1) / (_norm(out) * _norm(expected_out))
    assert (distance <= angle**2 / 2).all(), f"cosine distance {distance.max():.3g}"


def _norm(x: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.norm(x, axis=-1), 1e-300)
