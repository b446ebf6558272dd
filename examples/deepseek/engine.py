# SPDX-License-Identifier: Apache-2.0
"""Serves one batch of sequences: hands out pages, prefills the prompts, decodes token by token."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jax_mla
from deepseek.config import Config
from deepseek.model import Params, Prediction, step

# Prompt tokens a step. Prefill goes through the decode op, which takes any number of queries, to
# keep this example whole; a server runs a prefill kernel over the prompt instead.
CHUNK = 16


def page_table(batch: int, pages_per_seq: int) -> np.ndarray:
    """int32 `[batch, pages_per_seq]`: pages 1.., each handed out once, in shuffled order.

    Page 0 stays zero: some kernels read it, with weight 0, past the end of a row. A server hands
    out pages as sequences grow; the shuffle stands for what its pool looks like after a while.
    """
    pages = 1 + np.random.default_rng(0).permutation(batch * pages_per_seq)
    return pages.reshape(batch, pages_per_seq).astype(np.int32)


def right_aligned(prompts: Sequence[Sequence[int]]) -> np.ndarray:
    """int32 `[batch, length]`, length a multiple of CHUNK: prompts of any length end together."""
    longest = max(map(len, prompts))
    tokens = np.zeros((len(prompts), -(-longest // CHUNK) * CHUNK), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[len(row) - len(prompt) :] = prompt
    return tokens


class Engine:
    """The state of one batch: a paged cache for each layer, and the lengths.

    Attributes:
      compile_seconds: spent on compiling the prefill and the decode step, when it was made.
    """

    def __init__(
        self,
        config: Config,
        params: Params,
        *,
        batch: int,
        capacity: int,
        page_size: int,
        mode: str = "split",
    ):
        pages_per_seq = -(-capacity // page_size)
        self._params = params
        self._page_indices = jnp.asarray(page_table(batch, pages_per_seq))
        self._lengths = np.zeros(batch, np.int32)
        self._caches = [
            jax_mla.init_cache(1 + batch * pages_per_seq, page_size, dtype=params.embedding.dtype)
            for _ in params.layers
        ]
        start = time.perf_counter()
        # Persistent mode is for few queries a sequence.
        self._prefill = self._compile(config, CHUNK, "split")
        self._decode = self._compile(config, 1, mode)
        self.compile_seconds = time.perf_counter() - start

    def prefill(self, prompts: Sequence[Sequence[int]]) -> list[Prediction]:
        """Reads the prompts; one prediction a chunk, of which the last says what comes next."""
        tokens = right_aligned(prompts)
        padding = tokens.shape[1] - np.array([len(prompt) for prompt in prompts], np.int32)
        predictions = []
        for end in range(CHUNK, tokens.shape[1] + 1, CHUNK):
            # A chunk that is all padding for a row leaves its length 0 and its cache alone.
            self._lengths = np.maximum(end - padding, 0).astype(np.int32)
            predictions.append(self._run(self._prefill, jnp.asarray(tokens[:, end - CHUNK : end])))
        return predictions

    def decode(self, tokens: jax.Array) -> Prediction:
        """Appends tokens `[batch]`, and predicts the next ones."""
        self._lengths = self._lengths + 1
        return self._run(self._decode, tokens[:, None])

    def _compile(self, config: Config, q_len: int, mode: str) -> Any:
        tokens = np.zeros((len(self._lengths), q_len), np.int32)
        jitted = jax.jit(step, static_argnums=(0, 6), donate_argnums=2)
        arguments = (self._params, self._caches, tokens, self._lengths, self._page_indices)
        return jitted.lower(config, *arguments, mode).compile()

    def _run(self, compiled: Any, tokens: jax.Array) -> Prediction:
        prediction: Prediction
        prediction, self._caches = compiled(
            self._params, self._caches, tokens, self._lengths, self._page_indices
        )
        return prediction
