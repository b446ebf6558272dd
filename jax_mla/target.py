# SPDX-License-Identifier: Apache-2.0
"""The GPU that a program is lowered for."""

import dataclasses
import re

import jax


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


# MI300X and H200: what a program is lowered for when neither the caller nor a device says.
_DEFAULTS = {"rocm": Target("gfx942", 304), "cuda": Target("sm_90", 132)}


def resolve(target: Target | None, platform: str) -> Target:
    """The target to lower for on `platform` ("rocm" or "cuda").

    The explicit one, else the platform's default device, else MI300X (H200 on CUDA).
    """
    if target is not None:
        return target
    try:
        device = jax.devices(platform)[0]
    except RuntimeError:  # no such backend on this machine
        return _DEFAULTS[platform]
    return _from_device(device, platform)


def _from_device(device: jax.Device, platform: str) -> Target:
    capability = str(device.compute_capability)
    # ROCm says "gfx942:sramecc+:xnack-", CUDA says "9.0".
    arch = capability.split(":")[0] if platform == "rocm" else "sm_" + capability.replace(".", "")
    return Target(arch, int(device.core_count))
