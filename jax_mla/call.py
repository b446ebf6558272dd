# SPDX-License-Identifier: Apache-2.0
"""What is static about a decode call, and what it means that nothing serves one."""

import dataclasses
from typing import Any

import numpy as np

from jax_mla.target import Target
from jax_mla.validation import is_fp8


class Unserved(NotImplementedError):
    """No kernel for a call; the message is the reason alone, for the caller to put in context."""


@dataclasses.dataclass(frozen=True)
class Call:
    """Static side of a call. batch, num_pages, page_size and pages_per_seq may be symbolic.

    Attributes:
      batch: sequences.
      q_len: query tokens of each.
      heads: query heads.
      width: of a row of q and of the cache.
      latent_dim: leading part of a row that is the value.
      num_pages: pages of the cache.
      page_size: tokens of a page.
      pages_per_seq: width of the page table.
      q_dtype: dtype of q.
      kv_dtype: dtype of the cache.
    """

    batch: Any
    q_len: int
    heads: int
    width: int
    latent_dim: int
    num_pages: Any
    page_size: Any
    pages_per_seq: Any
    q_dtype: np.dtype
    kv_dtype: np.dtype

    @property
    def capacity(self) -> Any:
        """Tokens that a sequence can have."""
        return self.pages_per_seq * self.page_size

    @property
    def token_bytes(self) -> int:
        """Of one token in the cache."""
        return self.width * self.kv_dtype.itemsize

    @property
    def partial_bytes(self) -> int:
        """One float32 partial output and log-sum-exp of one head for every query token."""
        return self.q_len * (self.latent_dim + 1) * 4


def check_fp8(call: Call, target: Target) -> None:
    """Refuses a float8 that is not the target's."""
    for name, dtype in (("q", call.q_dtype), ("kv_pages", call.kv_dtype)):
        if is_fp8(dtype) and dtype != target.fp8_dtype:
            raise Unserved(f"{name}: expected {target.fp8_dtype} on {target.arch}, got {dtype}")
