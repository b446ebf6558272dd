# SPDX-License-Identifier: Apache-2.0
"""The merge as a custom call of JAX, on the GPU that it runs on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from merging import DTYPES, Problem

from jax_mla import native


@functools.cache
def target() -> str:
    """Name of the custom call on the default device's platform."""
    assert native.ABSENT is None
    version = jax.devices()[0].client.platform_version.lower()
    return f"jax_mla_merge_{'rocm' if 'rocm' in version else 'cuda'}_v1"


def operands(problem: Problem) -> list[np.ndarray]:
    arrays = [problem.partial, problem.lse, np.array(problem.lengths, np.int32)]
    if problem.reduce_indptr is not None:
        arrays.append(problem.reduce_indptr)
    return [*arrays, np.array(problem.scale or 1.0, np.float32)]


def merge(problem: Problem, dtype: str, *arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Merges `arrays`, operands of the problem's shapes."""
    shape = (len(problem.lengths), problem.q_len, problem.heads)
    out, lse = jax.ffi.ffi_call(
        target(),
        (
            jax.ShapeDtypeStruct((*shape, problem.latent_dim), DTYPES[dtype]),
            jax.ShapeDtypeStruct(shape, jnp.float32),
        ),
    )(
        *arrays,
        persistent=problem.reduce_indptr is not None,
        groups=np.int64(problem.groups),
        head_stride=np.int64(problem.head_stride),
        kv_block=np.int64(problem.kv_block),
        capacity=np.int64(problem.capacity),
    )
    return out, lse


def run(problem: Problem, dtype: str = "f32") -> tuple[np.ndarray, np.ndarray]:
    out, lse = jax.jit(functools.partial(merge, problem, dtype))(*operands(problem))
    return np.asarray(out), np.asarray(lse)
