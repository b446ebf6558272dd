# SPDX-License-Identifier: Apache-2.0
"""Records the conformance vectors from AITER's code objects on the emulated GPU.

JAX_MLA_AITER_DIR=.../hsa python tests/record_conformance.py
"""

import hashlib
import json

import aiter_decode
import conformance


def main() -> None:
    for (arch, file), rows in conformance.files().items():
        code = aiter_decode.of_row(rows[0], 1).path.read_bytes()
        if hashlib.sha256(code).hexdigest() != rows[0].sha256:
            raise SystemExit(f"{arch}/{file}: not the code object that the table names")
        vector = conformance.record(rows)
        conformance.path(arch, file).write_text(json.dumps(vector, indent=1) + "\n")
        print(arch, file, flush=True)


if __name__ == "__main__":
    main()
