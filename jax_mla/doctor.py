# SPDX-License-Identifier: Apache-2.0
"""`python -m jax_mla doctor`: what decode can run on here, what is wrong, and what to do about it.

Facts are gathered first and judged and rendered afterwards, so that any machine can be made up.
"""

import dataclasses
import importlib
import importlib.metadata
import json
import platform as python_platform
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jax_mla import __version__, aiter, kernels, native, selftest
from jax_mla.explain import explain_sizes
from jax_mla.selftest import DTYPES, Check
from jax_mla.target import Target, resolve

_DISTRIBUTIONS = (
    "jax",
    "jaxlib",
    *(
        f"jax-{kind}-{part}"
        for kind in ("rocm7", "cuda12", "cuda13")
        for part in ("plugin", "pjrt")
    ),
)
_GPUS = {"rocm": "AMD", "cuda": "NVIDIA"}
_INSTALL = {
    "rocm": "install jax-rocm7-plugin and jax-rocm7-pjrt of JAX's version",
    "cuda": 'install "jax[cuda13]" (or cuda12)',
}
_DRIVER = {
    "rocm": "install ROCm, or put the folder of its libamdhip64.so on LD_LIBRARY_PATH",
    "cuda": "install NVIDIA's driver, or put the folder of its libcuda.so.1 on LD_LIBRARY_PATH",
}
# gfx942 and gfx950 as Linux' amdgpu driver writes them.
_AMD_VERSIONS = ("90402", "90500")
_HEADS = 4


def main(*, as_json: bool, with_selftest: bool) -> int:
    """Prints what it finds out as it goes; the exit status is 1 if there are problems."""

    def say(text: str) -> None:
        if not as_json:
            print(text, flush=True)

    facts, checks = gather(), []
    say(render(facts))
    if with_selftest and facts.decode:
        say("selftest")
        for check in selftest.run():
            checks.append(check)
            say(render_check(check))
    found = problems(facts, checks)
    say(render_problems(found))
    if as_json:
        print(render_json(facts, found, checks))
    return 1 if found else 0


# --- Facts ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices of a kind; arch and compute_units are None except for GPUs."""

    count: int
    kind: str
    arch: str | None = None
    compute_units: int | None = None


@dataclasses.dataclass(frozen=True)
class Driver:
    """Whether the extension can load a platform's driver: the library, or why not."""

    found: bool
    detail: str


@dataclasses.dataclass(frozen=True)
class Platform:
    """A platform of JAX.

    Attributes:
      name: "rocm", "cuda" or "cpu".
      devices: those that JAX has.
      error: JAX's words where it has none.
      present: whether the operating system shows a GPU for it that jax_mla has kernels for.
      driver: what the extension says of the driver; None if there is no extension to ask.
    """

    name: str
    devices: Sequence[Devices] = ()
    error: str | None = None
    present: bool = False
    driver: Driver | None = None


@dataclasses.dataclass(frozen=True)
class Extension:
    """The C++ extension.

    Attributes:
      absent: why it is not loaded; None if it is.
      ffi_api: of XLA, that it was built with.
      targets: FFI targets that are registered.
      device_code: source to arch to SHA-256 of the compiled kernels in it.
    """

    absent: str | None = None
    ffi_api: tuple[int, int] | None = None
    targets: Sequence[str] = ()
    device_code: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class AiterKernel:
    """A code object that jax_mla has a use for: whether it is here, or why not.

    Attributes:
      file: its name.
      evidence: how it is known to be right, as in `jax_mla.kernels`.
      usable: whether decode can launch it.
      state: "ok", "ok, another build than the tested one", or why not.
    """

    file: str
    evidence: str
    usable: bool
    state: str


@dataclasses.dataclass(frozen=True)
class Aiter:
    """AITER's kernels for one arch; absent says why there are none."""

    arch: str
    folder: str | None
    source: str
    absent: str | None
    kernels: Sequence[AiterKernel] = ()


