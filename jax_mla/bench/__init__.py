# SPDX-License-Identifier: Apache-2.0
"""Times decode: `python -m jax_mla bench`."""
