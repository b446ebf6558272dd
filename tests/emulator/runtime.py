# SPDX-License-Identifier: Apache-2.0
"""The emulated HIP runtime from Python: what it recorded, what it reports, HIP itself for tests."""

import ctypes
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from emulator.build import LIBRARY
from emulator.machine import Counters, Traffic


@dataclass(frozen=True)
class LaunchRecord:
    """One kernel that ran."""

    kernel: str
    grid: tuple[int, int, int]  # in workgroups
    block: tuple[int, int, int]  # in work-items
    counters: Counters


@dataclass
class Records:
    """What ran between two points in time; filled in at the second."""

    launches: list[LaunchRecord] = field(default_factory=list)
    module_loads: list[list[str]] = field(default_factory=list)  # the names of each one's kernels
    graph_launches: int = 0
    graph_nodes: int = 0  # that ran, those of child graphs included
    copies: int = 0
    bytes_copied: int = 0
    fills: int = 0
    bytes_filled: int = 0


class Runtime:
    """A loaded libamdhip64: under JAX the one that the plugin uses."""

    def __init__(self, path: str = LIBRARY) -> None:
        self.hip = ctypes.CDLL(path)
        if not hasattr(self.hip, "jax_mla_emulator_start_recording"):
            raise RuntimeError(f"{path} is not the emulated one")
        self.hip.jax_mla_emulator_stop_recording.restype = ctypes.c_char_p
        self.hip.jax_mla_emulator_take_reports.restype = ctypes.c_char_p
        self.hip.jax_mla_debug_extents.argtypes = [
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int,
        ]  # fmt: skip

    @contextmanager
    def recording(self) -> Iterator[Records]:
        """Records all work until the block ends; wait there for what should be in it."""
        records = Records()
        self.hip.jax_mla_emulator_start_recording()
        try:
            yield records
        finally:
            values = json.loads(self.hip.jax_mla_emulator_stop_recording())
            records.launches = [_launch(launch) for launch in values.pop("launches")]
            for name, value in values.items():
                setattr(records, name, value)

    def take_reports(self) -> str:
        """The reasons of all errors since the last call, one a line or more."""
        return self.hip.jax_mla_emulator_take_reports().decode()


def _launch(values: dict) -> LaunchRecord:
    traffic = {entry["name"]: Traffic(**entry) for entry in values["traffic"]}
    return LaunchRecord(
        values["kernel"],
        tuple(values["grid"]),
        tuple(values["block"]),
        Counters(**values["counters"], traffic=traffic),
    )
