# SPDX-License-Identifier: Apache-2.0
"""The GPU that a program is lowered for."""

import dataclasses
import re
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Target:
    """A GPU as lowering sees it: static, so that programs can be lowered where no GPU is.

    Attributes:
      arch: instruction set, e.g. "gfx942" (MI300X, MI325X), "gfx950" (MI350X, MI355X) or, on the
        CUDA platform, "sm_90".
      compute_units: compute units (AMD) or streaming multiprocessors (NVIDIA). A GPU with another
        number runs the program as well and gives the same results.
    """

    arch: str
    compute_units: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"gfx[0-9a-f]+|sm_[0-9]+[a-z]?", self.arch):
            raise ValueError(
                f"Target: arch: expected 'gfx942', 'gfx950' or 'sm_NN', got {self.arch!r}"
            )
        if self.compute_units < 1:
            raise ValueError(
                f"Target: compute_units: expected a positive number, got {self.compute_units}"
            )

    @property
    def fp8_dtype(self) -> np.dtype:
        """The float8 that it computes with; in the other one the same bits are other numbers."""
        fnuz = self.arch == "gfx942"
        dtype: np.dtype = jnp.dtype(jnp.float8_e4m3fnuz if fnuz else jnp.float8_e4m3fn)
        return dtype


# MI300X and H200: what a program is lowered for when neither the caller nor a device says.
_DEFAULTS = {"rocm": Target("gfx942", 304), "cuda": Target("sm_90", 132)}


def resolve(target: Target | None, platform: str, devices: Iterable[jax.Device] = ()) -> Target:
    """The target to lower for on `platform` ("rocm" or "cuda").

    The explicit one, else the first of `devices` (the mesh's, where there is one) that is of the
    platform, else the platform's default device, else MI300X (H200 on CUDA).
    """
    if target is not None:
        return target
    try:
        candidates = [*devices, *jax.devices(platform)[:1]]
    except RuntimeError:  # no such backend on this machine
        candidates = [*devices]
    found = (_from_device(device, platform) for device in candidates)
    return next((t for t in found if t is not None), _DEFAULTS[platform])


def platform_of(device: jax.Device) -> str:
    """The platform of a device as in lowering; JAX says "gpu" for both ROCm and CUDA."""
    capability = str(getattr(device, "compute_capability", ""))
    # ROCm says "gfx942:sramecc+:xnack-", CUDA says "9.0".
    if capability.startswith("gfx"):
        return "rocm"
    return "cuda" if re.fullmatch(r"[0-9]+\.[0-9]+", capability) else device.platform


def _from_device(device: jax.Device, platform: str) -> Target | None:
    """The target that a device is, None if it is not of the platform."""
    if platform_of(device) != platform:
        return None
    capability = str(device.compute_capability)
    arch = "sm_" + capability.replace(".", "") if platform == "cuda" else capability.split(":")[0]
    return Target(arch, int(device.core_count))