@dataclasses.dataclass(frozen=True)
class Lowering:
    """What decode with a few heads is lowered to on the default device.

    Attributes:
      call: dtypes and mode.
      implementation: "asm", "kernel" or "xla"; None if it is refused.
      kernel: AITER's, for "asm".
      reasons: why the better ones do not serve, or why it is refused.
    """

    call: str
    implementation: str | None
    kernel: str | None
    reasons: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that doctor knows of a machine."""

    versions: Mapping[str, str]
    platforms: Sequence[Platform]
    extension: Extension
    aiter: Sequence[Aiter]
    decode: Sequence[Lowering]

    @property
    def rocm_arches(self) -> list[str]:
        """Of the ROCm devices that AITER has kernels for."""
        found = [d.arch for p in self.platforms if p.name == "rocm" for d in p.devices]
        return sorted({arch for arch in found if arch in kernels.ARCHES})


# --- Gathering ------------------------------------------------------------------------------------


def gather() -> Facts:
    """Looks at this machine. What fails is a fact as well: nothing is raised."""
    extension = None if native.ABSENT else importlib.import_module("jax_mla._native")
    platforms = [_platform(name, extension) for name in ("rocm", "cuda", "cpu")]
    facts = Facts(_versions(), platforms, _extension(extension), (), ())
    arches = facts.rocm_arches or kernels.ARCHES
    return dataclasses.replace(
        facts, aiter=[_aiter(arch) for arch in arches], decode=_lowerings(platforms)
    )


def _versions() -> dict[str, str]:
    versions = {"jax_mla": __version__, "python": python_platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _platform(name: str, extension: Any) -> Platform:
    devices: list[Devices] = []
    error = None
    try:
        kinds = Counter(_describe(device, name) for device in jax.devices(name))
        devices = [dataclasses.replace(kind, count=n) for kind, n in kinds.items()]
    except Exception as raised:  # plugins raise what they like
        error = " ".join(str(raised).split())
    driver = None
    if extension is not None and name in _GPUS:
        # After JAX: the extension uses the library that JAX's plugin has loaded, if it has.
        driver = Driver(*extension.driver(name))
    return Platform(name, devices, error, _is_present(name), driver)


def _describe(device: jax.Device, platform: str) -> Devices:
    if platform not in _GPUS:
        return Devices(1, device.device_kind)
    target = resolve(None, platform, (device,))
    return Devices(1, device.device_kind, target.arch, target.compute_units)


def _is_present(platform: str) -> bool:
    """Whether Linux shows a GPU of the platform, whatever JAX makes of it."""
    if platform == "rocm":
        nodes = Path("/sys/class/kfd/kfd/topology/nodes").glob("*/properties")
        return Path("/dev/kfd").exists() and any(map(_is_served, nodes))
    return platform == "cuda" and Path("/dev/nvidiactl").exists()


def _is_served(node: Path) -> bool:
    """Whether a node of the amdgpu driver's topology is a GPU that there are kernels for."""
    try:
        match = re.search(r"^gfx_target_version (\d+)$", node.read_text(), re.MULTILINE)
    except OSError:  # not given to this container
        return False
    return match is not None and match[1] in _AMD_VERSIONS


def _extension(extension: Any) -> Extension:
    if extension is None:
        return Extension(native.ABSENT)
    code: dict[str, dict[str, str]] = {}
    for (source, arch), (sha256, _) in extension.device_code().items():
        code.setdefault(source, {})[arch] = sha256
    return Extension(None, tuple(extension.ffi_api), list(extension.handlers()), code)


def _aiter(arch: str) -> Aiter:
    found = aiter.discover(arch)
    folder = None if found.folder is None else str(found.folder)
    rows = {} if found.absent else {k.file: k for k in kernels.TABLE if k.arch == arch}
    return Aiter(
        arch,
        folder,
        found.source,
        found.absent,
        [_aiter_kernel(found, row) for row in rows.values()],
    )


def _aiter_kernel(found: aiter.Installation, row: kernels.Kernel) -> AiterKernel:
    if row.file not in found.objects:
        return AiterKernel(row.file, row.evidence, False, found.refused[row.file])
    known = found.objects[row.file].known
    state = "ok" if known else "ok, another build than the tested one"
    return AiterKernel(row.file, row.evidence, True, state)


def _lowerings(platforms: Sequence[Platform]) -> list[Lowering]:
    """For the first GPU platform with devices, or the CPU."""
    platform = next((p for p in platforms if p.devices), None)
    if platform is None:
        return []
    if platform.name == "cpu":
        return [_lowering("cpu", Target("gfx942", 1), "bf16", "split")]
    device = platform.devices[0]
    assert device.arch is not None and device.compute_units is not None
    target = Target(device.arch, device.compute_units)
    modes = kernels.MODES if target.arch in kernels.ARCHES else ("split",)
    return [_lowering(platform.name, target, d, mode) for mode in modes for d in DTYPES]


def _lowering(platform: str, target: Target, dtypes: str, mode: str) -> Lowering:
    call = f"{dtypes}, {mode}"
    try:
        said = explain_sizes(_HEADS, target=target, dtypes=dtypes, mode=mode, platform=platform)
    except (NotImplementedError, RuntimeError) as error:
        return Lowering(call, None, None, [str(error)])
    kernel = None if said.asm is None else said.asm.kernel.file
    reasons = [f"not {name}: {reason}" for name, reason in said.passed_over.items()]
    return Lowering(call, said.implementation, kernel, reasons)


# --- Judging --------------------------------------------------------------------------------------


def problems(facts: Facts, checks: Sequence[Check] = ()) -> list[str]:
    """What keeps decode from what it could be on this machine, each with its remedy.

    A machine without a GPU has none for the want of one.
    """
    found = [*_extension_problems(facts), *_platform_problems(facts), *_aiter_problems(facts)]
    found += [f"selftest: {c.name}: {c.detail}" for c in checks if c.passed is False]
    return found


