# SPDX-License-Identifier: Apache-2.0
"""Functions of a test module in a process of their own, on the platform of this one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_RESULT = "result of the call: "


def call(module: str, expression: str, **environment: str | None) -> Any:
    """What an expression gives in a new process, with the names of `module`, as JSON carries it.

    `environment` changes that of this process; None unsets a variable.
    """
    program = (
        "import platforms\n"  # before JAX
        f"import json; from {module} import *\n"
        f"print({_RESULT!r} + json.dumps({expression}))"
    )
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parent)} | environment
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.split(_RESULT)[-1])
