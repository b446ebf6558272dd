# SPDX-License-Identifier: Apache-2.0
"""Records the conformance vectors from AITER's code objects on the emulated GPU.

JAX_MLA_AITER_DIR=.../hsa python tests/record_conformance.py
"""

import hashlib
import json
from typing import Any

import aiter_decode
import conformance
from conformance import cases
from conformance.observe import THEIRS, arguments, observe

from jax_mla.kernels import Kernel

VERSION = 1


def record(rows: list[Kernel]) -> dict[str, Any]:
    """The vector of one of AITER's code objects."""
    all_cases = [case for row in rows for case in cases.of(row)]
    return {
        "recorder": VERSION,
        "sha256": rows[0].sha256,
        "arguments": arguments(cases.for_arguments(rows[0]), None, **THEIRS),
        "cases": {case.name: observe(case, None, **THEIRS) for case in all_cases},
    }


def main() -> None:
    if aiter_decode.folder() is None:
        raise SystemExit("JAX_MLA_AITER_DIR does not name the hsa folder of an AITER checkout")
    for (arch, file), rows in conformance.files().items():
        code = aiter_decode.of_row(rows[0], 1).path.read_bytes()
        if hashlib.sha256(code).hexdigest() != rows[0].sha256:
            raise SystemExit(f"{arch}/{file}: not the code object that the table names")
        conformance.path(arch, file).write_text(json.dumps(record(rows), indent=1) + "\n")
        print(arch, file, flush=True)


if __name__ == "__main__":
    main()
