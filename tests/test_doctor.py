# SPDX-License-Identifier: Apache-2.0
"""doctor: what it says of machines that are made up, and of this one."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jax_mla import aiter, doctor, kernels, native, selftest
from jax_mla.call import Unserved
from jax_mla.doctor import (
    Aiter,
    AiterKernel,
    Devices,
    Driver,
    Extension,
    Facts,
    Lowering,
    Platform,
)
from jax_mla.selftest import Check
from jax_mla.target import Target, platform_of, resolve

NO_CUDA = Platform("cuda", error="Unknown backend cuda")
CPU = Platform("cpu", [Devices(1, "cpu")])
EXTENSION = Extension(
    None,
    (0, 1),
    ["jax_mla_decode_asm_rocm_v1"],
    {"merge": {"gfx942": "ab" * 32, "sm_80": "cd" * 32}},
)
KERNEL = AiterKernel("mla_made_up", "emulated", True, "ok")
AITER = Aiter("gfx942", "/opt/aiter/hsa", "JAX_MLA_AITER_DIR", None, [KERNEL])
MI300X = Platform(
    "rocm",
    [Devices(8, "AMD Instinct MI300X", "gfx942", 304)],
    present=True,
    driver=Driver(True, "libamdhip64.so.7"),
)
HEALTHY = Facts(
    {"jax_mla": "0.1.0", "jax": "0.10.2", "jax-rocm7-plugin": "0.10.2"},
    [MI300X, NO_CUDA, CPU],
    EXTENSION,
    [AITER],
    [Lowering("bf16, split", "asm", "mla_made_up")],
)


def with_rocm(**changes: Any) -> Facts:
    rocm = dataclasses.replace(MI300X, **changes)
    return dataclasses.replace(HEALTHY, platforms=[rocm, NO_CUDA, CPU])


def with_aiter(**changes: Any) -> Facts:
    return dataclasses.replace(HEALTHY, aiter=[dataclasses.replace(AITER, **changes)])


REFUSED = AiterKernel("mla_other", "emulated", False, "/opt/x.co: others can write it: chmod")
DOUBTFUL = AiterKernel("mla_third", "doubtful", False, "mla_third: not used, as it has not been")

SICK = {
    "extension": (
        dataclasses.replace(HEALTHY, extension=Extension("jax_mla._native: no such module")),
        "the extension is not loaded: jax_mla._native: no such module; remedy: install jax_mla",
        "not loaded: jax_mla._native: no such module",
    ),
    "driver": (
        with_rocm(driver=Driver(False, "libamdhip64.so: cannot open shared object file")),
        "no rocm driver: libamdhip64.so: cannot open shared object file; remedy: install ROCm",
        "rocm driver: none (libamdhip64.so: cannot open shared object file)",
    ),
    "backend": (
        with_rocm(devices=[], error="Backend 'rocm' failed to initialize"),
        "JAX does not use this machine's AMD GPU: Backend 'rocm' failed to initialize; remedy: "
        "install jax-rocm7-plugin",
        "rocm: none (Backend 'rocm' failed to initialize)",
    ),
    "nvidia": (
        dataclasses.replace(
            HEALTHY, platforms=[Platform("cuda", error="Unknown backend cuda", present=True), CPU]
        ),
        "JAX does not use this machine's NVIDIA GPU: Unknown backend cuda; remedy: install \"jax[",
        "cuda: none (Unknown backend cuda)",
    ),
    "no backend": (
        dataclasses.replace(
            HEALTHY, platforms=[NO_CUDA, Platform("cpu", error="no such backend")], decode=[]
        ),
        "JAX has no devices at all: no such backend; remedy: unset JAX_PLATFORMS",
        "cpu: none (no such backend)",
    ),
    "device code": (
        dataclasses.replace(HEALTHY, extension=dataclasses.replace(EXTENSION, device_code={})),
        "the extension was built without device code for gfx942; remedy: build jax_mla without",
        "registered: jax_mla_decode_asm_rocm_v1",
    ),
    "aiter": (
        with_aiter(absent="AITER was not found: install it", kernels=()),
        "AITER was not found: install it",
        "AITER was not found: install it",
    ),
    "kernel": (
        with_aiter(kernels=[KERNEL, DOUBTFUL, REFUSED, REFUSED]),
        "2 of AITER's kernels for gfx942 cannot be used, the first: /opt/x.co: others can write",
        "mla_other (emulated): /opt/x.co: others can write it: chmod",
    ),
}


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs doctor on a machine that is made up."""

    def run(facts: Facts, *checks: Check, as_json: bool = False) -> tuple[int, str]:
        monkeypatch.setattr(doctor, "gather", lambda: facts)
        monkeypatch.setattr(selftest, "run", lambda: iter(checks))
        status = doctor.main(as_json=as_json, with_selftest=bool(checks))
        return status, capsys.readouterr().out

    return run


