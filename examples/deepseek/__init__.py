# SPDX-License-Identifier: Apache-2.0
"""A DeepSeek-V2/V3 decoder in plain JAX that serves Hugging Face checkpoints with jax_mla."""
