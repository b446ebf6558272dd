# SPDX-License-Identifier: Apache-2.0
"""Processes in which JAX runs on the emulated ROCm: their environment, and what starts them.

python -m emulator.environment [gfx942|gfx950]  is a Python prompt in such a process.
"""

import os
import sys
from pathlib import Path

from emulator import jax_plugin
from emulator.build import library_folder

ARCHS = ("gfx942", "gfx950")
_ACTIVE = "JAX_MLA_EMULATED_ROCM"
_KERNEL_DRIVER = Path("/dev/kfd")


class Unavailable(RuntimeError):
    """Why JAX cannot run on the emulated ROCm here."""


def active_arch() -> str | None:
    """The emulated GPU of this process, if it was started for one."""
    return os.environ.get(_ACTIVE)


def activate() -> None:
    """In a process started for the emulated ROCm, before JAX starts: there are GPUs."""
    jax_plugin.pretend_gpus(2)  # what matters is none, one or more


def variables(arch: str, devices: int = 4) -> dict[str, str]:
    """The environment of a process that sees `devices` emulated GPUs and the CPU."""
    if arch not in ARCHS:
        raise Unavailable(f"{arch} is not emulated; {' and '.join(ARCHS)} are")
    if not (version := jax_plugin.version()):
        names = " and ".join(jax_plugin.DISTRIBUTIONS)
        raise Unavailable(f"the emulated ROCm needs {names}, which are not installed")
    if (jax := jax_plugin.jax_version()) != version:
        raise Unavailable(f"JAX {jax} cannot use its ROCm plugin {version}: install equal versions")
    if _KERNEL_DRIVER.exists() and "JAX_MLA_FORCE_EMULATOR" not in os.environ:
        raise Unavailable(
            f"{_KERNEL_DRIVER} exists: test on the real device (--platform rocm), "
            "or set JAX_MLA_FORCE_EMULATOR"
        )
    tests = Path(__file__).parents[1]
    return os.environ | {
        _ACTIVE: arch,
        "JAX_MLA_EMULATOR": _join(",", f"arch={arch},devices={devices}", "JAX_MLA_EMULATOR"),
        "JAX_PLATFORMS": "rocm,cpu",
        "LD_LIBRARY_PATH": _join(":", str(library_folder()), "LD_LIBRARY_PATH"),
        "PYTHONPATH": _join(":", str(tests), "PYTHONPATH"),
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
        # Trying out kernels takes minutes in an emulator and its timings mean nothing.
        "XLA_FLAGS": _join(" ", "--xla_gpu_autotune_level=0", "XLA_FLAGS"),
    }


def _join(separator: str, first: str, variable: str) -> str:
    rest = os.environ.get(variable)
    return separator.join([first, rest]) if rest else first


def main() -> None:
    arch = sys.argv[1] if len(sys.argv) > 1 else ARCHS[0]
    start = (
        "from emulator import environment; environment.activate(); "
        f"import jax; print('emulated {arch}:', jax.devices())"
    )
    os.execve(sys.executable, [sys.executable, "-i", "-c", start], variables(arch))


if __name__ == "__main__":
    main()
