# SPDX-License-Identifier: Apache-2.0
"""What tests run on: a GPU, real or emulated, if they are marked for it, else what JAX finds."""

import os
import sys

import pytest
from emulator import compiler, environment, jax_plugin

HELP = (
    "cpu: the tests that need no GPU (default). rocm: those marked `gpu` or `rocm`, on the devices "
    "there are. rocm-emulated or rocm-emulated:gfx950: the same on an emulated MI300X or MI355X. "
    "cuda: those marked `gpu`, on an NVIDIA GPU."
)
# The marks of the tests that run on each; on the others, those without one.
_MARKS = {"rocm": ("gpu", "rocm"), "rocm-emulated": ("gpu", "rocm"), "cuda": ("gpu",)}


def _has_kernel_driver() -> bool:
    return os.path.exists("/dev/kfd") or os.path.exists("/dev/dxg")


# At import, since JAX looks for plugins at its own. Without a GPU the plugin is not wanted.
if environment.active_arch():
    environment.activate()
elif not _has_kernel_driver():
    jax_plugin.hide()


def emulated_arch(config: pytest.Config) -> str | None:
    """What --platform asks to emulate."""
    name, _, arch = config.getoption("--platform").partition(":")
    return (arch or environment.ARCHS[0]) if name == "rocm-emulated" else None


def _name(config: pytest.Config) -> str:
    """--platform without the emulated arch."""
    name: str = config.getoption("--platform").partition(":")[0]
    return name


def restart_if_emulated(config: pytest.Config) -> None:
    """The emulated libraries must be there when the process starts: begin again with them."""
    arch = emulated_arch(config)
    if not arch or environment.active_arch():
        return
    try:
        variables = environment.variables(arch) | _aiter(arch)
    except environment.Unavailable as reason:
        raise pytest.UsageError(str(reason)) from None
    config.pluginmanager.getplugin("capturemanager").suspend_global_capture(in_=True)
    os.chdir(config.invocation_params.dir)
    again = [sys.executable, "-m", "pytest", *map(str, config.invocation_params.args)]
    os.execve(sys.executable, again, variables)


def _aiter(arch: str) -> dict[str, str]:
    """The environment in which there is an AITER: the one that is named, else stand-ins for it."""
    if "JAX_MLA_AITER_DIR" in os.environ or compiler.why_missing():
        return {}
    import stand_ins  # which imports JAX

    return {
        "JAX_MLA_AITER_DIR": str(stand_ins.folder([arch])),
        "JAX_MLA_AITER_UNKNOWN": "allow",  # their hashes are not AITER's
    }


def choose(config: pytest.Config) -> None:
    platform = config.getoption("--platform")
    if _name(config) != "cpu" and _name(config) not in _MARKS:
        raise pytest.UsageError(f"--platform {platform}: {HELP}")
    if platform == "cuda":
        import jax

        jax.config.update("jax_platforms", "cuda,cpu")
    if platform == "rocm":
        if environment.active_arch():
            raise pytest.UsageError("--platform rocm never means the emulator")
        if not _has_kernel_driver():
            raise pytest.UsageError("--platform rocm: there is no ROCm device here (no /dev/kfd)")
        import jax

        jax.config.update("jax_platforms", "rocm,cpu")


def description(config: pytest.Config) -> str:
    """The device by name, never a real one's for an emulated one."""
    if _name(config) == "cpu":
        return "JAX's default"
    if arch := environment.active_arch():
        return f"emulated {arch}"
    import jax

    kind: str = jax.devices(_name(config))[0].device_kind
    return kind


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = _MARKS.get(_name(config), ())

    def runs(item: pytest.Item) -> bool:
        marks = {mark for mark in ("gpu", "rocm") if item.get_closest_marker(mark)}
        return bool(marks.intersection(wanted)) if wanted else not marks

    config.hook.pytest_deselected(items=[item for item in items if not runs(item)])
    items[:] = [item for item in items if runs(item)]
