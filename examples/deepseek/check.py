# SPDX-License-Identifier: Apache-2.0
"""Compares what the engine predicted with the textbook form of the model, in float32."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from deepseek.config import Config
from deepseek.engine import CHUNK, right_aligned
from deepseek.model import Params, Prediction, forward

# The largest error of a logit that rounding explains, as a part of the largest logit.
BOUNDS = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}


class Comparison(NamedTuple):
    """Logits of a run against the reference, over every position that was decoded."""

    error: float  # the largest difference
    largest: float  # the largest logit of the reference

    @property
    def relative(self) -> float:
        return self.error / self.largest


def compare(
    config: Config,
    params: Params,
    prompts: Sequence[Sequence[int]],
    predictions: Sequence[Prediction],
) -> Comparison:
    """Recomputes a run, given all of its predictions, with float32 `params`."""
    tokens = right_aligned(prompts)
    prompt_end = tokens.shape[1]
    first = prompt_end // CHUNK - 1
    decoded = [np.asarray(prediction.token) for prediction in predictions[first:-1]]
    tokens = np.column_stack([tokens, *decoded])
    lengths = np.array([len(prompt) + len(decoded) for prompt in prompts], np.int32)
    chosen = tuple(
        np.concatenate(layer, axis=1)
        for layer in zip(*(p.chosen for p in predictions), strict=True)
    )
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(forward, static_argnums=0)(config, params, tokens, lengths, chosen)
    reference = np.asarray(logits[:, prompt_end - 1 :])
    served = np.stack([np.asarray(p.logits) for p in predictions[first:]], axis=1)
    return Comparison(float(np.abs(served - reference).max()), float(np.abs(reference).max()))
