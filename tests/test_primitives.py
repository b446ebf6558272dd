# SPDX-License-Identifier: Apache-2.0
"""The primitives that kernels are written in, on emulated AMD GPUs and an NVIDIA one."""

import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from device_compiler import TARGETS, device_code
from emulator.machine import Machine
from gpu import AMD, DEVICES, Launch, run_on

SOURCE = Path(__file__).parent / "primitives.hip"
THREADS = 128
POISON = 0xA5
# NVIDIA GPUs of every age run the code for the oldest, which has conversions of its own.
ALL = (*DEVICES, "cuda sm_80")
on_devices = pytest.mark.parametrize("device", ALL)
BF16, F16 = ml_dtypes.bfloat16, np.float16
DTYPES = {"bf16": BF16, "f16": F16}


def fp8(device: str) -> type:
    return ml_dtypes.float8_e4m3fnuz if device == "gfx942" else ml_dtypes.float8_e4m3fn


def wave_size(device: str) -> int:
    return 64 if device in AMD else 32


def poisoned(shape: int | tuple[int, ...], dtype: type) -> np.ndarray:
    array = np.empty(shape, dtype)
    array.view(np.uint8)[...] = POISON
    return array


def run(
    device: str,
    kernel: str,
    inputs: list[np.ndarray],
    outputs: list[np.ndarray],
    *numbers: int,
    grid: tuple[int, int, int] = (1, 1, 1),
    threads: int = THREADS,
) -> None:
    """The kernel's arguments are inputs, outputs, 32-bit numbers, in this order."""
    device, _, forced = device.partition(" ")
    arrays = {}
    for number, array in enumerate([*inputs, *outputs]):
        array.flags.writeable = number >= len(inputs)
        arrays[str(number)] = array
    launch = Launch(
        source=lambda arch: device_code(SOURCE, forced or arch),
        kernel=kernel,
        grid=grid,
        threads=threads,
        arrays=arrays,
        arguments=lambda at: struct.pack(
            f"<{len(arrays)}Q{len(numbers)}i", *(at[name] for name in arrays), *numbers
        ),
    )
    run_on(device, launch)


