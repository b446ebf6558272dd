# SPDX-License-Identifier: Apache-2.0
"""Multi-head latent attention (MLA) decode for JAX on AMD Instinct GPUs."""

from jax_mla.cache import append, check, init_cache
from jax_mla.decode import decode
from jax_mla.explain import Explanation, explain
from jax_mla.metadata import DecodeMetadata, from_csr, make_metadata
from jax_mla.reference import reference
from jax_mla.sharding import merge_over
from jax_mla.target import Target

__version__ = "0.1.0"

__all__ = [
    "DecodeMetadata",
    "Explanation",
    "Target",
    "append",
    "check",
    "decode",
    "explain",
    "from_csr",
    "init_cache",
    "make_metadata",
    "merge_over",
    "reference",
]
