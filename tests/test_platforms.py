# SPDX-License-Identifier: Apache-2.0
"""The choice of platform: what is refused, what is run, and that the device is named."""

import subprocess
import sys
from pathlib import Path

import pytest
from emulator import environment, jax_plugin

TESTS = Path(__file__).parent
NEEDS_PLUGIN = pytest.mark.skipif(
    jax_plugin.version() is None, reason="no ROCm plugin of JAX is installed"
)


def run_pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent)


def test_rocm_tests_do_not_run_by_default() -> None:
    done = run_pytest("--collect-only", "-q", "tests/test_rocm_jax.py", "tests/test_target.py")
    assert "test_target.py::" in done.stdout
    assert "test_rocm_jax.py::" not in done.stdout


@pytest.mark.skipif(Path("/dev/kfd").exists(), reason="there is a GPU")
def test_rocm_is_never_the_emulator() -> None:
    done = run_pytest("--platform", "rocm", "tests/test_rocm_jax.py")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no ROCm device" in done.stderr


@pytest.mark.parametrize("platform", ["rocm-emulated:gfx90a", "metal"])
def test_unknown_platforms(platform: str) -> None:
    done = run_pytest("--platform", platform, "tests/test_rocm_jax.py")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert platform.split(":")[-1] in done.stderr


@NEEDS_PLUGIN
def test_only_rocm_tests_run_on_the_emulator_and_the_header_says_so() -> None:
    done = run_pytest(
        "--platform", "rocm-emulated:gfx950", "-k", "test_devices or test_package", "tests"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "platform: emulated gfx950" in done.stdout
    assert "1 passed" in done.stdout


@NEEDS_PLUGIN
def test_a_real_device_is_not_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "_KERNEL_DRIVER", tmp_path)
    monkeypatch.delenv("JAX_MLA_FORCE_EMULATOR", raising=False)
    with pytest.raises(environment.Unavailable, match="exists"):
        environment.variables("gfx942")
    monkeypatch.setenv("JAX_MLA_FORCE_EMULATOR", "1")
    assert environment.variables("gfx942")["JAX_PLATFORMS"] == "rocm,cpu"


def test_the_plugin_must_be_there_and_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax_plugin, "version", lambda: None)
    with pytest.raises(environment.Unavailable, match="not installed"):
        environment.variables("gfx942")
    monkeypatch.setattr(jax_plugin, "version", lambda: "0.0.1")
    with pytest.raises(environment.Unavailable, match=r"plugin 0\.0\.1"):
        environment.variables("gfx942")
