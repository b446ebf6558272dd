# SPDX-License-Identifier: Apache-2.0
"""An AMD Instinct GPU in software: the instruction emulator and the emulated HIP runtime."""

from emulator.machine import Counters, Fault, Kernel, Machine, Module, Traffic

__all__ = ["Counters", "Fault", "Kernel", "Machine", "Module", "Traffic"]