Main = Callable[..., tuple[int, str]]


def test_a_healthy_machine(main: Main) -> None:
    status, text = main(HEALTHY)
    assert status == 0
    assert text.splitlines() == [
        "versions",
        "  jax_mla 0.1.0",
        "  jax 0.10.2",
        "  jax-rocm7-plugin 0.10.2",
        "devices",
        "  rocm: 8 x AMD Instinct MI300X (gfx942, 304 compute units)",
        "  rocm driver: libamdhip64.so.7",
        "  cuda: none (Unknown backend cuda)",
        "  cpu: 1 x cpu",
        "extension",
        "  loaded, XLA FFI API 0.1",
        "  registered: jax_mla_decode_asm_rocm_v1",
        "  device code: merge gfx942 abababababab, sm_80 cdcdcdcdcdcd",
        "AITER",
        "  gfx942: /opt/aiter/hsa (from JAX_MLA_AITER_DIR)",
        "    mla_made_up (emulated): ok",
        "decode, 4 heads",
        "  bf16, split: asm (mla_made_up)",
        "problems",
        "  none",
    ]


def test_json_has_the_same_facts_under_stable_keys(main: Main) -> None:
    status, text = main(HEALTHY, Check("xla, 1 heads", True, "fine"), as_json=True)
    assert status == 0
    said = json.loads(text)
    assert list(said) == [
        "versions", "platforms", "extension", "aiter", "decode", "selftest", "problems"
    ]  # fmt: skip
    assert said["platforms"][0] == {
        "name": "rocm",
        "devices": [
            {
                "count": 8,
                "kind": "AMD Instinct MI300X",
                "arch": "gfx942",
                "compute_units": 304,
            }
        ],
        "error": None,
        "present": True,
        "driver": {"found": True, "detail": "libamdhip64.so.7"},
    }
    assert list(said["extension"]) == ["absent", "ffi_api", "targets", "device_code"]
    assert list(said["aiter"][0]) == ["arch", "folder", "source", "absent", "kernels"]
    assert list(said["aiter"][0]["kernels"][0]) == ["file", "evidence", "usable", "state"]
    assert list(said["decode"][0]) == ["call", "implementation", "kernel", "reasons"]
    assert said["selftest"] == [{"name": "xla, 1 heads", "passed": True, "detail": "fine"}]
    assert said["problems"] == []


@pytest.mark.parametrize("name", SICK)
def test_a_sick_machine(main: Main, name: str) -> None:
    """One problem with its remedy, and the fact that it comes from, in words and as JSON."""
    facts, problem, fact = SICK[name]
    status, text = main(facts)
    head, _, tail = text.partition("problems\n")
    assert status == 1
    assert [line.strip().startswith(problem) for line in tail.splitlines()] == [True], tail
    assert fact in head
    status, text = main(facts, as_json=True)
    (said,) = json.loads(text)["problems"]
    assert status == 1 and said.startswith(problem)


def test_a_machine_without_a_gpu_is_not_sick(main: Main) -> None:
    """Nor is one with the plugin and no GPU, or with AITER refused and no use for it."""
    no_rocm = Platform("rocm", error="Backend 'rocm' failed to initialize: no device")
    facts = dataclasses.replace(
        HEALTHY,
        platforms=[no_rocm, NO_CUDA, CPU],
        aiter=[dataclasses.replace(AITER, kernels=[REFUSED]), Aiter("gfx950", None, "", "none")],
        decode=[Lowering("bf16, split", "xla", None)],
    )
    status, text = main(facts)
    assert status == 0
    assert "  no GPU: decode runs on the CPU\n" in text
    assert text.endswith("problems\n  none\n")


