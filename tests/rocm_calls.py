# SPDX-License-Identifier: Apache-2.0
"""FFI custom calls on ROCm that launch kernels of ours: builds and registers rocm_calls.cc."""

import ctypes
import functools
import hashlib
import subprocess
from pathlib import Path

import jax
import numpy as np
from emulator import compiler

SOURCE = Path(__file__).with_name("rocm_calls.cc")
KERNELS = Path(__file__).with_name("emulator_kernels") / "jax_calls.hip"
THREADS = 64


@functools.cache
def register() -> None:
    """Makes the handlers known to JAX, once a process."""
    include = jax.ffi.include_dir()
    key = SOURCE.read_bytes() + include.encode() + jax.__version__.encode()
    digest = hashlib.sha256(key).hexdigest()[:16]
    library = compiler.CACHE / f"rocm_calls-{digest}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        made = library.with_suffix(f".{np.random.default_rng().integers(2**31)}")
        command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra"]
        subprocess.run(
            [*command, "-isystem", include, str(SOURCE), "-o", str(made), "-ldl"], check=True
        )
        made.replace(library)
    handlers = ctypes.CDLL(str(library))
    for name in ("test_launch", "test_launch_aside"):
        capsule = jax.ffi.pycapsule(getattr(handlers, name))
        jax.ffi.register_ffi_target(name, capsule, platform="ROCM")


@functools.cache
def code_object() -> str:
    arch = jax.devices("rocm")[0].compute_capability
    return str(compiler.device_code(KERNELS, arch))


def call(
    target: str, kernels: str, x: jax.Array, results: int = 1, **flag: bool
) -> tuple[jax.Array, ...]:
    """`results` int32 arrays of x's size from the kernels, one work-item an element."""
    register()
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.ffi.ffi_call(target, (shape,) * results)(
        x,
        path=code_object(),
        kernels=kernels,
        blocks=np.int64(x.size // THREADS),
        threads=np.int64(THREADS),
        **flag,
    )


def double_and_increment(x: jax.Array, confined: bool = True) -> jax.Array:
    """2 * x + 1 in two launches, with a workspace that is a result of the call."""
    y, _workspace = call(
        "test_launch", "to_workspace from_workspace", x, results=2, confined=confined
    )
    return y
