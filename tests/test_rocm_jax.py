# SPDX-License-Identifier: Apache-2.0
"""JAX on ROCm: programs that XLA and Triton compile give the CPU backend's numbers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

pytestmark = pytest.mark.rocm

bf16 = jnp.bfloat16


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def i32(limit: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, limit, shape, np.int32)


def fp8_round_trip(x: jax.Array) -> jax.Array:
    """Through the 8-bit type that gfx942 has in hardware and the one that gfx950 has."""
    types = (jnp.float8_e4m3fnuz, jnp.float8_e4m3fn)
    return jnp.stack([x.astype(t).astype(x.dtype) for t in types])


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return jax.nn.softmax(jnp.einsum("bhd,bkd->bhk", q, k), -1) @ v


def collatz(x: jax.Array) -> jax.Array:
    """A loop whose length depends on the data."""
    step = lambda n: jnp.where(n % 2 == 0, n // 2, 3 * n + 1)  # noqa: E731
    return lax.while_loop(lambda s: s[0] != 1, lambda s: (step(s[0]), s[1] + 1), (x, 0))[1]


Program = tuple[Callable[..., Any], tuple[Any, ...]]

EXACT: dict[str, Program] = {
    "elementwise": (lambda x: x * 2 + 1, (f32(64, 100),)),
    "where": (lambda x: jnp.where(x > 0, x, 0), (f32(8, 100),)),
    "to bfloat16": (lambda x: x.astype(bf16), (f32(4, 100),)),
    "from bfloat16": (lambda x: x.astype(np.float32), (f32(4, 100).astype(bf16),)),
    "8-bit floats": (fp8_round_trip, (f32(4, 100),)),
    "repeat": (lambda x: jnp.repeat(x, 4, axis=1), (f32(4, 4, 64),)),
    "pad": (lambda x: jnp.pad(x, ((0, 0), (0, 8), (0, 0))), (f32(4, 8, 64),)),
    "slice": (lambda x: x[:, 1:8:2, :], (f32(4, 16, 64),)),
    "concatenate": (lambda x, y: jnp.concatenate([x, y], 1), (f32(4, 8, 64), f32(4, 5, 64))),
    "transpose": (lambda x: x.T + 0, (f32(40, 70),)),
    "dynamic_update_slice": (
        lambda x, y, i: lax.dynamic_update_slice(x, y, (i, 0)),
        (f32(16, 64), f32(2, 64), np.int32(3)),
    ),
    "gather": (lambda x, i: x[i], (f32(32, 64), i32(32, 10))),
    "scatter": (lambda x, i, v: x.at[i].set(v), (f32(32, 64), np.arange(0, 15, 3), f32(5, 64))),
    "maximum": (lambda x: x.max(), (f32(8, 512),)),
    "argmax": (lambda x: jnp.argmax(x, -1), (f32(8, 64),)),
    "sort": (jnp.sort, (f32(64),)),
    "argsort": (lambda x: jnp.argsort(x, axis=-1), (f32(4, 33),)),
    "integer scan": (jnp.cumsum, (i32(9, 100),)),
    "scan": (lambda x: lax.scan(lambda c, r: (c * 0.5 + r, c), x[0], x)[1], (f32(6, 8),)),
    "while": (collatz, (np.int32(27),)),
    "cond": (
        lambda p, x: lax.cond(p > 0, lambda a: a + 1, lambda a: a - 1, x), (np.int32(1), f32(8)),
    ),
    "random bits": (lambda k: jax.random.bits(jax.random.key(k), (4, 16)), (np.uint32(7),)),
}  # fmt: skip

CLOSE: dict[str, Program] = {
    "sum": (lambda x: x.sum(-1), (f32(8, 512),)),
    "softmax": (lambda x: jax.nn.softmax(x, -1), (f32(8, 512),)),
    "exp": (jnp.exp, (f32(8, 16),)),
    "sin": (jnp.sin, (f32(8, 16),)),
    "power": (lambda x: jnp.abs(x) ** 1.7, (f32(8, 16),)),
    "erf": (jax.scipy.special.erf, (f32(8, 16),)),
    "tanh": (jnp.tanh, (f32(8, 16),)),
    "random normal": (lambda k: jax.random.normal(jax.random.key(k), (4, 16)), (np.uint32(7),)),
    "dot": (jnp.matmul, (f32(16, 32), f32(32, 8))),
    "attention": (attention, (f32(2, 4, 16), f32(2, 8, 16), f32(2, 8, 16))),
    "dot, bfloat16": (jnp.matmul, (f32(64, 64).astype(bf16), f32(64, 32).astype(bf16))),
    "batched dot, bfloat16": (
        lambda x, y: jnp.einsum("bhd,bkd->bhk", x, y),
        (f32(4, 16, 64).astype(bf16), f32(4, 32, 64).astype(bf16)),
    ),
}


def run(platform: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> np.ndarray:
    with jax.default_device(jax.devices(platform)[0]):
        result = jax.jit(function)(*arguments)
        assert result.device.platform == platform.replace("rocm", "gpu")
    return np.asarray(result)


@pytest.mark.parametrize("name", EXACT)
def test_equals_the_cpu_backend(name: str) -> None:
    np.testing.assert_array_equal(run("rocm", *EXACT[name]), run("cpu", *EXACT[name]))


@pytest.mark.parametrize("name", CLOSE)
def test_close_to_the_cpu_backend(name: str) -> None:
    got, want = run("rocm", *CLOSE[name]), run("cpu", *CLOSE[name])
    assert got.dtype == want.dtype
    # A bfloat16 result may fall to either side of a rounding boundary.
    tolerance = 2**-7 if want.dtype == bf16 else 4e-6
    got, want = got.astype(np.float64), want.astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def test_devices(platform: str) -> None:
    """The kind of device that the platform promises, and all that JAX says about it."""
    device = jax.devices("rocm")[0]
    assert device.platform == "gpu"
    if platform.startswith("emulated"):
        arch = platform.split()[1]
        assert len(jax.devices("rocm")) == 4
        assert device.compute_capability == arch
        assert device.core_count == {"gfx942": 304, "gfx950": 256}[arch]
        assert "Emulated" in device.device_kind


def test_copies_there_and_back() -> None:
    x = f32(1000)
    there = jax.device_put(x, jax.devices("rocm")[0])
    np.testing.assert_array_equal(np.asarray(there), x)
    back = jax.device_put(there, jax.devices("cpu")[0])
    np.testing.assert_array_equal(np.asarray(back), x)


def test_pallas() -> None:
    """A Triton kernel of one's own."""

    def kernel(x_ref: Any, y_ref: Any, o_ref: Any) -> None:
        o_ref[...] = x_ref[...] * 2 + y_ref[...]

    block = pl.BlockSpec((128,), lambda i: (i,))
    call = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((512,), np.float32),
        grid=(4,),
        in_specs=[block, block],
        out_specs=block,
        compiler_params=triton.CompilerParams(num_warps=2),
    )
    x, y = f32(512), f32(513)[1:]
    np.testing.assert_array_equal(run("rocm", call, (x, y)), x * 2 + y)


def test_shard_map() -> None:
    """Each device works on its part."""
    devices = jax.devices("rocm")
    if len(devices) < 4:
        pytest.skip(f"needs 4 devices, there are {len(devices)}")
    mesh = Mesh(np.array(devices[:4]), ("d",))
    x = i32(100, 8, 16)
    parts = jax.device_put(x, NamedSharding(mesh, P("d")))
    body = jax.shard_map(
        lambda a: a * 3 + lax.axis_index("d"), mesh=mesh, in_specs=P("d"), out_specs=P("d")
    )
    result = jax.jit(body)(parts)
    assert [s.data.device for s in result.addressable_shards] == devices[:4]
    np.testing.assert_array_equal(np.asarray(result), x * 3 + np.repeat(np.arange(4), 2)[:, None])


def test_an_unavailable_library_is_an_error_and_not_the_end(platform: str) -> None:
    if not platform.startswith("emulated"):
        pytest.skip("hipFFT is there")
    with pytest.raises(jax.errors.JaxRuntimeError):
        run("rocm", jnp.fft.fft, (f32(16),))
    np.testing.assert_array_equal(run("rocm", lambda x: x + 1, (f32(4),)), f32(4) + 1)
