# SPDX-License-Identifier: Apache-2.0
"""What AITER's decode kernels do, recorded, so that stand-ins can be held to it without them.

One vector, `<arch>-<file>.json`, for each code object that jax_mla would use: which of the slots of
the argument block it reads, which of them change anything, and for some small problems which rows
it writes and what is in them. Problems come from a seeded generator and are not recorded, nor is
anything of a code object but its hash. `record_conformance.py` makes vectors.
"""

import json
from pathlib import Path
from typing import Any

from jax_mla import kernels
from jax_mla.kernels import Kernel

FOLDER = Path(__file__).parent


def files() -> dict[tuple[str, str], list[Kernel]]:
    """The rows of jax_mla's table that it would use, by (arch, code object)."""
    rows: dict[tuple[str, str], list[Kernel]] = {}
    for k in kernels.TABLE:
        if k.selectable:
            rows.setdefault((k.arch, k.file), []).append(k)
    return rows


def path(arch: str, file: str) -> Path:
    return FOLDER / f"{arch}-{file}.json"


def load(arch: str, file: str) -> dict[str, Any]:
    return json.loads(path(arch, file).read_text())