def test_a_gpu_without_kernels_is_not_sick(main: Main) -> None:
    """There is nothing that its owner could do."""
    facts = with_rocm(devices=[Devices(1, "AMD Instinct MI250X", "gfx90a", 104)])
    assert main(facts)[0] == 0


def test_the_selftest_decides_too(main: Main) -> None:
    checks = [
        Check("asm, bf16, split, 4 heads", True, "0.31 of the allowed error"),
        Check("asm, fp8, split, 4 heads", None, "AITER has no kernel"),
        Check("xla, bf16, split, 4 heads", False, "7.00 of the allowed error"),
    ]
    status, text = main(HEALTHY, *checks[:2])
    assert status == 0
    assert "selftest\n  ok: asm, bf16, split, 4 heads: 0.31 of the allowed error\n" in text
    assert "  not served: asm, fp8, split, 4 heads: AITER has no kernel\n" in text
    status, text = main(HEALTHY, *checks)
    assert status == 1
    assert "  FAILED: xla, bf16, split, 4 heads: 7.00 of the allowed error\nproblems\n" in text
    assert text.endswith("selftest: xla, bf16, split, 4 heads: 7.00 of the allowed error\n")


# --- Gathering ------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Two GPUs of a kind, no extension and no AITER; the devices can be changed."""
    gpu = SimpleNamespace(
        platform="gpu",
        device_kind="AMD Instinct MI300X",
        compute_capability="gfx942:sramecc+:xnack-",
        core_count=304,
    )
    devices: dict[str, Any] = {"rocm": [gpu, gpu], "cpu": jax.devices("cpu")[:1]}

    def find(platform: str) -> list[Any]:
        if platform not in devices:
            raise RuntimeError(f"Unknown backend\n  {platform}")
        return devices[platform]

    monkeypatch.setattr(jax, "devices", find)
    monkeypatch.setattr(native, "ABSENT", "jax_mla._native: gone")
    monkeypatch.setattr(native, "LAUNCHES", frozenset())
    monkeypatch.setattr(doctor, "_is_present", lambda platform: False)
    monkeypatch.setenv("JAX_MLA_AITER_DIR", str(tmp_path / "nothing"))
    aiter.discover.cache_clear()
    yield devices
    aiter.discover.cache_clear()


def test_gathers_what_jax_says(machine: dict[str, Any]) -> None:
    facts = doctor.gather()
    rocm, cuda, cpu = facts.platforms
    assert list(rocm.devices) == [Devices(2, "AMD Instinct MI300X", "gfx942", 304)]
    assert (rocm.error, rocm.driver) == (None, None)
    assert (list(cuda.devices), cuda.error) == ([], "Unknown backend cuda")
    assert cpu.devices[0].count == 1
    assert facts.rocm_arches == ["gfx942"] and [a.arch for a in facts.aiter] == ["gfx942"]
    assert facts.extension == Extension("jax_mla._native: gone")
    calls = [x.call for x in facts.decode]
    assert calls == [f"{d}, {m}" for m in kernels.MODES for d in selftest.DTYPES]
    assert facts.decode[0].implementation == "xla"
    assert facts.decode[0].reasons[0] == "not asm: jax_mla._native: gone"
    assert facts.versions["jax"] == jax.__version__ and "jax-cuda12-plugin" not in facts.versions


def test_a_backend_that_fails_is_a_fact(machine: dict[str, Any]) -> None:
    machine.clear()
    facts = doctor.gather()
    assert [p.error for p in facts.platforms] == [
        f"Unknown backend {name}" for name in ("rocm", "cuda", "cpu")
    ]
    assert facts.decode == []
    assert any("JAX has no devices at all" in problem for problem in doctor.problems(facts))


