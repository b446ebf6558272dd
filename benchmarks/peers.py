# SPDX-License-Identifier: Apache-2.0
"""Times our decode kernel on an NVIDIA GPU against FlashInfer, PyTorch and a plain read.

python benchmarks/peers.py [--batch N ...] [--tokens N ...] [--heads N ...] [--out DIR]

All are timed in one process on the same cache and page table, by the protocol of goals.json: a
CUDA graph of one call, replayed by triton.testing.do_bench, which zeroes 256 MB before each replay.
They take turns, several rounds, so that a ratio is one of neighbours in time. Each result is held
against float32 first.

* read: the same number of bytes, by a kernel that does nothing else (csrc/kernels/read.hip).
* FlashInfer: BatchMLAPagedAttentionWrapper, backend fa3, planned outside of its time. It compiles
  its kernel at the first call, with nvcc and ninja.
* PyTorch: scaled_dot_product_attention on keys that were gathered outside of its time, heads as
  rows of one query, the whole row as value (there is no fast kernel for unequal widths).
* ours: the kernels that the extension carries, with the splits that JAX would lower to, launched
  through the driver: a program of JAX cannot be captured into a graph of torch. What JAX adds is
  measured by `python -m jax_mla bench`.

It needs PyTorch with CUDA, cuda-bindings and, to time FlashInfer, flashinfer-python. What is
missing or fails is named under the row and in the JSON.
"""

import argparse
import ctypes
import dataclasses
import functools
import json
import math
import os
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the GPU is torch's here

import jax.numpy as jnp
import numpy as np
import torch
import triton
from cuda.bindings import driver
from triton.testing import do_bench

from jax_mla import _native, kernel_plan
from jax_mla.bench.points import LATENT, LENGTHS, SCALE, WIDTH, Point, goal, sweep
from jax_mla.bench.summary import Summary, faster, summarize
from jax_mla.call import Call
from jax_mla.kernel_page import DTYPES
from jax_mla.kernel_plan import KernelPlan
from jax_mla.target import Target

ROUNDS, ROUND_MS = 5, 40  # at least 200 calls of up to 0.7 ms, cache flush included
TOLERANCE = 2e-2  # of the largest output, which bfloat16 rounds by up to 4e-3
FP8 = torch.float8_e4m3fn
TORCH_DTYPES = {"bf16": (torch.bfloat16,) * 2, "bf16-fp8": (torch.bfloat16, FP8), "fp8": (FP8,) * 2}

Run = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Operands:
    """Of a point, on the GPU. A run writes the result to `out`, float8 numbers have no scale."""

    point: Point
    q: torch.Tensor  # [batch, q_len, heads, WIDTH]
    pool: torch.Tensor  # [pages, page_size, WIDTH]
    lengths: torch.Tensor  # int32 [batch]
    table: torch.Tensor  # int32 [batch, pages_per_seq]
    out: torch.Tensor  # [batch, q_len, heads, LATENT]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    number = functools.partial(parser.add_argument, type=int, nargs="+", metavar="N")
    number("--batch", help="sequences; default: those of goals.json, with their tokens")
    number("--tokens", help="of a sequence, on average")
    number("--heads", help="default: those of goals.json")
    number("--page-size", default=[64], help="default: 64")
    number("--q-len", default=[1], help="query tokens of a sequence, default: 1")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["bf16"], help="q-cache")
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=["equal"])
    parser.add_argument("--seconds", type=float, default=220, help="no new point after that (220)")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), metavar="DIR")
    options = parser.parse_args()
    points = sweep(options.batch, options.tokens, options.heads, options.dtypes,
                   options.page_size, options.q_len, options.lengths)  # fmt: skip
    torch.manual_seed(0)
    facts = describe()
    print(json.dumps(facts), "\n")
    print(HEADER, flush=True)
    start, results = time.monotonic(), []
    for point in points:
        if time.monotonic() - start > options.seconds:
            print(f"left out for want of time, from {point} on: see --seconds", flush=True)
            break
        results.append(measure(point))
        print(format_row(results[-1], facts["device_kind"]), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "peers.json"
    path.write_text(json.dumps({**facts, "results": results}, indent=1) + "\n")
    print("\nwrote", path)
    return 0 if all("ours" in result["entries"] for result in results) else 1


def describe() -> dict[str, Any]:
    """The command and what it runs on."""
    properties = torch.cuda.get_device_properties(0)
    versions = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
    }
    try:
        versions["flashinfer"] = __import__("flashinfer").__version__
    except Exception as error:
        versions["flashinfer"] = f"none: {error}"
    return {
        "command": sys.argv,
        "device_kind": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "versions": versions,
        "protocol": f"do_bench of a one-call graph, {ROUNDS} interleaved rounds of {ROUND_MS} ms",
        "device_code": {
            f"{name}.{arch}": sha256
            for (name, arch), (sha256, _) in _native.device_code().items()
            if arch == our_arch()
        },
    }


