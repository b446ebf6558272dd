# SPDX-License-Identifier: Apache-2.0
"""Hopper's decode kernels on the CPU: both stages, compiled from their sources.

Each thread is a fiber, matrix instructions and tensor copies are plain loops. So it holds the
arithmetic and the order of things: that no thread waits for ever, that lanes of a wave are at the
same operation, that nothing is read before it has come. Which thread runs next and when a copy
arrives is drawn. It does not hold what only the hardware knows: registers, speed, and writes and
copies that pass each other.
"""

import ctypes
import functools
import hashlib
import math
import platform
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import cases
import device_compiler
import numpy as np
import pytest

from jax_mla import kernel_plan
from jax_mla.call import Call
from jax_mla.target import Target

HERE = Path(__file__).parent
STAGE1 = "decode_sm90.hip"
THREADS = {"decode_sm90": 640, "merge_sm90": 256}
MERGES = ("8x1", "1x1", "1x4")  # waves to a piece, or pieces to a wave
CLANG = (sys.executable, "-m", "ziglang", "clang", "-target", "x86_64-linux-gnu", "-march=haswell",
         "-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-nostdinc", "-nostdinc++",
         "-D__NVPTX__", "-D__CUDA_ARCH__=900", "-w")  # fmt: skip
GUARD, POISON = 64, -77.0  # elements after each result, which must stay as they are


@functools.cache
def library(left_out: str = "") -> ctypes.CDLL:
    """Compiled once for exactly these sources, less `left_out` in stage 1."""
    device_compiler.needs_clang()
    if platform.machine() != "x86_64":
        pytest.skip("compiled for x86-64 only")
    sources = {  # those of this folder take the place of two headers
        file.name: file.read_text()
        for folder in (device_compiler.KERNELS, HERE)
        for file in sorted(folder.iterdir())
        if file.suffix in (".h", ".hip", ".cc")
    }
    if left_out:
        assert sources[STAGE1].count(left_out) == 1
        sources[STAGE1] = sources[STAGE1].replace(left_out, "")
    digest = hashlib.sha256(repr((sources, CLANG)).encode()).hexdigest()[:16]
    output = device_compiler.CACHE / f"hopper-{digest}.so"
    if not output.exists():
        device_compiler.CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=device_compiler.CACHE) as folder:
            _compile(sources, Path(folder)).replace(output)
    return ctypes.CDLL(str(output))


def _compile(sources: dict[str, str], folder: Path) -> Path:
    for name, text in sources.items():
        (folder / name).write_text(text)
    for name, threads in THREADS.items():
        defines = (f'-DJAX_MLA_SOURCE="{name}.hip"', f"-DJAX_MLA_LAUNCH=launch_{name}",
                   f"-DJAX_MLA_THREADS={threads}")  # fmt: skip
        command = (*CLANG, *defines, "-c", "kernels.cc", "-o", f"{name}.o")
        subprocess.run(command, cwd=folder, check=True)
    # Fortified, longjmp would refuse the stack of another thread.
    link = ("g++", "-std=c++17", "-O2", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", "-Wall", "-Wextra",
            "machine.cc")  # fmt: skip
    objects = (f"{name}.o" for name in THREADS)
    subprocess.run((*link, *objects, "-o", "hopper.so"), cwd=folder, check=True)
    return folder / "hopper.so"


class Results(NamedTuple):
    """Of both stages: `[batch, q_len, heads, latent_dim]` and `[batch, q_len, heads]`."""

    out: np.ndarray
    lse: np.ndarray


def decode(
    case: cases.Case,
    units: int,
    *,
    num_kv_splits: int | None = None,
    merge: str = "1x1",
    seed: int = 0,
    left_out: str = "",
) -> Results:
    """Runs a case as on a GPU of `units` multiprocessors, with the merge of that name.

    Without the lines `left_out` of stage 1, to see that they are missed.
    """
    batch, q_len, heads, width = case.q.shape
    pages, page_size, _ = case.kv_pages.shape
    slots = case.page_indices.shape[1]
    call = Call(batch, q_len, heads, width, case.latent_dim, pages, page_size, slots,
                case.q.dtype, case.kv_pages.dtype)  # fmt: skip
    plan = kernel_plan.plan(call, Target("sm_90", units), num_kv_splits=num_kv_splits)
    assert plan.source == "decode_sm90"
    jobs, splits, workers = batch * plan.row_tiles, plan.num_kv_splits, plan.workers
    rows = (jobs * splits if splits else jobs + workers) * plan.tile_rows
    half = np.dtype(np.float16) if case.q.dtype == np.float16 else cases.DTYPES["bf16"][0]
    written = {
        "partial": np.full(rows * case.latent_dim + GUARD, POISON, np.float32),
        "weights": np.full(rows * 2 + GUARD, POISON, np.float32),
        "out": np.full(batch * q_len * heads * case.latent_dim + GUARD, POISON, half),
        "lse": np.full(batch * q_len * heads + GUARD, POISON, np.float32),
    }
    pool = np.ascontiguousarray(case.kv_pages)
    read = (case.q, pool, case.lengths, case.page_indices, case.q_scale, case.kv_scale)
    arrays = [None if x is None else np.ascontiguousarray(x) for x in (*read, *written.values())]
    line_bytes, box_keys = width * pool.itemsize // 9, math.gcd(page_size, 16)
    arguments = struct.pack(  # csrc/kernels/decode.h, decode_sm90.h; machine.h for the map
        "<10Qf11i2Q2I",
        *(0 if x is None else x.ctypes.data for x in arrays),
        case.scale, batch, q_len, heads, splits, workers, pages, page_size, slots,
        slots * page_size, plan.tile_rows, box_keys.bit_length() - 1,
        pool.ctypes.data, pool.nbytes // line_bytes, line_bytes, 9 * box_keys,
    )  # fmt: skip
    names = {1: "fp8", 2: "f16" if half == np.float16 else "bf16"}
    dtypes = "_".join(dict.fromkeys(names[x.itemsize] for x in (case.q, pool)))
    grid = (splits, plan.row_tiles, batch) if splits else (workers, 1, 1)
    kernels = library(left_out)
    _launch(kernels, "decode_sm90", f"{dtypes}_{plan.tile_rows}", arguments, seed, grid)
    pieces = plan.tile_rows // 8 * 32
    blocks = dict(zip(MERGES, (pieces, pieces // 8, pieces // 32), strict=True))[merge]
    grid = (blocks, plan.row_tiles, batch)
    _launch(kernels, "merge_sm90", f"{names[2]}_{merge}", arguments, seed, grid)
    for name, array in written.items():
        assert (array[-GUARD:].astype(np.float32) == POISON).all(), name
    shape = (batch, q_len, heads)
    return Results(
        written["out"][:-GUARD].reshape(*shape, -1), written["lse"][:-GUARD].reshape(shape)
    )


def _launch(
    kernels: ctypes.CDLL,
    source: str,
    name: str,
    arguments: bytes,
    seed: int,
    grid: tuple[int, int, int],
) -> None:
    """A kernel with its one struct, which is aligned to 64 bytes."""
    room = ctypes.create_string_buffer(len(arguments) + 256)
    at = -(-ctypes.addressof(room) // 64) * 64
    ctypes.memmove(at, arguments, len(arguments))
    run = getattr(kernels, f"launch_{source}")
    run.restype = ctypes.c_char_p
    kernel = getattr(kernels, f"jax_mla_{source}_{name}")
    error = run(kernel, ctypes.c_void_p(at), (ctypes.c_uint * 3)(*grid), ctypes.c_uint(seed))
    assert error is None, error.decode()
