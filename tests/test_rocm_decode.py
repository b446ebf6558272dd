# SPDX-License-Identifier: Apache-2.0
"""jax_mla on ROCm: a jitted program that decodes through XLA's own kernels."""

import functools

import cases
import compare
import jax
import numpy as np
import oracle
import pytest

import jax_mla

pytestmark = pytest.mark.rocm


@pytest.mark.parametrize("dtypes", cases.DTYPES)
def test_decode_against_float64(dtypes: str) -> None:
    """Short sequences of two queries and pages in any order, an empty one, poison beyond each."""
    case = cases.make(3, 2, 16, dtypes, lengths=(40, 0, 17, 1), capacity=48)
    decode = jax.jit(
        functools.partial(
            jax_mla.decode, **case.options, implementation="xla", return_residuals=True
        )
    )
    with jax.default_matmul_precision("highest"):
        out, lse = decode(*case.operands)
    assert out.device.platform == "gpu"
    compare.assert_close(out, lse, *oracle.decode(case))


def test_append_then_decode() -> None:
    """Rows are written to a paged cache on the device and seen by the next step."""
    case = cases.make(2, 1, 16, "f32", lengths=(20,), capacity=32, finite=True)
    q, pool, lengths, pages = case.operands
    row = pool[pages[0, 1], 3]  # token 19, the last
    without = pool.at[pages[0, 1], 3].set(0)

    @jax.jit
    def step(pool: jax.Array, row: jax.Array) -> tuple[jax.Array, ...]:
        pool = jax_mla.append(pool, row[None, None], lengths, pages)
        out = jax_mla.decode(
            q, pool, lengths, pages, **case.options, implementation="xla", return_residuals=True
        )
        assert isinstance(out, tuple)
        return out

    with jax.default_matmul_precision("highest"):
        out, lse = step(without, row)
    compare.assert_close(np.asarray(out), np.asarray(lse), *oracle.decode(case))
