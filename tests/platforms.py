# SPDX-License-Identifier: Apache-2.0
"""What tests run on: ROCm, real or emulated, if they are marked `rocm`, else what JAX finds."""

import os
import sys

import pytest
from emulator import environment, jax_plugin

HELP = (
    "cpu: the tests that need no ROCm (default). rocm: those that do, on the devices there are. "
    "rocm-emulated or rocm-emulated:gfx950: the same on an emulated MI300X or MI355X."
)


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


def on_rocm(config: pytest.Config) -> bool:
    return config.getoption("--platform").startswith("rocm")


def restart_if_emulated(config: pytest.Config) -> None:
    """The emulated libraries must be there when the process starts: begin again with them."""
    arch = emulated_arch(config)
    if not arch or environment.active_arch():
        return
    try:
        variables = environment.variables(arch)
    except environment.Unavailable as reason:
        raise pytest.UsageError(str(reason)) from None
    config.pluginmanager.getplugin("capturemanager").suspend_global_capture(in_=True)
    os.chdir(config.invocation_params.dir)
    again = [sys.executable, "-m", "pytest", *map(str, config.invocation_params.args)]
    os.execve(sys.executable, again, variables)


def choose(config: pytest.Config) -> None:
    platform = config.getoption("--platform")
    if platform.partition(":")[0] not in ("cpu", "rocm", "rocm-emulated"):
        raise pytest.UsageError(f"--platform {platform}: {HELP}")
    if platform == "rocm":
        if environment.active_arch():
            raise pytest.UsageError("--platform rocm never means the emulator")
        if not _has_kernel_driver():
            raise pytest.UsageError("--platform rocm: there is no ROCm device here (no /dev/kfd)")
        import jax

        jax.config.update("jax_platforms", "rocm,cpu")


def description(config: pytest.Config) -> str:
    """The device by name, never a real one's for an emulated one."""
    if not on_rocm(config):
        return "JAX's default"
    if arch := environment.active_arch():
        return f"emulated {arch}"
    import jax

    return jax.devices("rocm")[0].device_kind


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = on_rocm(config)
    other = [item for item in items if bool(item.get_closest_marker("rocm")) != wanted]
    config.hook.pytest_deselected(items=other)
    items[:] = [item for item in items if bool(item.get_closest_marker("rocm")) == wanted]
