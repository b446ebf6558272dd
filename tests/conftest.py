# SPDX-License-Identifier: Apache-2.0
"""Eight virtual CPU devices, asked for before anything imports JAX."""

import itertools
import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

from collections.abc import Iterator

import jax
import pytest

_TESTS = itertools.count(1)


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
