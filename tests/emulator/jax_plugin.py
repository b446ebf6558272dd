# SPDX-License-Identifier: Apache-2.0
"""JAX's ROCm plugin: where it is installed, and what it has to be told to start without a GPU."""

import sys
from importlib import metadata
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

DISTRIBUTIONS = ("jax-rocm7-plugin", "jax-rocm7-pjrt")


def version() -> str | None:
    """The installed plugin's version, or None."""
    try:
        return max(metadata.version(name) for name in DISTRIBUTIONS)
    except metadata.PackageNotFoundError:
        return None


def jax_version() -> str:
    return metadata.version("jax")


def shared_objects() -> list[Path]:
    """The plugin's shared objects: what the emulated ROCm has to be linked with."""
    if not version():
        return []
    files = [file for name in DISTRIBUTIONS for file in metadata.files(name) or []]
    return sorted(Path(str(file.locate())).resolve() for file in files if file.suffix == ".so")


def pretend_gpus(count: int) -> None:
    """Answers for the kernel driver, whose devices the plugin counts before it starts."""
    from jax._src import hardware_utils

    hardware_utils.num_available_amd_gpus = lambda stop_at=None: count


class _Hidden(MetaPathFinder):
    """Says of the plugin's extension modules that they are not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "jax_rocm7_plugin":
            raise ModuleNotFoundError(f"{name} is hidden: there is no AMD GPU", name=name)


def hide() -> None:
    """Before JAX is imported: no ROCm plugin, though it is installed."""
    sys.meta_path.insert(0, _Hidden())
    plugin = ModuleType("jax_plugins.xla_rocm7")
    plugin.initialize = lambda: None
    sys.modules[plugin.__name__] = plugin
