# SPDX-License-Identifier: Apache-2.0
"""Writes, from the symbols that shared objects import, a version script and stub libraries.

For libamdhip64 a linker version script, in which each imported name has the version that is asked
for. For every other ROCm library a source file in which each imported function says that it is not
emulated and fails; functions for which failing is not enough come from stubs/LIBRARY.h.
Prints name and version of each stub library.
"""

import argparse
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

HANDWRITTEN = Path(__file__).parent / "stubs"
OLDEST_HIP = "hip_4.2"


@dataclass(frozen=True)
class Library:
    name: str
    version: int  # of the shared object
    prefix: str  # a pattern that all its symbols and no other library's begin with
    failure: int  # what its functions return


LIBRARIES = [
    Library("rocprofiler-sdk", 1, "rocprofiler_", 1),
    Library("rccl", 1, "nccl", 3),
    Library("hipblaslt", 1, "hipblasLt|_ZNK?13hipblaslt_ext", 7),
    Library("hipfft", 0, "hipfft", 16),
    Library("MIOpen", 1, "miopen", 1),
    Library("rocblas", 5, "rocblas_", 2),
    Library("rocm_smi64", 1, "rsmi_", 2),
    Library("hipblas", 3, "hipblas(?!Lt)[A-Z]", 7),
    Library("hipsolver", 1, "hipsolver", 7),
    Library("rocsolver", 0, "rocsolver_", 2),
    Library("hipsparse", 4, "hipsparse", 7),
]


def imported_symbols(nm: str, consumers: list[Path]) -> dict[str, str]:
    """Each undefined symbol with the version that is asked for, or the empty string."""
    symbols: dict[str, str] = {}
    for consumer in consumers:
        command = [nm, "--dynamic", "--undefined-only", str(consumer)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            name, _, version = line.split()[-1].partition("@")
            symbols[name] = symbols.get(name) or version
    return symbols


def hip_version_script(symbols: dict[str, str]) -> str:
    """The oldest version holds all of HIP but the names that are asked for under a later one."""
    names = defaultdict(list)
    for name, version in sorted(symbols.items()):
        if re.match(r"hip_\d", version) and version != OLDEST_HIP:
            names[version].append(name)
    script = f"{OLDEST_HIP} {{ global: hip*; __hip*; local: *; }};\n"
    previous = OLDEST_HIP
    for version in sorted(names, key=lambda v: [int(part) for part in v[4:].split(".")]):
        script += f"{version} {{ global: {'; '.join(names[version])}; }} {previous};\n"
        previous = version
    return script + "EMULATOR { global: emu_*; jax_mla_*; };\n"


def stub_version_script(symbols: dict[str, str]) -> str:
    names = defaultdict(list)
    for name, version in sorted(symbols.items()):
        names[version or "EMULATED"].append(name)
    nodes = [f"{version} {{ global: {'; '.join(n)}; }};" for version, n in sorted(names.items())]
    return "\n".join([*nodes, "EMULATED_REST { local: *; };"]) + "\n"


def stub_source(library: Library, symbols: dict[str, str]) -> str:
    handwritten = HANDWRITTEN / f"{library.name}.h"
    text = handwritten.read_text() if handwritten.exists() else ""
    source = '#include "stub.h"\n'
    if text:
        source += f'#include "{handwritten.name}"\n'
    for name in sorted(symbols):
        if re.search(rf"\b{name}\(", text):
            continue
        if re.search(r"(?i)string$|lasterror$", name):
            source += f'STUB const char* {name}() {{ return "not emulated"; }}\n'
        else:
            source += f'STUB long {name}() {{ return refuse("{name}", {library.failure}); }}\n'
    return source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nm", default="nm")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("consumers", type=Path, nargs="*")
    options = parser.parse_args()
    symbols = imported_symbols(options.nm, options.consumers)
    (options.out / "amdhip64.map").write_text(hip_version_script(symbols))
    for library in LIBRARIES if options.consumers else []:
        own = {n: v for n, v in symbols.items() if re.match(library.prefix, n)}
        (options.out / f"{library.name}.cpp").write_text(stub_source(library, own))
        (options.out / f"{library.name}.map").write_text(stub_version_script(own))
        print(library.name, library.version)


if __name__ == "__main__":
    main()
