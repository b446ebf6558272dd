# SPDX-License-Identifier: Apache-2.0
"""Compiles one kernel source for one GPU target, or embeds compiled ones in a C++ source.

Run by CMake. clang is PyPI's ziglang, or the one that is named; the flags leave nothing to what
ROCm or CUDA happens to be installed. A spilled register, or PTX newer than asked for, is an error.
"""

import argparse
import hashlib
import os
import pathlib
import re
import subprocess
import sys

COMMON = ("-O3", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-nostdinc", "-nostdinc++")
# The lowest that the instructions in use need: every driver since CUDA 12.0 takes it.
PTX_VERSION = "8.0"


class Tools:
    """clang and its linker."""

    def __init__(self, clang: str | None, work: pathlib.Path) -> None:
        self.environment = dict(os.environ)
        if clang is not None:
            self.clang = [clang]
            self.link = [str(pathlib.Path(clang).with_name("ld.lld"))]
        else:
            self.clang = [sys.executable, "-m", "ziglang", "clang"]
            self.link = [sys.executable, "-m", "ziglang", "ld.lld"]
            cache = str(work / "zig")
            self.environment |= {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}

    def run(self, *command: str | pathlib.Path) -> None:
        words = list(map(str, command))
        done = subprocess.run(words, capture_output=True, text=True, env=self.environment)
        if done.returncode:
            sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")


def compile_amd(tools: Tools, source: pathlib.Path, arch: str, output: pathlib.Path) -> None:
    """An ELF code object. clang -c would hand it to a linker of its own, so step by step."""
    assembly, relocatable = output.with_suffix(".s"), output.with_suffix(".o")
    flags = ("-x", "hip", "-target", "x86_64-linux-gnu", f"--offload-arch={arch}",
             "--cuda-device-only", "-nogpulib", "-nogpuinc", "-fuse-cuid=none",
             "-mcode-object-version=5")  # fmt: skip
    tools.run(*tools.clang, *flags, *COMMON, "-S", source, "-o", assembly)
    target = ("-target", "amdgcn-amd-amdhsa", f"-mcpu={arch}")
    tools.run(*tools.clang, *target, "-c", assembly, "-o", relocatable)
    tools.run(*tools.link, "-shared", relocatable, "-o", output)
    report_amd(assembly.read_text(), arch)


def report_amd(assembly: str, arch: str) -> None:
    metadata = assembly[assembly.index("amdhsa.kernels:") :]
    for kernel in re.split(r"^  - \.", metadata, flags=re.MULTILINE)[1:]:
        values = dict(re.findall(r"\.?(\w+): +'?([\w.]+)'?", kernel))
        spills = int(values["sgpr_spill_count"]) + int(values["vgpr_spill_count"])
        print(
            f"-- {arch} {values['symbol'].removesuffix('.kd')}: {values['vgpr_count']} VGPRs, "
            f"{values['sgpr_count']} SGPRs, {values['group_segment_fixed_size']} bytes LDS, "
            f"{spills} spills"
        )
        if spills or int(values["private_segment_fixed_size"]):
            sys.exit(f"{arch} {values['symbol']}: spilled registers or scratch memory")


def compile_nvidia(tools: Tools, source: pathlib.Path, arch: str, output: pathlib.Path) -> None:
    """PTX, which the driver compiles. Without the empty CUDA folder an installed one is found."""
    nothing = output.parent / "no-cuda"
    nothing.mkdir(exist_ok=True)
    flags = ("-x", "cuda", f"--cuda-gpu-arch={arch}", f"--cuda-path={nothing}",
             f"--cuda-feature=+ptx{PTX_VERSION.replace('.', '')}", "--cuda-device-only",
             "-nocudalib", "-nocudainc")  # fmt: skip
    tools.run(*tools.clang, *flags, *COMMON, "-S", source, "-o", output)
    text = output.read_text()
    (version,) = re.findall(r"^\.version (\S+)", text, re.MULTILINE)
    if version != PTX_VERSION:
        sys.exit(f"{arch}: PTX {version}, expected {PTX_VERSION}")
    for name, body in re.findall(r"\.entry (\w+)\((.*?)^}", text, re.MULTILINE | re.DOTALL):
        shared = sum(map(int, re.findall(r"\.shared .*?\[(\d+)\]", body)))
        print(f"-- {arch} {name}: {shared} bytes shared memory, PTX {version}")
        if ".local" in body:
            sys.exit(f"{arch} {name}: local memory")


def embed(files: list[pathlib.Path], output: pathlib.Path) -> None:
    """A C++ source with the bytes of `<name>.<arch>.co` and `<name>.<arch>.ptx`."""
    arrays, rows = [], []
    for number, file in enumerate(sorted(files)):
        name, arch, kind = file.name.split(".")
        code = file.read_bytes() + (b"\0" if kind == "ptx" else b"")  # the driver wants a C string
        digest = hashlib.sha256(code).hexdigest()
        numbers = ",".join(map(str, code))
        arrays.append(f"alignas(4096) const unsigned char k{number}[] = {{{numbers}}};")
        rows.append(f'    {{"{name}", "{arch}", "{digest}", k{number}, sizeof k{number}}},')
    output.write_text(
        "// Made by cmake/device_code.py.\n"
        '#include "gpu/device_code.h"\n\nnamespace jax_mla {\nnamespace {\n\n'
        + "\n".join(arrays)
        + "\n\n}  // namespace\n\nconst std::vector<DeviceCode>& EmbeddedDeviceCode() {\n"
        + "  static const std::vector<DeviceCode> codes = {\n"
        + "\n".join(rows)
        + "\n  };\n  return codes;\n}\n\n}  // namespace jax_mla\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clang", help="instead of ziglang's")
    parser.add_argument("--arch", help="gfx942, gfx950, sm_80 or sm_90a")
    parser.add_argument("--source", type=pathlib.Path)
    parser.add_argument("--embed", type=pathlib.Path, nargs="*")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    if options.embed is not None:
        embed(options.embed, options.output)
        return
    tools = Tools(options.clang, options.output.parent)
    compiler = compile_amd if options.arch.startswith("gfx") else compile_nvidia
    compiler(tools, options.source, options.arch, options.output)


if __name__ == "__main__":
    main()