def measure(point: Point) -> dict[str, Any]:
    """Summaries of all that can be timed there, and why the others cannot."""
    result: dict[str, Any] = {**dataclasses.asdict(point), "kv_bytes": point.kv_bytes}
    result |= {"entries": {}, "errors": {}, "relative_errors": {}, "clocks": None}
    try:
        operands = make(point)
    except Exception as error:
        result["errors"]["operands"] = f"{type(error).__name__}: {error}"
        return result
    graphs: dict[str, torch.cuda.CUDAGraph] = {}
    runs: list[Run] = []  # which hold the memory that the graphs were captured with
    for name, prepare in ENTRIES.items():
        try:
            operands.out.fill_(float("nan"))
            run = prepare(operands)
            run()
            runs.append(run)
            if prepare is not read:
                result["relative_errors"][name] = check(operands)
            graphs[name] = capture(run)
        except Exception as error:
            if not isinstance(error, NotImplementedError | ImportError):
                traceback.print_exc()
            result["errors"][name] = f"{type(error).__name__}: {error}"
    times: dict[str, list[float]] = {name: [] for name in graphs}
    names = list(graphs)
    for turn in range(ROUNDS):
        first = turn % max(len(names), 1)  # everyone gets to follow everyone
        for name in names[first:] + names[:first]:
            replay = graphs[name].replay
            times[name] += do_bench(replay, warmup=10, rep=ROUND_MS, return_mode="all")
    result["clocks"] = clocks(graphs.get("ours"))
    summaries = {name: summarize([t / 1e3 for t in all_of]) for name, all_of in times.items()}
    result["entries"] = {name: dataclasses.asdict(s) for name, s in summaries.items()}
    return result


def make(point: Point) -> Operands:
    """Random numbers; pages in shuffled order."""
    q_dtype, kv_dtype = TORCH_DTYPES[point.dtypes]

    def random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16).to(dtype)

    order = np.random.default_rng(0).permutation(point.pages).astype(np.int32)
    rows = (point.batch, point.q_len, point.heads)
    return Operands(
        point,
        random(*rows, WIDTH, dtype=q_dtype),
        random(point.pages, point.page_size, WIDTH, dtype=kv_dtype),
        torch.tensor(point.sequence_lengths, device="cuda"),
        torch.tensor(point.page_table(order), device="cuda"),
        torch.empty(*rows, LATENT, device="cuda", dtype=torch.bfloat16),
    )


