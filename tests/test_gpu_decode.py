# SPDX-License-Identifier: Apache-2.0
"""Decode on our own kernels through JAX, on the GPU that it runs on."""

import dataclasses
import functools
from typing import Any

import cases
import compare
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from emulator.runtime import Runtime

import jax_mla
from jax_mla import native
from jax_mla.target import resolve


@functools.cache
def platform_name() -> str:
    version = jax.devices()[0].client.platform_version.lower()
    return "rocm" if "rocm" in version else "cuda"


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        ("rocm", "kernel") not in native.LAUNCHES,
        reason=native.ABSENT or "built without device code (JAX_MLA_DEVICE=none)",
    ),
]

DTYPES = ("bf16", "f16", "fp8", "bf16-fp8")
WIDTHS = ((512, 64), (256, 64), (256, 32), (512, 0))
HEADS = (*range(1, 17), 17, 20, 24, 32, 64, 128)
Q_LENS = (1, 2, 3, 4)
PAGE_SIZES = (1, 16, 64)


def make(heads: int, q_len: int, page_size: int, dtypes: str, **options: Any) -> cases.Case:
    """A case in the float8 of the device."""
    if "fp8" in dtypes:
        fp8 = resolve(None, platform_name()).fp8_dtype
        dtypes += "fnuz" if fp8 == jnp.float8_e4m3fnuz else "fn"
    return cases.make(heads, q_len, page_size, dtypes, **options)


def decoder(case: cases.Case, **options: Any) -> Any:
    """decode on arrays of the case's shapes, jitted."""
    return jax.jit(
        functools.partial(
            jax_mla.decode,
            **case.options,
            **options,
            implementation="kernel",
            return_residuals=True,
        )
    )


def check(case: cases.Case, **options: Any) -> None:
    out, lse = decoder(case, **options)(*case.operands)
    compare.assert_close(np.asarray(out), np.asarray(lse), *oracle.decode(case))


SMALL = {"lengths": (70, 0, 1, 33), "capacity": 128}


def pairwise() -> list[tuple[int, int, int, str, tuple[int, int]]]:
    """Every heads with every q_len, and with them every pair of the others."""
    return [
        (
            heads,
            q_len,
            PAGE_SIZES[(i + j) % 3],
            DTYPES[(i + i // 4 + j) % 4],
            WIDTHS[(i + 2 * j) % 4],
        )
        for i, heads in enumerate(HEADS)
        for j, q_len in enumerate(Q_LENS)
        if (i + j) % 2 == 0
    ]


@pytest.mark.parametrize(("heads", "q_len", "page_size", "dtypes", "width"), pairwise())
def test_decode_against_float64(
    heads: int, q_len: int, page_size: int, dtypes: str, width: tuple[int, int]
) -> None:
    latent_dim, rope = width
    check(make(heads, q_len, page_size, dtypes, latent_dim=latent_dim, rope=rope, **SMALL))