def test_asks_the_extension_for_drivers(
    machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"rocm": (True, "libamdhip64.so.7"), "cuda": (False, "libcuda.so.1: not there")}
    extension = SimpleNamespace(
        ffi_api=(0, 1),
        handlers=lambda: {"jax_mla_decode_asm_rocm_v1": ("rocm", None)},
        device_code=lambda: {("merge", "gfx942"): ("ab" * 32, b"")},
        driver=answers.__getitem__,
    )
    monkeypatch.setattr(native, "ABSENT", None)
    monkeypatch.setitem(sys.modules, "jax_mla._native", extension)
    facts = doctor.gather()
    assert [p.driver for p in facts.platforms] == [
        Driver(True, "libamdhip64.so.7"),
        Driver(False, "libcuda.so.1: not there"),
        None,
    ]
    assert facts.extension == Extension(
        None, (0, 1), ["jax_mla_decode_asm_rocm_v1"], {"merge": {"gfx942": "ab" * 32}}
    )
    # AITER is not here, and nobody misses the CUDA driver.
    assert doctor.problems(facts) == [facts.aiter[0].absent]


@pytest.mark.parametrize(
    ("version", "present"), [("90402", True), ("90500", True), ("90010", False), ("0", False)]
)
def test_what_linux_says_of_amd_gpus(tmp_path: pathlib.Path, version: str, present: bool) -> None:
    node = tmp_path / "properties"
    assert not doctor._is_served(node)  # as for a GPU that the container was not given
    node.write_text(f"simd_count 1216\ngfx_target_version {version}\ndrm_render_minor 128\n")
    assert doctor._is_served(node) == present


@pytest.mark.skipif(
    "JAX_MLA_AITER_DIR" not in os.environ, reason="no AITER: JAX_MLA_AITER_DIR names no hsa folder"
)
@pytest.mark.parametrize("arch", kernels.ARCHES)
def test_every_kernel_of_a_checkout(arch: str) -> None:
    aiter.discover.cache_clear()
    found = doctor._aiter(arch)
    assert found.absent is None and found.source == "JAX_MLA_AITER_DIR"
    assert {k.file for k in found.kernels} == {k.file for k in kernels.TABLE if k.arch == arch}
    for kernel in found.kernels:
        assert kernel.usable == (kernel.evidence == "emulated") == (kernel.state == "ok")


