# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from jax_mla import heads


@pytest.mark.parametrize("count", range(1, 129))
def test_undo_of_apply_changes_nothing(count: int) -> None:
    plan = heads.padded(count)
    q = jnp.arange(2 * 3 * count * 5, dtype=jnp.float32).reshape(2, 3, count, 5) + 1
    padded = plan.apply(q)
    assert padded.shape == (2, 3, plan.padded_heads, 5)
    assert plan.padded_heads in heads.NATIVE_HEADS and plan.padded_heads >= count
    np.testing.assert_array_equal(plan.undo(padded), q)
    np.testing.assert_array_equal(plan.undo(padded[..., 0]), q[..., 0])
    if plan.head_stride > 1:
        np.testing.assert_array_equal(padded, np.repeat(q, plan.head_stride, axis=2))
    else:
        assert not padded[:, :, count:].any()


@pytest.mark.parametrize(
    ("count", "rows", "stride"),
    [(1, 16, 16), (2, 16, 8), (4, 16, 4), (8, 16, 2), (12, 16, 1), (16, 16, 1), (24, 32, 1),
     (20, 32, 1), (40, 64, 1), (96, 128, 1), (128, 128, 1)],
)  # fmt: skip
def test_padded_by_count_never_by_ratio(count: int, rows: int, stride: int) -> None:
    assert heads.padded(count) == heads.HeadPlan(count, rows, stride)


def test_unpadded_is_the_identity() -> None:
    q = jnp.ones((1, 1, 5, 8))
    plan = heads.unpadded(5)
    assert plan.apply(q) is q
    np.testing.assert_array_equal(plan.undo(q), q)
