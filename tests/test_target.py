# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import jax
import pytest

from jax_mla import Target
from jax_mla.target import resolve


def test_explicit_first() -> None:
    assert resolve(Target("gfx950", 200), "rocm") == Target("gfx950", 200)


@pytest.mark.parametrize(
    ("platform", "device", "expected"),
    [
        (
            "rocm",
            SimpleNamespace(compute_capability="gfx950:sramecc+:xnack-", core_count=256),
            Target("gfx950", 256),
        ),
        ("cuda", SimpleNamespace(compute_capability="9.0", core_count=132), Target("sm_90", 132)),
    ],
)
def test_then_the_device(
    platform: str,
    device: SimpleNamespace,
    expected: Target,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jax, "devices", lambda name: {platform: [device]}[name])
    assert resolve(None, platform) == expected


def test_then_mi300x() -> None:
    assert resolve(None, "rocm") == Target("gfx942", 304)
    assert resolve(None, "cuda") == Target("sm_90", 132)


@pytest.mark.parametrize(
    ("arch", "units", "message"),
    [("mi300x", 304, "arch: expected 'gfx942'.*got 'mi300x'"), ("gfx942", 0, "compute_units: exp")],
)
def test_bad_input(arch: str, units: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^Target: {message}"):
        Target(arch, units)