# --- Selftest -------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a few of the selftest's calls, of "xla" alone."""
    monkeypatch.setattr(selftest, "HEADS", (3, 24))
    monkeypatch.setattr(selftest, "DTYPES", ("bf16",))
    monkeypatch.setattr(native, "LAUNCHES", frozenset())


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("fault", ["shifted", "scaled", "nan", "empty", "lse", "raised"])
def test_finds_faults(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Each of which is in the last head alone."""
    right = selftest.decode

    def wrong(*operands: Any, **options: Any) -> Any:
        if fault == "raised":
            raise RuntimeError("refused module")
        out, lse = right(*operands, **options)
        match fault:
            case "shifted":
                out = out.at[0, -1].set(jnp.roll(out[0, -1], 1))
            case "scaled":
                out = out.at[2, -1].multiply(1.02)
            case "nan":
                out = out.at[0, -1, 511].set(jnp.nan)
            case "empty":
                out = out.at[1, -1, 0].set(1)
            case "lse":
                lse = lse.at[0, -1].add(1e-3)
        return out, lse

    assert [check.passed for check in selftest.run()] == [True, True]
    monkeypatch.setattr(selftest, "decode", wrong)
    checks = list(selftest.run())
    assert [check.passed for check in checks] == [False, False]
    if fault == "raised":
        assert checks[0].detail == "RuntimeError: refused module"


@pytest.mark.usefixtures("short")
def test_aiters_kernels_are_run_with_and_without_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a made-up GPU, whose asm kernels are XLA's."""
    right, rows_differ, seen = selftest.decode, False, []

    def decode(*operands: Any, head_plan: str | None = None, **options: Any) -> Any:
        implementation = options.pop("implementation")
        seen.append(
            (implementation, operands[0].shape[1], options.pop("metadata", None), head_plan)
        )
        out, lse = right(*operands, **options, implementation="xla")
        if head_plan == "rows" and rows_differ:
            out = out.at[0, 0, 0].multiply(1.01)
        return out, lse

    monkeypatch.setattr(selftest, "decode", decode)
    monkeypatch.setattr(selftest, "platform_of", lambda device: "rocm")
    monkeypatch.setattr(selftest, "resolve", lambda *_: Target("gfx942", 304))
    monkeypatch.setattr(native, "LAUNCHES", frozenset({("rocm", "asm")}))
    monkeypatch.setattr(aiter, "find", lambda kernel: None)
    checks = {check.name: check for check in selftest.run()}
    assert all(check.passed for check in checks.values())
    assert list(checks) == [
        "asm, bf16, split, 3 heads",
        "asm, bf16, split, 3 heads, not padded",
        "asm, bf16, split, 24 heads",
        "asm, bf16, persistent, 3 heads",
        "asm, bf16, persistent, 24 heads",
        "xla, bf16, split, 3 heads",
        "xla, bf16, split, 24 heads",
    ]
    assert [(name, heads, plan) for name, heads, _, plan in seen[:3]] == [
        ("asm", 3, None), ("asm", 3, "rows"), ("asm", 24, None)
    ]  # fmt: skip
    modes = [None if metadata is None else metadata.spec.mode for _, _, metadata, _ in seen]
    assert modes == [None, None, None, "persistent", "persistent", None, None]

    rows_differ = True
    failed = [check for check in selftest.run() if check.passed is False]
    assert [check.detail for check in failed] == ["other bits than with padding"]

    def refuse(kernel: kernels.Kernel) -> None:
        raise Unserved(f"{kernel.file} is not here")

    monkeypatch.setattr(aiter, "find", refuse)
    first = next(iter(selftest.run()))
    assert (first.passed, first.detail[-11:]) == (None, "is not here")


# --- This machine ---------------------------------------------------------------------------------


# A GPU that JAX is kept from using is a problem, and rightly so.
GPU = any(map(doctor._is_present, ("rocm", "cuda")))


def run_doctor(*arguments: str) -> str:
    """What it prints where JAX has the CPU alone."""
    variables = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    result = subprocess.run(
        [sys.executable, "-m", "jax_mla", "doctor", *arguments],
        capture_output=True,
        text=True,
        env=variables | {"JAX_PLATFORMS": "cpu"},
    )
    assert result.returncode == int(GPU), result.stderr
    return result.stdout


def test_the_command_with_a_selftest() -> None:
    lines = run_doctor("--selftest").splitlines()
    assert lines[0] == "versions" and "  no GPU: decode runs on the CPU" in lines
    end = lines.index("problems")
    tested = lines[lines.index("selftest") + 1 : end]
    implementations = ["kernel", "xla"] if ("cpu", "kernel") in native.LAUNCHES else ["xla"]
    calls = len(selftest.HEADS) * len(selftest.DTYPES)
    assert [line.split(",")[0] for line in tested] == [
        f"  ok: {name}" for name in implementations for _ in range(calls)
    ]
    assert (lines[end + 1 :] == ["  none"]) == (not GPU)


def test_the_command_as_json() -> None:
    said = json.loads(run_doctor("--json"))
    assert said["versions"]["jax"] == jax.__version__
    best = "kernel" if ("cpu", "kernel") in native.LAUNCHES else "xla"
    assert said["decode"][0]["implementation"] == best and said["selftest"] == []
    assert "jax_mla_decode_asm_rocm_v1" in said["extension"]["targets"]
    assert bool(said["problems"]) == GPU


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    """It is named with what decode is planned by, and its driver with the library."""
    device = jax.devices()[0]
    target = resolve(None, platform_of(device))
    facts = doctor.gather()
    (found,) = [p for p in facts.platforms if p.name == platform_of(device)]
    assert found.error is None and found.driver is not None and found.driver.found
    assert ("cuda" if found.name == "cuda" else "amdhip64") in found.driver.detail
    first = found.devices[0]
    assert (first.kind, first.arch) == (device.device_kind, target.arch)
    assert first.compute_units == target.compute_units == device.core_count
    assert sum(d.count for d in found.devices) == len(jax.devices())
    assert facts.decode and all(x.implementation for x in facts.decode)


@pytest.mark.rocm
def test_on_rocm_aiter_is_read_for_the_gpus_arch_alone() -> None:
    facts = doctor.gather()
    assert [a.arch for a in facts.aiter] == facts.rocm_arches == [resolve(None, "rocm").arch]
