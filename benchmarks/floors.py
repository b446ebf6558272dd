# SPDX-License-Identifier: Apache-2.0
"""floors.cc for Python, compiled when it is wanted."""

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DOT_WIDTH = 32  # multiply-adds of bfloat16 that an instruction does


@functools.cache
def load() -> ctypes.CDLL | None:
    """The library, or None where there is no compiler or another kind of processor."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or platform.machine() != "x86_64":
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "floors.so")
        flags = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread"]
        source = Path(__file__).with_name("floors.cc")
        subprocess.run([compiler, *flags, source, "-o", library], check=True)
        return ctypes.CDLL(str(library))


def threads() -> int:
    return len(os.sched_getaffinity(0))


def reader(library: ctypes.CDLL, pages: Any, tables: list[np.ndarray]) -> Callable[[int], None]:
    """Reads the pages of the table of that number with all cores."""
    pages = np.asarray(pages)  # a view, on the CPU
    pointer = ctypes.c_void_p(pages.ctypes.data)
    page_bytes = ctypes.c_int64(pages[0].nbytes)
    flat = [np.ascontiguousarray(table, np.int32).reshape(-1) for table in tables]
    cores = threads()

    def call(i: int) -> None:
        indices = ctypes.c_void_p(flat[i].ctypes.data)
        library.read_pages(pointer, indices, ctypes.c_int64(flat[i].size), page_bytes, cores)

    return call


def multiplier(library: ctypes.CDLL, products: int) -> Callable[[int], None] | None:
    """Does so many multiply-adds of bfloat16 with all cores; None where no instruction does."""
    library.multiply.restype = ctypes.c_bool
    if not library.multiply(ctypes.c_int64(0), 1):
        return None
    cores = threads()
    return lambda _: library.multiply(ctypes.c_int64(products // DOT_WIDTH), cores)
