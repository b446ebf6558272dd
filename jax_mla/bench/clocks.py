# SPDX-License-Identifier: Apache-2.0
"""The GPU's clocks, where something on this machine says them."""

import importlib
import json
import subprocess
from typing import Any


def read() -> dict[str, Any] | None:
    """Clocks of the first GPU at this moment, in the tool's own terms; None if there is none."""
    for source in (_nvml, _nvidia_smi, _rocm_smi):
        try:
            return source()
        except Exception:  # not here, or not permitted
            continue
    return None


def _nvml() -> dict[str, Any]:
    nvml: Any = importlib.import_module("pynvml")
    nvml.nvmlInit()
    device = nvml.nvmlDeviceGetHandleByIndex(0)
    return {
        "sm_mhz": nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM),
        "memory_mhz": nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM),
    }


def _nvidia_smi() -> dict[str, Any]:
    query = ("nvidia-smi", "-i", "0", "--query-gpu=clocks.sm,clocks.mem", "--format=csv,noheader")
    sm, memory = (
        _run(
            *query,
        )
        .strip()
        .split(",")
    )
    return {"sm_mhz": int(sm.split()[0]), "memory_mhz": int(memory.split()[0])}


def _rocm_smi() -> dict[str, Any]:
    cards: dict[str, Any] = json.loads(_run("rocm-smi", "-d", "0", "--showclocks", "--json"))
    return next(iter(cards.values()))


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
