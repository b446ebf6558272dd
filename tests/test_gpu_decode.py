# SPDX-License-Identifier: Apache-2.0
"""Decode on our own kernels through JAX, on the GPU that it runs on."""

import dataclasses
import functools
import itertools
from typing import Any

import cases
import compare
import dealing
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from emulator.runtime import Runtime

import jax_mla
from jax_mla import kernel_plan, lowering, native
from jax_mla.kernel_plan import WIDTHS, KernelPlan
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


def plan(case: cases.Case, num_kv_splits: int | None = None) -> KernelPlan:
    call = lowering.make_call(case.q, case.kv_pages, case.page_indices, case.latent_dim)
    return kernel_plan.plan(call, resolve(None, platform_name()), num_kv_splits=num_kv_splits)


def parts(case: cases.Case, plan: KernelPlan) -> list[np.ndarray]:
    """For each sequence the part that each key belongs to, `[q_len, heads, keys]`."""
    batch, q_len, heads, _ = case.q.shape
    result = np.zeros((batch, q_len * heads, max(case.lengths.max(), 1)), int)
    for cut in dealing.cuts(
        case.lengths, plan.row_tiles, plan.kv_block, plan.num_kv_splits, plan.workers,
        plan.part_blocks,
    ):  # fmt: skip
        rows = slice(cut.tile * plan.tile_rows, (cut.tile + 1) * plan.tile_rows)
        result[cut.sequence, rows, cut.begin : cut.end] = cut.part
    return list(result.reshape(batch, q_len, heads, -1))


def check(case: cases.Case, **options: Any) -> None:
    """Holds decode against float64, closely with the weights of the keys rounded as it does."""
    out, lse = map(np.asarray, decoder(case, **options)(*case.operands))
    made = plan(case, **options)
    fp8, half = case.kv_pages.dtype.itemsize == 1, case.q.dtype == np.float16
    weights = np.float16 if half or (fp8 and made.source == "decode_sm90") else jnp.bfloat16
    rounding = oracle.decode_rounding(case, parts(case, made), made.kv_block, np.dtype(weights))
    compare.assert_close(out, lse, *rounding)
    bar = compare.ROUNDED_WEIGHTS["f16" if half else "bf16"]
    compare.assert_close(out, lse, *oracle.decode(case), bar=bar)