def _extension_problems(facts: Facts) -> Iterator[str]:
    if facts.extension.absent:
        yield (
            f"the extension is not loaded: {facts.extension.absent}; remedy: install jax_mla "
            "again, for this Python and jaxlib"
        )


def _platform_problems(facts: Facts) -> Iterator[str]:
    built = {arch for arches in facts.extension.device_code.values() for arch in arches}
    for p in facts.platforms:
        if p.name not in _GPUS:
            if p.error and not any(other.devices for other in facts.platforms):
                yield f"JAX has no devices at all: {p.error}; remedy: unset JAX_PLATFORMS"
            continue
        if p.present and not p.devices:
            yield (
                f"JAX does not use this machine's {_GPUS[p.name]} GPU: {p.error}; remedy: "
                f"{_INSTALL[p.name]}, and leave JAX_PLATFORMS unset"
            )
        if p.devices and p.driver is not None and not p.driver.found:
            yield f"no {p.name} driver: {p.driver.detail}; remedy: {_DRIVER[p.name]}"
        for arch in {d.arch for d in p.devices}:
            served = arch in kernels.ARCHES or p.name == "cuda"
            has = arch in built if p.name == "rocm" else any(b.startswith("sm_") for b in built)
            if served and not has and not facts.extension.absent:
                yield (
                    f"the extension was built without device code for {arch}; remedy: build "
                    "jax_mla without JAX_MLA_DEVICE=none"
                )


def _aiter_problems(facts: Facts) -> Iterator[str]:
    for found in facts.aiter:
        if found.arch not in facts.rocm_arches:
            continue
        if found.absent:
            yield found.absent
        refused = [k for k in found.kernels if k.evidence == "emulated" and not k.usable]
        if refused:
            yield (
                f"{len(refused)} of AITER's kernels for {found.arch} cannot be used, the first: "
                f"{refused[0].state}"
            )


# --- Rendering ------------------------------------------------------------------------------------


def render(facts: Facts) -> str:
    """The facts, for people."""
    devices = [line for p in facts.platforms for line in _platform_lines(p)]
    if not any(p.devices for p in facts.platforms if p.name in _GPUS):
        devices.append("no GPU: decode runs on the CPU")
    sections = {
        "versions": [f"{name} {version}" for name, version in facts.versions.items()],
        "devices": devices,
        "extension": _extension_lines(facts.extension),
        "AITER": list(dict.fromkeys(line for a in facts.aiter for line in _aiter_lines(a))),
        f"decode, {_HEADS} heads": [line for x in facts.decode for line in _lowering_lines(x)],
    }
    return "\n".join(_section(title, lines) for title, lines in sections.items())


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)])


def render_check(check: Check) -> str:
    """One line of the selftest."""
    word = {True: "ok", False: "FAILED", None: "not served"}[check.passed]
    return f"  {word}: {check.name}: {check.detail}"


def render_problems(found: Sequence[str]) -> str:
    """What is wrong, or that nothing is."""
    return _section("problems", list(found) or ["none"])


def render_json(facts: Facts, found: Sequence[str], checks: Sequence[Check]) -> str:
    """The same as one JSON object."""
    whole = dataclasses.asdict(facts)
    whole |= {"selftest": [dataclasses.asdict(c) for c in checks], "problems": list(found)}
    return json.dumps(whole, indent=2)


def _platform_lines(p: Platform) -> Iterator[str]:
    if not p.devices:
        yield f"{p.name}: none ({p.error})"
    for d in p.devices:
        gpu = "" if d.arch is None else f" ({d.arch}, {d.compute_units} compute units)"
        yield f"{p.name}: {d.count} x {d.kind}{gpu}"
    if p.driver is not None:
        detail = p.driver.detail if p.driver.found else f"none ({p.driver.detail})"
        yield f"{p.name} driver: {detail}"


def _extension_lines(extension: Extension) -> list[str]:
    if extension.absent or extension.ffi_api is None:
        return [f"not loaded: {extension.absent}"]
    return [
        "loaded, XLA FFI API {}.{}".format(*extension.ffi_api),
        f"registered: {', '.join(extension.targets)}",
        *(
            f"device code: {source} " + ", ".join(f"{arch} {sha[:12]}" for arch, sha in of.items())
            for source, of in extension.device_code.items()
        ),
    ]


def _aiter_lines(found: Aiter) -> list[str]:
    if found.absent:
        return [found.absent]
    return [
        f"{found.arch}: {found.folder} (from {found.source})",
        *(f"  {k.file} ({k.evidence}): {k.state}" for k in found.kernels),
    ]


def _lowering_lines(lowering: Lowering) -> list[str]:
    what = lowering.implementation or "refused"
    if lowering.kernel:
        what += f" ({lowering.kernel})"
    return [f"{lowering.call}: {what}", *(f"  {reason}" for reason in lowering.reasons)]
