# SPDX-License-Identifier: Apache-2.0
"""examples/generate.py's engine on ROCm with AITER's kernels: the CPU's tokens, nothing moved."""

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import demo_checkpoint
from deepseek import checkpoint
from deepseek import config as configs
from deepseek.check import BOUNDS, compare
from deepseek.engine import Engine
from deepseek.model import Prediction

import jax_mla
from jax_mla.kernels import MODES

pytestmark = [pytest.mark.rocm, pytest.mark.usefixtures("aiter_kernels")]

PROMPTS = [list(b"Latent"), list(b"One row a token.")]
NEW_TOKENS = 8
PAGE_SIZE = 8
CAPACITY = max(map(len, PROMPTS)) + NEW_TOKENS


class Run(NamedTuple):
    """What an engine predicted, and the program of its decode step."""

    tokens: np.ndarray  # [batch, NEW_TOKENS]
    predictions: list[Prediction]  # those of the prompts as well
    text: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("demo")
    demo_checkpoint.write(folder)
    return folder


def generate(folder: Path, platform: str, mode: str) -> Run:
    with jax.default_device(jax.devices(platform)[0]):
        config = configs.read(folder)
        params = checkpoint.load(folder, config, config.dtype)
        engine = Engine(
            config,
            params,
            batch=len(PROMPTS),
            capacity=CAPACITY,
            page_size=PAGE_SIZE,
            mode=mode,
        )
        predictions = list(engine.prefill(PROMPTS))
        for _ in range(NEW_TOKENS - 1):
            predictions.append(engine.decode(predictions[-1].token))
    tokens = stack(predictions, "token").T
    return Run(tokens, predictions, engine._decode.as_text())


def stack(predictions: list[Prediction], field: str) -> np.ndarray:
    """Of the new tokens: `[NEW_TOKENS, batch, ..]`."""
    return np.stack([np.asarray(getattr(p, field)) for p in predictions[-NEW_TOKENS:]])


def same_experts(one: Run, other: Run) -> np.ndarray:
    """Whether all layers chose the same for the last position of each: `[NEW_TOKENS, batch]`."""
    chosen = (
        [
            np.concatenate([np.sort(np.asarray(layer)[:, -1]) for layer in p.chosen], axis=-1)
            for p in run.predictions[-NEW_TOKENS:]
        ]
        for run in (one, other)
    )
    a, b = map(np.stack, chosen)
    return (a == b).all(axis=-1)


def calls(text: str, what: str) -> int:
    return len(re.findall(rf'custom_call_target="jax_mla_{what}_rocm_v1"', text))


def moved(text: str, shape: Sequence[int]) -> list[str]:
    """The operations that copy or convert as many numbers as `shape` has, however they lie."""
    found = re.finditer(r"\w+\[([\d,]+)\]\S* (copy|copy-start|convert|transpose)\(", text)
    return [m[0] for m in found if math.prod(map(int, m[1].split(","))) == math.prod(shape)]


@pytest.mark.parametrize("mode", MODES)
def test_eight_greedy_tokens_are_those_of_the_cpu(demo: Path, mode: str) -> None:
    gpu, cpu = (generate(demo, platform, mode) for platform in ("rocm", "cpu"))
    np.testing.assert_array_equal(gpu.tokens, cpu.tokens)
    assert len(set(gpu.tokens.ravel().tolist())) > NEW_TOKENS / 2  # not a constant
    # Rounding may choose another expert: logits are compared where both chose the same, and all of
    # the GPU's with float32 by the experts that it chose.
    alike = same_experts(gpu, cpu)
    assert alike.mean() > 0.9
    logits, others = (stack(run.predictions, "logits") for run in (gpu, cpu))
    error = np.abs(logits - others)[alike].max() / np.abs(others).max()
    assert error < BOUNDS["bfloat16"]
    config = configs.read(demo)
    with jax.default_device(jax.devices("cpu")[0]):
        params = checkpoint.load(demo, config, "float32")
        result = compare(config, params, PROMPTS, gpu.predictions)
    assert result.relative < BOUNDS["bfloat16"]

    layers = demo_checkpoint.CONFIG["num_hidden_layers"]
    assert calls(gpu.text, "decode_asm") == layers
    assert calls(gpu.text, "metadata") == 1
    assert "all-gather" not in gpu.text
    pages = len(PROMPTS) * -(-CAPACITY // PAGE_SIZE) + 1
    assert f"bf16[{pages},{PAGE_SIZE},576]" in gpu.text
    assert not moved(gpu.text, (pages, PAGE_SIZE, 576))


def test_a_cache_that_is_copied_is_noticed() -> None:
    """Where the caller keeps it, for one."""
    pool = jax_mla.init_cache(7, PAGE_SIZE)
    operands = (pool, pool[:2, :1], np.array([1, 2], np.int32), np.array([[1], [2]], np.int32))
    for donated, copies in ((), 1), ((0,), 0):
        step = jax.jit(jax_mla.append, donate_argnums=donated)
        assert len(moved(step.lower(*operands).compile().as_text(), pool.shape)) == copies
