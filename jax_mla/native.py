# SPDX-License-Identifier: Apache-2.0
"""The C++ extension: found and registered once, or the reason why not kept."""

import importlib
import pathlib
import re

import jax

from jax_mla import aiter, kernels

# FFI registration wants other platform names than lowering; "rocm" would be queued under a key that
# no plugin ever reads.
_FFI_PLATFORM = {"cpu": "cpu", "rocm": "ROCM", "cuda": "CUDA"}


def _runtime_ffi_api() -> tuple[int, int]:
    """The XLA FFI API of the running jaxlib, from the header it ships."""
    header = pathlib.Path(jax.ffi.include_dir()) / "xla/ffi/api/c_api.h"
    text = header.read_text()

    def number(part: str) -> int:
        match = re.search(rf"#define XLA_FFI_API_{part} (\d+)", text)
        if match is None:
            raise ValueError(f"{header} defines no XLA_FFI_API_{part}")
        return int(match.group(1))

    return number("MAJOR"), number("MINOR")


def _load() -> tuple[frozenset[tuple[str, str]], str | None]:
    """Registers handlers and code objects; returns what they can launch, or why there are none.

    A handler that is newer than the running jaxlib would take the backend down with it, so the
    versions are compared before anything is registered.
    """
    try:
        extension = importlib.import_module("jax_mla._native")
        built, running = tuple(extension.ffi_api), _runtime_ffi_api()
    except (ImportError, OSError, ValueError) as error:
        return frozenset(), f"jax_mla._native: {error}"
    if built > running:
        return frozenset(), (
            f"jax_mla._native was built with XLA FFI API {built[0]}.{built[1]} and this jaxlib has "
            f"{running[0]}.{running[1]}; upgrade jaxlib"
        )
    for name, (platform, handler) in extension.handlers().items():
        jax.ffi.register_ffi_target(name, handler, platform=_FFI_PLATFORM[platform])
    # Now, since a program that was exported or cached runs without being lowered here.
    for arch in kernels.ARCHES:
        for found in aiter.discover(arch).objects.values():
            extension.add_code_object(
                found.sha256, found.file, found.arch, found.symbol, found.content
            )
    return frozenset(extension.launches()), None


#: (platform, implementation) pairs that the extension has device code for, and why there is none.
LAUNCHES, ABSENT = _load()