def check(operands: Operands) -> float:
    """Largest error of the first, a middle and the last sequence, over the largest output."""
    point, worst = operands.point, 0.0
    for row in sorted({0, point.batch // 2, point.batch - 1}):
        keys = gather(operands, row).float()
        scores = operands.q[row].float() @ keys.T * SCALE  # [q_len, heads, tokens]
        seen = torch.arange(len(keys), device="cuda") < last_seen(operands, row)[:, None]
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
        expected = (torch.softmax(scores, -1) @ keys[:, :LATENT]).nan_to_num(0)
        error = (operands.out[row].float() - expected).abs().max() / expected.abs().max()
        worst = max(worst, float(error)) if error == error else float("nan")
        if not worst < TOLERANCE:
            raise ValueError(f"sequence {row} is {worst:.3g} off")
    return worst


def gather(operands: Operands, row: int) -> torch.Tensor:
    """`[length, WIDTH]`, the keys of a sequence."""
    length = int(operands.point.sequence_lengths[row])
    pages = operands.table[row, : -(-length // operands.point.page_size)].long()
    return operands.pool[pages].reshape(-1, WIDTH)[:length]


def last_seen(operands: Operands, row: int) -> torch.Tensor:
    """`[q_len]`, how many keys each query of a sequence sees."""
    q_len = operands.point.q_len
    first = int(operands.point.sequence_lengths[row]) - q_len + 1
    return first + torch.arange(q_len, device="cuda")


def capture(run: Run) -> torch.cuda.CUDAGraph:
    """A graph of one call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    graph.replay()
    torch.cuda.synchronize()
    return graph


def clocks(graph: torch.cuda.CUDAGraph | None) -> dict[str, int] | None:
    """MHz while a graph is being replayed; None without nvidia-ml-py."""
    try:
        import pynvml

        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByIndex(0)
        for _ in range(100 if graph else 0):
            graph.replay()
        read = {
            "sm": pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM),
            "memory": pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_MEM),
        }
        torch.cuda.synchronize()
        return read
    except Exception:
        return None


# --- Launches of our kernels ----------------------------------------------------------------------


class Long(int):
    """A number of 64 bits in a struct."""


class Arguments:
    """The one struct that a kernel of ours takes: tensors (or None) by address, the rest by value.

    It holds the tensors, since a graph that was captured with their addresses outlives the call.
    """

    def __init__(self, *fields: torch.Tensor | float | int | Long | bytes | None) -> None:
        self.tensors = [x for x in fields if isinstance(x, torch.Tensor)]
        codes = {int: "i", float: "f", Long: "q", bytes: "128s"}
        block = b""
        for x in fields:
            code = codes.get(type(x), "Q")
            value = x.data_ptr() if isinstance(x, torch.Tensor) else x or 0
            block += b"\0" * (-len(block) % (8 if code in "qQ" else 4))
            block += struct.pack(f"<{code}", value)
        # A struct with a tensor map is a multiple of 64 bytes long.
        self.block = ctypes.create_string_buffer(block, len(block) + 64)
        self.pointers = (ctypes.c_void_p * 1)(ctypes.addressof(self.block))


@dataclasses.dataclass(frozen=True)
class Stage:
    """A launch of a kernel of ours.

    Attributes:
      kernel: from `function`.
      grid: blocks.
      threads: of a block.
      arguments: of the kernel.
      shared: bytes of shared memory of a block.
      overlapped: it may begin before the kernel before it has ended, and waits itself.
    """

    kernel: Any
    grid: tuple[int, int, int]
    threads: int
    arguments: Arguments
    shared: int = 0
    overlapped: bool = False

    def __post_init__(self) -> None:
        if self.shared:
            allowed = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            ok(driver.cuFuncSetAttribute(self.kernel, allowed, self.shared))

    def launch(self) -> None:
        """On torch's current stream."""
        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = self.grid
        config.blockDimX, config.blockDimY, config.blockDimZ = self.threads, 1, 1
        config.sharedMemBytes = self.shared
        config.hStream = torch.cuda.current_stream().cuda_stream
        if self.overlapped:
            attribute = driver.CUlaunchAttribute()
            kinds = driver.CUlaunchAttributeID
            attribute.id = kinds.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            value = driver.CUlaunchAttributeValue()
            value.programmaticStreamSerializationAllowed = 1
            attribute.value = value
            config.attrs = [attribute]
            config.numAttrs = 1
        pointers = ctypes.addressof(self.arguments.pointers)
        ok(driver.cuLaunchKernelEx(config, self.kernel, pointers, 0))


@functools.cache
def function(source: str, name: str) -> Any:
    """A kernel of the extension's device code."""
    _, code = _native.device_code()[source, our_arch()]
    module = ok(driver.cuModuleLoadData(code + b"\0"))
    return ok(driver.cuModuleGetFunction(module, name.encode()))


def ok(result: tuple[Any, ...]) -> Any:
    """The value of a call of the driver."""
    error, *values = result
    if int(error) != 0:
        raise RuntimeError(str(error))
    return values[0] if values else None


def capability() -> tuple[int, int]:
    return torch.cuda.get_device_capability()


def our_arch() -> str:
    """As csrc/gpu/kernels.cc chooses: sm_90a is for Hopper alone."""
    return "sm_90a" if capability() == (9, 0) else "sm_80"


def multiprocessors() -> int:
    return torch.cuda.get_device_properties(0).multi_processor_count


# --- What is timed --------------------------------------------------------------------------------


def read(operands: Operands) -> Run:
    size = operands.point.kv_bytes
    blocks = min(8 * multiprocessors(), -(-size // 4096))
    sums = torch.empty(blocks, 8, device="cuda", dtype=torch.int32)
    arguments = Arguments(operands.pool, Long(size // 16), sums, blocks)
    return Stage(function("read", "jax_mla_read"), (blocks, 1, 1), 256, arguments).launch


@functools.cache
def flashinfer_workspace() -> torch.Tensor:
    return torch.empty(128 << 20, dtype=torch.uint8, device="cuda")


def flashinfer(operands: Operands) -> Run:
    import flashinfer

    point = operands.point
    if point.dtypes != "bf16":
        raise NotImplementedError(f"its fa3 kernel is timed with bf16 only, got {point.dtypes}")
    used = -(-point.sequence_lengths // point.page_size)
    indptr = np.concatenate([[0], np.cumsum(used)]).astype(np.int32)
    in_order = operands.table.cpu().numpy()[np.arange(point.pages_per_seq) < used[:, None]]
    wrapper = flashinfer.mla.BatchMLAPagedAttentionWrapper(flashinfer_workspace(), backend="fa3")
    wrapper.plan(
        torch.arange(point.batch + 1, dtype=torch.int32, device="cuda") * point.q_len,
        torch.tensor(indptr, device="cuda"),
        torch.tensor(in_order, device="cuda"),
        operands.lengths,
        point.heads,
        LATENT,
        WIDTH - LATENT,
        point.page_size,
        point.q_len > 1,  # causal
        SCALE,
        operands.q.dtype,
        operands.pool.dtype,
    )
    q, out = operands.q.flatten(0, 1), operands.out.flatten(0, 1)
    parts = [x.contiguous() for x in (q[..., :LATENT], q[..., LATENT:])]
    cache = (operands.pool[..., :LATENT], operands.pool[..., LATENT:])
    return lambda: wrapper.run(*parts, *cache, out=out, return_lse=False)


def pytorch(operands: Operands) -> Run:
    point = operands.point
    if point.dtypes != "bf16" or point.q_len > 1:
        raise NotImplementedError("it is timed with bf16 and q_len 1 only")
    attention = torch.nn.functional.scaled_dot_product_attention
    longest = int(point.sequence_lengths.max())
    keys = torch.zeros(point.batch, 1, longest, WIDTH, device="cuda", dtype=torch.bfloat16)
    for row, length in enumerate(point.sequence_lengths):
        keys[row, 0, :length] = gather(operands, row)
    mask = None
    if point.lengths != "equal":
        seen = torch.arange(longest, device="cuda") < operands.lengths[:, None]
        mask = seen[:, None, None].expand(-1, 1, point.heads, -1)

    def run() -> torch.Tensor:
        return attention(operands.q, keys, keys, attn_mask=mask, scale=SCALE)

    operands.out.copy_(run()[..., :LATENT])  # to be checked
    return run


def ours(operands: Operands) -> Run:
    """Both stages, as csrc/ffi/decode_kernel.cc launches them."""
    point = operands.point
    dtypes = (jnp.float8_e4m3fn if x == FP8 else jnp.bfloat16 for x in TORCH_DTYPES[point.dtypes])
    call = Call(point.batch, point.q_len, point.heads, WIDTH, LATENT, point.pages, point.page_size,
                point.pages_per_seq, *map(jnp.dtype, dtypes))  # fmt: skip
    target = Target("sm_" + "".join(map(str, capability())), multiprocessors())
    plan = kernel_plan.plan(call, target)
    parts = point.batch * plan.row_tiles + plan.workers
    scales = [
        torch.ones(1, device="cuda") if x == FP8 else None for x in TORCH_DTYPES[point.dtypes]
    ]
    fields = [
        operands.q, operands.pool, operands.lengths, operands.table, *scales,
        floats(parts * plan.tile_rows, LATENT), floats(parts * plan.tile_rows, 2), operands.out,
        floats(point.batch * point.q_len * point.heads), SCALE, point.batch, point.q_len,
        point.heads, plan.num_kv_splits, plan.workers, point.pages,
        point.page_size, point.pages_per_seq, point.pages_per_seq * point.page_size,
    ]  # fmt: skip
    make_stages = {"decode": portable_stages, "decode_sm90": hopper_stages}[plan.source]
    stages = make_stages(operands, plan, fields)
    return lambda: [stage.launch() for stage in stages]


def portable_stages(operands: Operands, plan: KernelPlan, fields: list[Any]) -> list[Stage]:
    """Fields of csrc/kernels/decode.h; those of the merge are in merge.h."""
    point = operands.point
    partial, partial_lse, out, lse = fields[6:10]
    many = plan.workers > 7 * point.batch * plan.row_tiles  # as csrc/ffi/merge.cc has it
    merge = Arguments(
        partial, partial_lse, operands.lengths, None, fields[5], out, lse, point.batch,
        point.q_len, point.heads, 1, point.heads, 1, plan.num_kv_splits, plan.kv_block,
        point.pages_per_seq * point.page_size, LATENT, plan.tile_rows, plan.workers,
        plan.part_blocks,
    )  # fmt: skip
    name = f"jax_mla_decode_{point.dtypes.replace('-', '_')}_{LATENT}_{WIDTH - LATENT}"
    rows = (point.heads, point.q_len, point.batch)
    return [
        Stage(function("decode", name), (plan.workers, 1, 1), 256, Arguments(*fields)),
        Stage(
            function("merge", "jax_mla_merge_bf16" + "_many" * many),
            rows,
            512 if many else 128,
            merge,
        ),
    ]


def hopper_stages(operands: Operands, plan: KernelPlan, fields: list[Any]) -> list[Stage]:
    """Fields of csrc/kernels/decode.h, and the others of decode_sm90.h."""
    point = operands.point
    box_keys = math.gcd(point.page_size, 16)
    box_shift = box_keys.bit_length() - 1
    lines = map_lines(operands.pool, 9 * box_keys)
    arguments = Arguments(*fields, plan.tile_rows, box_shift, lines)
    # As csrc/ffi/decode_kernel.cc has it.
    parts, pieces = plan.workers // (point.batch * plan.row_tiles) + 1, plan.tile_rows // 8 * 32
    merge, blocks = ("8x1", pieces) if parts > 16 else ("1x1", pieces // 8)
    if parts <= 4:
        merge, blocks = "1x4", pieces // 32
    name = f"jax_mla_decode_sm90_{point.dtypes.replace('-', '_')}_{plan.tile_rows}"
    merge_grid = (blocks, plan.row_tiles, point.batch)
    return [
        Stage(function("decode_sm90", name), (plan.workers, 1, 1), 640, arguments,
              shared=194 * 1024),
        Stage(function("merge_sm90", f"jax_mla_merge_sm90_bf16_{merge}"), merge_grid, 256,
              arguments, overlapped=True),
    ]  # fmt: skip


def floats(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="cuda")


def map_lines(pool: torch.Tensor, box_lines: int) -> bytes:
    """A cache as lines, nine to a row, for the copy engine."""
    line = pool[0, 0].nbytes // 9
    tile = "CU_TENSOR_MAP_SWIZZLE_128B" if line == 128 else "CU_TENSOR_MAP_SWIZZLE_64B"
    u64, u32 = driver.cuuint64_t, driver.cuuint32_t
    made = ok(
        driver.cuTensorMapEncodeTiled(
            driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_UINT8,
            2,
            pool.data_ptr(),
            [u64(line), u64(pool.nbytes // line)],
            [u64(line)],
            [u32(line), u32(box_lines)],
            [u32(1), u32(1)],
            driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            getattr(driver.CUtensorMapSwizzle, tile),
            driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    )
    return struct.pack("<16Q", *map(int, made.opaque))


ENTRIES: dict[str, Callable[[Operands], Run]] = {
    "read": read,
    "flashinfer": flashinfer,
    "pytorch": pytorch,
    "ours": ours,
}

# --- Output ---------------------------------------------------------------------------------------

HEADER = """\
| batch x tokens | heads | read us | FlashInfer us | PyTorch us | ours us | GB/s | read / ours \
| FlashInfer / ours | faster | goal us |
|---|---|---|---|---|---|---|---|---|---|---|"""


def format_row(result: dict[str, Any], device_kind: str) -> str:
    fields = {field.name for field in dataclasses.fields(Point)}
    point = Point(**{k: v for k, v in result.items() if k in fields})
    entries = {name: Summary(**x) for name, x in result["entries"].items()}

    def us(name: str) -> str:
        found = entries.get(name)
        return "-" if found is None else f"{found.median:.1f} +- {found.spread / 2:.1f}"

    def over_ours(name: str) -> str:
        both = name in entries and "ours" in entries
        return f"{entries[name].median / entries['ours'].median:.2f}" if both else "-"

    peers = [entries[name] for name in ("flashinfer", "pytorch") if name in entries]
    verdict, speed = "-", "-"
    if "ours" in entries:
        speed = f"{point.kv_bytes / entries['ours'].median / 1e3:.0f}"
        verdict = "yes" if peers and all(faster(entries["ours"], peer) for peer in peers) else "no"
    wanted = goal(point, device_kind).get("goal")
    special = [str(x) for x in (point.dtypes, point.lengths) if x not in ("bf16", "equal")]
    name = ", ".join([f"{point.batch} x {point.tokens}", *special])
    cells = (
        name, point.heads, us("read"), us("flashinfer"), us("pytorch"), us("ours"), speed,
        over_ours("read"), over_ours("flashinfer"), verdict,
        "-" if wanted is None else f"{wanted:g}",
    )  # fmt: skip
    errors = "".join(f"\n{name}: {error}" for name, error in result["errors"].items())
    return f"| {' | '.join(map(str, cells))} |{errors}"


if __name__ == "__main__":
    sys.exit(main())