def pairwise() -> list[tuple[int, int, int, str, tuple[int, int]]]:
    """A part of `product` that holds every pair of values of every two parameters."""
    return [
        (
            heads,
            q_len,
            PAGE_SIZES[(i + j) % 3],
            DTYPES[(i + j) % 4],
            WIDTHS[(i + i // 4 + 3 * j) % 4],
        )
        for i, heads in enumerate(HEADS)
        for j, q_len in enumerate(Q_LENS)
    ]


def product() -> list[tuple[int, int, int, str, tuple[int, int]]]:
    return list(itertools.product(HEADS, Q_LENS, PAGE_SIZES, DTYPES, WIDTHS))


def check_shapes(
    heads: int, q_len: int, page_size: int, dtypes: str, width: tuple[int, int]
) -> None:
    """Sequences over some blocks, without keys, shorter than q_len, and a key past a block."""
    latent_dim, rope = width
    lengths, capacity = (70, 0, 1, 33), 80
    check(
        make(
            heads, q_len, page_size, dtypes,
            lengths=lengths, capacity=capacity, latent_dim=latent_dim, rope=rope,
        )
    )  # fmt: skip


# --- Shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "q_len", "page_size", "dtypes", "width"), pairwise())
def test_decode_against_float64(
    heads: int, q_len: int, page_size: int, dtypes: str, width: tuple[int, int]
) -> None:
    check_shapes(heads, q_len, page_size, dtypes, width)


@pytest.mark.full
@pytest.mark.parametrize(("heads", "q_len", "page_size", "dtypes", "width"), product())
def test_every_combination(
    heads: int, q_len: int, page_size: int, dtypes: str, width: tuple[int, int]
) -> None:
    check_shapes(heads, q_len, page_size, dtypes, width)


def test_the_gate_holds_every_pair() -> None:
    for a, b in itertools.combinations(range(5), 2):
        pairs = {(x[a], x[b]) for x in pairwise()}
        assert pairs == {(x[a], x[b]) for x in product()}


@pytest.mark.parametrize("splits", [None, 1, 2, 5, 64, 133])
def test_splits(splits: int | None) -> None:
    """More than there are blocks, and fewer; None is what static shapes give."""
    case = make(4, 2, 16, "bf16", lengths=(1000, 0, 31, 32, 65), capacity=1000)
    check(case, num_kv_splits=splits)


@pytest.mark.parametrize("page_size", [1, 16])
def test_many_short_sequences(page_size: int) -> None:
    """Some to each block of threads, and with pages of one key a table of 14,000 entries."""
    lengths = tuple(np.random.default_rng(700).integers(0, 20, 700).tolist())
    check(make(4, 1, page_size, "bf16", lengths=lengths, capacity=20))


@pytest.mark.parametrize("dtypes", DTYPES)
def test_an_empty_batch(dtypes: str) -> None:
    case = make(4, 1, 16, dtypes, lengths=(5,), capacity=16)
    q, kv_pages, lengths, page_indices = case.operands
    out, lse = decoder(case)(q[:0], kv_pages, lengths[:0], page_indices[:0])
    assert out.shape == (0, 1, 4, 512) and lse.shape == (0, 1, 4)


@pytest.mark.parametrize("dtypes", DTYPES)
def test_absurd_lengths_and_pages_are_clamped(dtypes: str) -> None:
    case = make(4, 2, 16, dtypes, lengths=(48, 48, 48, 48), capacity=48, finite=True)
    pages = case.page_indices.copy()
    pages[1] = [cases.ABSURD_PAGE, -1, -(2**31)]
    lengths = np.array([-5, 48, 10**6, 2**31 - 1], np.int32)
    absurd = dataclasses.replace(case, lengths=lengths, page_indices=pages)
    out, lse = decoder(case)(*absurd.operands)
    clamped = dataclasses.replace(
        case, lengths=lengths.clip(0, 48), page_indices=pages.clip(0, len(case.kv_pages) - 1)
    )
    compare.assert_close(np.asarray(out), np.asarray(lse), *oracle.decode(clamped))


# --- Programs -------------------------------------------------------------------------------------


def test_command_buffers_replay_with_other_lengths_pages_and_caches(platform: str) -> None:
    """Six layers in a row are captured; each replay has operands of its own."""
    made = [
        make(4, 1, 16, "bf16", lengths=lengths, capacity=80, seed=sum(lengths))
        for lengths in ((70, 3, 80), (0, 33, 16), (31, 32, 65))
    ]
    decode = decoder(made[0], num_kv_splits=3)

    @jax.jit
    def layers(q: jax.Array, *rest: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        results = []
        for _ in range(6):
            results.append(decode(q, *rest))
            q = q + jnp.isnan(results[-1][0][0, 0, 0, 0])  # each waits for the one before
        return results

    alone = [tuple(map(np.asarray, decode(*case.operands))) for case in made]
    for turn in range(12):
        for result in layers(*made[turn % 3].operands):
            for a, b in zip(result, alone[turn % 3], strict=True):
                np.testing.assert_array_equal(np.asarray(a), b)
    for case, (out, lse) in zip(made, alone, strict=True):
        compare.assert_close(out, lse, *oracle.decode(case))
    if platform.startswith("emulated"):
        operands = made[0].operands
        with Runtime().recording() as records:
            jax.block_until_ready(layers(*operands))
        assert records.graph_launches > 0
        ours = [x.kernel for x in records.launches if x.kernel.startswith("jax_mla")]
        assert ours == ["jax_mla_decode_bf16_512_64", "jax_mla_merge_bf16"] * 6


@pytest.mark.parametrize("dtypes", ["bf16", "fp8"])
def test_two_launches_move_what_is_needed(dtypes: str, platform: str) -> None:
    """4096 tokens a row: 1.05 of the bytes needed at most, and what explain says."""
    if not platform.startswith("emulated"):
        pytest.skip("asks the emulator")
    case = make(4, 1, 64, dtypes, lengths=(4096, 4096), capacity=4096)
    decode, operands = decoder(case, num_kv_splits=2), case.operands
    compare.assert_close(*map(np.asarray, decode(*operands)), *oracle.decode(case))
    with Runtime().recording() as records:
        jax.block_until_ready(decode(*operands))
    assert len(records.launches) == 2
    assert (records.copies, records.fills, records.module_loads) == (0, 0, [])
    traffic = [x for launch in records.launches for x in launch.counters.traffic.values()]
    moved = sum(x.read_total + x.written_total for x in traffic)
    said = jax_mla.explain(
        *operands, **case.options, implementation="kernel", num_kv_splits=2, platform="rocm"
    )
    assert said.kernel is not None and said.kernel.launches == 2
    assert said.bytes_moved == pytest.approx(moved, rel=1e-3)
    assert moved <= 1.05 * said.bytes_needed


def test_vmap_over_the_batch_and_over_pools() -> None:
    case = make(3, 2, 16, "bf16", lengths=(40, 7), capacity=48)
    q, kv_pages, lengths, page_indices = case.operands
    decode = decoder(case, num_kv_splits=2)
    out, lse = decode(*case.operands)
    mapped = jax.vmap(decode, in_axes=(0, None, 0, 0))(
        q[:, None], kv_pages, lengths[:, None], page_indices[:, None]
    )
    np.testing.assert_array_equal(mapped[0][:, 0], out)
    np.testing.assert_array_equal(mapped[1][:, 0], lse)
    # Two pools, the second one moved by one page; q is the same for both.
    pools = jnp.stack([kv_pages, jnp.roll(kv_pages, 1, axis=0)])
    moved = (jnp.minimum(page_indices, len(kv_pages)) + 1) % len(kv_pages)
    mapped = jax.vmap(decode, in_axes=(None, 0, None, 0))(
        q, pools, lengths, jnp.stack([page_indices, moved])
    )
    for turn in range(2):
        np.testing.assert_array_equal(mapped[0][turn], out)
        np.testing.assert_array_equal(mapped[1][turn], lse)


@pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")
def test_a_second_device() -> None:
    case = make(4, 1, 16, "bf16", lengths=(40, 7), capacity=48)
    out, lse = decoder(case)(*jax.device_put(case.operands, jax.devices()[1]))
    assert out.device == jax.devices()[1]
    compare.assert_close(np.asarray(out), np.asarray(lse), *oracle.decode(case))


@pytest.mark.full
@pytest.mark.parametrize(("dtypes", "page_size"), [("bf16", 64), ("fp8", 1)])
def test_a_cache_of_more_than_4_gib(dtypes: str, page_size: int) -> None:
    check(cases.in_large_pool(make(4, 2, page_size, dtypes, lengths=(300, 450), capacity=512)))


@pytest.mark.full
def test_a_thousand_runs_have_the_same_bits() -> None:
    """Keys are shared by whatever workers there are; whoever comes first must not matter."""
    case = make(4, 1, 16, "bf16", lengths=(300, 0, 33, 1, 150), capacity=304)
    decode, operands = decoder(case), case.operands
    first = [np.asarray(x).tobytes() for x in decode(*operands)]
    for _ in range(1000):
        assert [np.asarray(x).tobytes() for x in decode(*operands)] == first


@pytest.mark.parametrize("dtypes", DTYPES)
def test_fixed_splits_have_the_same_bits_in_any_batch_and_run(dtypes: str) -> None:
    case = make(20, 2, 16, dtypes, lengths=(100, 0, 33, 1, 64), capacity=112)
    q, kv_pages, lengths, page_indices = case.operands
    decode = decoder(case, num_kv_splits=3)
    out, lse = decode(*case.operands)
    for rows in ([0, 1, 2, 3, 4], [2], [4, 0], [3, 3, 0, 2]):
        index = np.array(rows)
        some = decode(q[index], kv_pages, lengths[index], page_indices[index])
        np.testing.assert_array_equal(some[0], np.asarray(out)[index])
        np.testing.assert_array_equal(some[1], np.asarray(lse)[index])


# --- What is not served ---------------------------------------------------------------------------


def call_by_hand(**changes: Any) -> Any:
    """The custom call on zeros, with any part changed."""
    platform = platform_name()
    operands = {
        "q": jnp.zeros((2, 1, 4, 576), jnp.bfloat16),
        "kv_pages": jnp.zeros((5, 8, 576), jnp.bfloat16),
        "lengths": jnp.full(2, 9, jnp.int32),
        "page_indices": jnp.zeros((2, 3), jnp.int32),
    }
    attributes = {
        "source": "decode",
        "heads": np.int64(4),
        "num_kv_splits": np.int64(2),
        "workers": np.int64(0),
        "scale": np.float32(1),
        "arch": resolve(None, platform).arch,
        "compute_units": np.int64(100),
    }
    latent_dim = changes.pop("latent_dim", 512)
    operands |= {name: x for name, x in changes.items() if name in operands}
    attributes |= {name: x for name, x in changes.items() if name in attributes}
    results = (
        jax.ShapeDtypeStruct((2, 1, 4, latent_dim), jnp.bfloat16),
        jax.ShapeDtypeStruct((2, 1, 4), jnp.float32),
        jax.ShapeDtypeStruct((2 * 2 * 16 * (latent_dim + 1) * 4,), jnp.uint8),
    )
    call = jax.ffi.ffi_call(f"jax_mla_decode_kernel_{platform}_v1", results)
    return jax.block_until_ready(call(*operands.values(), **attributes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_kv_splits": np.int64(0)}, "INVALID_ARG.*num_kv_splits or workers to be positive"),
        ({"workers": np.int64(3)}, "INVALID_ARG.*or workers to be positive, got 2 and 3"),
        ({"num_kv_splits": np.int64(2**16 + 1)}, "INVALID_ARG.*at most 65536 num_kv_splits"),
        ({"heads": np.int64(3)}, "INVALID_ARG.*q: expected rows that divide padded_heads 3, got 4"),
        ({"heads": np.int64(8), "q": jnp.zeros((4, 1, 4, 576), jnp.bfloat16)},
         "INVALID_ARG.*q: expected 8 heads, got 4"),
        ({"lengths": jnp.zeros(3, jnp.int32)}, "INVALID_ARG.*lengths: expected shape"),
        ({"arch": "gfx90a"}, "FAILED_PREC.*lowered for gfx90a and "),
        ({"latent_dim": 384}, "FAILED_PREC.*jax_mla_decode_bf16_384_192"),
    ],
)  # fmt: skip
def test_a_broken_call_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        call_by_hand(**changes)
    out, lse, _ = call_by_hand()  # and nothing is broken
    np.testing.assert_array_equal(out, 0)
    np.testing.assert_allclose(lse, np.log(9), rtol=1e-6)
