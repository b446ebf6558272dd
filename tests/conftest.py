# SPDX-License-Identifier: Apache-2.0
"""Eight virtual CPU devices, asked for before anything imports JAX; and the choice of platform."""

import itertools
import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import platforms  # before JAX: decides which plugins it finds

# isort: split
from collections.abc import Iterator

import hypothesis
import jax
import pytest

from jax_mla import aiter, native
from jax_mla.target import resolve

# The same examples every time, so that a gate does not change on its own (others are drawn with
# --hypothesis-profile=explore); a loaded machine is slow, not wrong.
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.register_profile("gate", deadline=None, derandomize=True)
hypothesis.settings.load_profile("gate")

_TESTS = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--platform", default="cpu", help=platforms.HELP)


def pytest_cmdline_main(config: pytest.Config) -> None:
    platforms.restart_if_emulated(config)


def pytest_configure(config: pytest.Config) -> None:
    platforms.choose(config)


def pytest_report_header(config: pytest.Config) -> str:
    return f"platform: {platforms.description(config)}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    platforms.select(config, items)


@pytest.fixture(autouse=True)
def few_programs() -> Iterator[None]:
    """Each compiled program holds memory maps; past Linux's 65530, some 700 programs, XLA dies."""
    yield
    if next(_TESTS) % 200 == 0:
        jax.clear_caches()


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def platform(pytestconfig: pytest.Config) -> str:
    """The platform's description, as in the header."""
    return platforms.description(pytestconfig)


@pytest.fixture(scope="session")
def aiter_kernels() -> None:
    """Skips where AITER's kernels, or stand-ins for them, cannot be launched."""
    if ("rocm", "asm") not in native.LAUNCHES:
        pytest.skip(native.ABSENT or "built without device code")
    if absent := aiter.discover(resolve(None, "rocm").arch).absent:
        pytest.skip(absent)
