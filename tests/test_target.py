# SPDX-License-Identifier: Apache-2.0
import functools
from types import SimpleNamespace

import cases
import ir
import jax
import pytest

import jax_mla
from jax_mla import Target
from jax_mla.target import resolve


def test_explicit_first() -> None:
    assert resolve(Target("gfx950", 200), "rocm") == Target("gfx950", 200)


MI355X = SimpleNamespace(compute_capability="gfx950:sramecc+:xnack-", core_count=256)
MI308X = SimpleNamespace(compute_capability="gfx942:sramecc+:xnack-", core_count=80)
H200 = SimpleNamespace(compute_capability="9.0", core_count=132)
CPU = SimpleNamespace(platform="cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU of each kind."""
    monkeypatch.setattr(jax, "devices", lambda name: {"rocm": [MI355X], "cuda": [H200]}[name])


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([MI308X, MI355X], Target("gfx942", 80)),
        ([CPU, H200, MI308X], Target("gfx942", 80)),  # of the platform that is lowered for
        ([CPU], Target("gfx950", 256)),
        ([], Target("gfx950", 256)),
    ],
)
def test_then_the_meshs_devices_then_the_default(
    devices: list[jax.Device], expected: Target
) -> None:
    assert resolve(None, "rocm", devices) == expected


@pytest.mark.usefixtures("machine")
def test_cuda() -> None:
    assert resolve(None, "cuda", (MI308X,)) == Target("sm_90", 132)  # type: ignore[arg-type]


def test_the_meshs_devices_where_the_platform_is_not_here() -> None:
    assert resolve(None, "rocm", (MI308X,)) == Target("gfx942", 80)  # type: ignore[arg-type]


def test_lowering_asks_the_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases.make(8)
    monkeypatch.setattr(jax_mla.target, "_from_device", lambda device, _: FAKES[device.id])
    mesh = jax.sharding.Mesh(jax.devices()[1:2], "x")
    decode = functools.partial(jax_mla.decode, **case.options, implementation="asm")
    step = jax.jit(jax.shard_map(decode, mesh=mesh, in_specs=jax.P(), out_specs=jax.P()))
    lowered = step.trace(*case.operands).lower(lowering_platforms=("rocm",))
    (call,) = ir.custom_calls(lowered)
    assert call.attributes["arch"] == '"gfx950"'
    assert call.attributes["compute_units"] == "201 : i64"


FAKES = [Target("gfx942", 101), Target("gfx950", 201)]


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