def run_over(device: str, kernel: str, inputs: list[np.ndarray], *outputs: type) -> list:
    """A kernel that takes the same number of elements of each array to a thread, here 4 or 1."""
    each = 4 if kernel.startswith(("from_", "into_")) else 1
    size = inputs[0].size
    padded = [np.resize(array, -(-size // (each * THREADS)) * each * THREADS) for array in inputs]
    results = [poisoned(padded[0].shape, dtype) for dtype in outputs]
    run(device, kernel, padded, results, grid=(padded[0].size // each // THREADS, 1, 1))
    return [result[:size] for result in results]


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    """All NaN are one."""
    assert got.dtype == expected.dtype
    nan = np.isnan(expected.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(got.astype(np.float32)), nan)
    bits = np.dtype(f"u{got.dtype.itemsize}")
    np.testing.assert_array_equal(got.view(bits)[~nan], expected.view(bits)[~nan])


@pytest.mark.parametrize("arch", TARGETS)
def test_compiles_without_spills_and_newer_ptx(arch: str) -> None:
    """Also where no GPU runs it. The tool that compiles checks it."""
    assert device_code(SOURCE, arch)


INSTRUCTIONS = {
    "gfx942": """v_cvt_pk_f32_fp8 v_cvt_pk_fp8_f32 v_mfma_f32_16x16x16_bf16 v_mfma_f32_16x16x16_f16
        v_mfma_f32_16x16x32_fp8_fp8 global_load_lds_dword""",
    "gfx950": """v_cvt_pk_f32_fp8 v_cvt_pk_fp8_f32 v_cvt_pk_bf16_f32 v_cvt_pk_f16_f32
        v_mfma_f32_16x16x16_bf16 v_mfma_f32_16x16x16_f16 v_mfma_f32_16x16x32_bf16
        v_mfma_f32_16x16x32_f16 v_mfma_f32_16x16x32_fp8_fp8
        ds_read_b64_tr_b16 global_load_lds_dwordx4""",
    "sm_80": """cvt.rn.bf16x2.f32 cvt.rn.f16x2.f32 cp.async.cg.shared.global
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
        mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32""",
    "sm_90a": """cvt.rn.bf16x2.f32 cvt.rn.f16x2.f32 cp.async.cg.shared.global
        cvt.rn.f16x2.e4m3x2 cvt.rn.satfinite.e4m3x2.f32
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
        mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32""",
}


@pytest.mark.parametrize("arch", TARGETS)
def test_the_best_instructions_are_used(arch: str) -> None:
    """Right results would come from others as well, slowly."""
    code = device_code(SOURCE, arch)
    if arch in AMD:
        texts = [text for _, text, _ in Machine(arch).load(code).disassemble()]
    else:
        texts = code.decode().splitlines()
    used = {word for text in texts for word in text.split()[:1]}
    assert set(INSTRUCTIONS[arch].split()) <= used


@on_devices
def test_ids(device: str) -> None:
    grid = (3, 2, 2)
    lanes, waves, blocks = poisoned((3, 12, THREADS), np.uint32)
    size = poisoned(1, np.uint32)
    run(device, "ids", [], [lanes, waves, blocks, size], grid=grid)
    thread, block = np.arange(THREADS), np.arange(12)[:, None]
    assert size[0] == wave_size(device)
    np.testing.assert_array_equal(lanes, thread % size[0] + 0 * block)
    np.testing.assert_array_equal(waves, thread // size[0] + 0 * block)
    np.testing.assert_array_equal(blocks, block + 0 * thread)


@on_devices
def test_block_sync(device: str) -> None:
    """Every thread reads what a thread of another wave wrote."""
    x = np.arange(8 * THREADS, dtype=np.uint32)
    y = poisoned(x.shape, np.uint32)
    run(device, "mirror", [x], [y], grid=(8, 1, 1))
    np.testing.assert_array_equal(y.reshape(8, THREADS), x.reshape(8, THREADS)[:, ::-1])


# --- Arithmetic ---


@on_devices
def test_exponentials(device: str) -> None:
    x = np.random.default_rng(0).uniform(-80, 80, 5000).astype(np.float32)
    x[-4:] = 0, 1, -np.inf, np.inf
    exp2, exp = run_over(device, "exponentials", [x], np.float32, np.float32)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(exp2, np.exp2(wide), rtol=3e-7)
    # The scaled argument is rounded: up to 80 2^-24 in the exponent.
    np.testing.assert_allclose(exp, np.exp(wide), rtol=1e-5)
    assert exp2[-2] == exp[-2] == 0


@on_devices
def test_logarithms(device: str) -> None:
    x = np.exp(np.random.default_rng(0).uniform(-80, 80, 5000)).astype(np.float32)
    x[:1000] = np.random.default_rng(1).uniform(0.5, 2, 1000)
    x[-4:] = 0, 1, 2, np.inf
    log2, log = run_over(device, "logarithms", [x], np.float32, np.float32)
    with np.errstate(divide="ignore"):
        wide = np.log2(x.astype(np.float64))
    np.testing.assert_allclose(log2, wide, rtol=3e-7, atol=3e-7)
    np.testing.assert_allclose(log, wide * np.log(2), rtol=4e-7, atol=3e-7)
    assert log2[-3] == log[-3] == 0


@on_devices
def test_extremes(device: str) -> None:
    values = np.array([-np.inf, -1.5, 0, 2e-38, 3, np.inf, np.nan], np.float32)
    x, y = (part.ravel().copy() for part in np.meshgrid(values, values))
    largest, smallest = run_over(device, "extremes", [x, y], np.float32, np.float32)
    np.testing.assert_array_equal(largest, np.fmax(x, y))
    np.testing.assert_array_equal(smallest, np.fmin(x, y))


@on_devices
@pytest.mark.parametrize("name", ["bf16", "f16", "fp8"])
def test_every_code_to_f32(name: str, device: str) -> None:
    dtype = DTYPES.get(name) or fp8(device)
    bits = np.dtype(dtype).itemsize
    codes = np.arange(256**bits, dtype=f"u{bits}").view(dtype)
    (got,) = run_over(device, f"from_{name}", [codes], np.float32)
    assert_same_bits(got, codes.astype(np.float32))


def around_rounding_boundaries(dtype: type) -> np.ndarray:
    """All numbers of `dtype`, the middles between them, and the float32 next to all of these."""
    bits = np.dtype(dtype).itemsize
    values = np.arange(256**bits, dtype=f"u{bits}").view(dtype).astype(np.float32)
    values = np.unique(values[np.isfinite(values)]).astype(np.float64)
    edge = values[-1] + (values[-1] - values[-2]) / 2  # where rounding would leave the range
    middles = np.append((values[1:] + values[:-1]) / 2, [edge, -edge])
    exact = np.concatenate([values, middles]).astype(np.float32)
    special = np.array([-0.0, np.inf, -np.inf, np.nan, -np.nan], np.float32)
    payloads = np.array([0x7F800001, 0xFF80FFFF, 0x7FC01234, 0x7FFFFFFF], np.uint32)
    tiny = np.array([1, 0x80000001, 0x7FFFFF, 0x807FFFFF], np.uint32)  # float32's denormals
    huge = np.array([3.4028235e38, -3.4028235e38], np.float32)
    near = [np.nextafter(exact, np.float32(to)) for to in (-np.inf, np.inf)]
    parts = [exact, *near, special, payloads.view(np.float32), tiny.view(np.float32), huge]
    return np.concatenate(parts)


@on_devices
@pytest.mark.parametrize("name", ["bf16", "f16"])
def test_from_f32_to_nearest_even(name: str, device: str) -> None:
    x = around_rounding_boundaries(DTYPES[name])
    (got,) = run_over(device, f"into_{name}", [x], DTYPES[name])
    with np.errstate(over="ignore", invalid="ignore"):
        assert_same_bits(got, x.astype(DTYPES[name]))


@on_devices
def test_from_f32_to_fp8_saturates(device: str) -> None:
    dtype = fp8(device)
    largest = float(ml_dtypes.finfo(dtype).max)
    assert largest == (240 if device == "gfx942" else 448)
    random = np.random.default_rng(0).standard_normal(20000).astype(np.float32) * 100
    x = np.concatenate([around_rounding_boundaries(dtype), random])
    (got,) = run_over(device, "into_fp8", [x], dtype)
    with np.errstate(invalid="ignore"):
        assert_same_bits(got, np.clip(x, -largest, largest).astype(dtype))


# --- Lanes ---


@on_devices
def test_shuffle(device: str) -> None:
    random = np.random.default_rng(0)
    size = wave_size(device)
    x = random.integers(0, 2**32, THREADS, np.uint32)
    lanes = random.integers(0, size, THREADS, np.uint32)
    y = poisoned(THREADS, np.uint32)
    run(device, "shuffles", [x, lanes], [y])
    np.testing.assert_array_equal(y, x[np.arange(THREADS) // size * size + lanes])


@on_devices
def test_first_of_8(device: str) -> None:
    x = np.random.default_rng(0).integers(0, 2**32, THREADS, np.uint32)
    y = poisoned(THREADS, np.uint32)
    run(device, "firsts", [x], [y])
    np.testing.assert_array_equal(y, x.reshape(-1, 8)[:, :1].repeat(8, 1).ravel())


@on_devices
def test_shuffle_xor_of_every_mask(device: str) -> None:
    size = wave_size(device)
    x = np.random.default_rng(0).integers(0, 2**32, THREADS, np.uint32)
    y = poisoned((size, THREADS), np.uint32)
    run(device, "shuffles_xor", [x], [y])
    np.testing.assert_array_equal(y, x[np.arange(THREADS) ^ np.arange(size)[:, None]])


@on_devices
@pytest.mark.parametrize("kind", ["random", "one large", "-inf"])
def test_reductions(kind: str, device: str) -> None:
    """Of integers, so that sums are exact; every lane has the same."""
    steps = wave_size(device).bit_length() - 1
    x = np.random.default_rng(0).integers(-1000, 1000, THREADS).astype(np.float32)
    if kind == "one large":
        x[77] = 2.0**20
    if kind == "-inf":
        x[:] = -np.inf
    largest, sums = poisoned((2, steps, THREADS), np.float32)
    run(device, "reductions", [x], [largest, sums])
    for step in range(steps):
        groups = x.reshape(-1, 2 ** (step + 1))
        shape = (groups.shape[1], 1)
        np.testing.assert_array_equal(largest[step], np.tile(groups.max(1), shape).T.ravel())
        np.testing.assert_array_equal(sums[step], np.tile(groups.sum(1), shape).T.ravel())


@on_devices
def test_sums_have_the_same_bits_in_all_lanes(device: str) -> None:
    steps = wave_size(device).bit_length() - 1
    x = np.random.default_rng(0).standard_normal(THREADS).astype(np.float32)
    largest, sums = poisoned((2, steps, THREADS), np.float32)
    run(device, "reductions", [x], [largest, sums])
    for step in range(steps):
        groups = sums[step].reshape(-1, 2 ** (step + 1))
        assert (groups == groups[:, :1]).all()
        np.testing.assert_allclose(
            groups[:, 0], x.astype(np.float64).reshape(groups.shape).sum(1), atol=1e-5
        )


# --- Matrix instructions ---

MATRIX = [(device, f"{name}_16") for device in ALL for name in ("bf16", "f16")]
MATRIX += [(device, "fp8_32") for device in AMD]
MATRIX += [("gfx950", "bf16_32"), ("gfx950", "f16_32")]
on_matrices = pytest.mark.parametrize(("device", "kernel"), MATRIX)


def multiply_add(
    device: str, kernel: str, a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, ...]:
    """a [tiles, 16, depth], b [tiles, depth, 16], rounded to the type; and the result."""
    dtype = DTYPES.get(kernel.split("_")[0]) or fp8(device)
    a, b = np.ascontiguousarray(a, dtype), np.ascontiguousarray(b, dtype)
    c = c.astype(np.float32)
    transposed = np.ascontiguousarray(b.swapaxes(1, 2))
    d = poisoned(c.shape, np.float32)
    run(device, f"multiply_{kernel}", [a, transposed, c], [d],
        grid=(len(a), 1, 1), threads=wave_size(device))  # fmt: skip
    return a.astype(np.float64), b.astype(np.float64), d


@on_matrices
def test_one_hot_operands_find_their_places(device: str, kernel: str) -> None:
    """Each element of a alone picks a row of b, and each of b a column of a. What no product shows
    is columns of a and rows of b in another order, the same for both."""
    depth = int(kernel.split("_")[1])
    tiles = 16 * depth
    one_hot = np.eye(tiles).reshape(tiles, 16, depth)
    number = np.arange(tiles).reshape(16, depth)
    for digit in (number % 8, number // 8 % 8, number // 64):  # exact in fp8
        other = np.broadcast_to(digit.T, (tiles, depth, 16))
        for a, b in ((one_hot, other), (other.swapaxes(1, 2), one_hot.swapaxes(1, 2))):
            _, _, d = multiply_add(device, kernel, a, b, np.zeros((tiles, 16, 16)))
            np.testing.assert_array_equal(d, a @ b)


@on_matrices
def test_c_lies_like_the_result(device: str, kernel: str) -> None:
    depth = int(kernel.split("_")[1])
    c = np.arange(256).reshape(1, 16, 16)
    zeros = np.zeros((1, 16, depth))
    _, _, d = multiply_add(device, kernel, zeros, zeros.swapaxes(1, 2), c)
    np.testing.assert_array_equal(d, c)


@on_matrices
@pytest.mark.parametrize("exact", [True, False], ids=["whole numbers", "random"])
def test_products(exact: bool, device: str, kernel: str) -> None:
    random = np.random.default_rng(1)
    depth = int(kernel.split("_")[1])

    def numbers(*shape: int) -> np.ndarray:
        return random.integers(-15, 16, shape) if exact else random.standard_normal(shape)

    tiles = 8
    c = numbers(tiles, 16, 16).astype(np.float32)
    a, b, d = multiply_add(device, kernel, numbers(tiles, 16, depth), numbers(tiles, depth, 16), c)
    expected = a @ b + c
    if exact:
        np.testing.assert_array_equal(d, expected)
    else:
        bound = (depth + 2) * 2.0**-23 * (abs(a) @ abs(b) + abs(c))
        assert (abs(d - expected) <= bound).all()


@pytest.mark.parametrize(
    ("device", "kernel"),
    [(device, f"load_{kernel}") for device, kernel in MATRIX]
    + [(device, f"load_transposed_{kernel}") for device, kernel in MATRIX if "fp8" not in kernel],
)
def test_operands_from_shared_memory(device: str, kernel: str) -> None:
    *_, name, depth = kernel.split("_")
    dtype = np.uint8 if name == "fp8" else np.uint16
    count = 128 if "transposed" in kernel else 16
    rows = np.random.default_rng(0).permutation(count * int(depth)).astype(dtype)
    rows = rows.reshape(count, int(depth))
    tile = np.ascontiguousarray(rows.T) if "transposed" in kernel else rows
    out = poisoned(rows.shape, dtype)
    run(device, kernel, [tile], [out], threads=wave_size(device))
    np.testing.assert_array_equal(out, rows)


# --- Asynchronous copies ---


def chunk(device: str) -> int:
    """Words that a lane copies at once."""
    return 1 if device == "gfx942" else 4


@on_devices
@pytest.mark.parametrize("kind", ["all", "none", "the first 5", "the last 3", "every third", "one"])
def test_copies_leave_neighbours_alone(kind: str, device: str) -> None:
    """From any place; to the lane's own, and to no other: not to those of absent lanes."""
    random = np.random.default_rng(0)
    memory = random.integers(0, 2**31, (300, chunk(device)), np.uint32)
    chunks = random.integers(0, 300, THREADS).astype(np.int32)
    thread = np.arange(THREADS)
    present = {
        "all": thread >= 0,
        "none": thread < 0,
        "the first 5": thread < 5,
        "the last 3": thread >= THREADS - 3,
        "every third": thread % 3 == 1,
        "one": thread == 67,
    }[kind]
    chunks[~present] = -1
    out = poisoned((THREADS + 2, chunk(device)), np.uint32)
    run(device, "copy_gather", [memory, chunks], [out])
    expected = np.full(out.shape, 2**32 - 1, np.uint32)
    expected[1:-1][present] = memory[chunks[present]]
    np.testing.assert_array_equal(out, expected)


@on_devices
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 11])
def test_copies_run_ahead(count: int, device: str) -> None:
    """Two tiles ahead, in a ring of three; guards after the result stay as they are."""
    shape = (count + 1, 2, THREADS, chunk(device))
    tiles = np.random.default_rng(0).integers(0, 2**31, shape, np.uint32)
    out = poisoned(shape, np.uint32)
    run(device, "copy_pipeline", [tiles], [out], count)
    np.testing.assert_array_equal(out[:count], tiles[:count, :, ::-1])
    assert (out[count:].view(np.uint8) == POISON).all()
