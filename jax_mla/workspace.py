# SPDX-License-Identifier: Apache-2.0
"""What lies where in the workspace of decode: the numbers of csrc/workspace.h."""

from typing import Any, NamedTuple

_FLOAT = 4


class Workspace(NamedTuple):
    """Offsets into the workspace, in bytes.

    Attributes:
      pointers: of two addresses, in persistent mode; they take 256 bytes, which aligns the rest.
      partial: of float32 `[rows, latent_dim]`.
      partial_lse: of float32 `[rows, weights]`.
      bytes: of all.
    """

    pointers: Any
    partial: Any
    partial_lse: Any
    bytes: Any


def carve(rows: Any, latent_dim: int, *, pointers: bool = False, weights: int = 1) -> Workspace:
    """For `rows` rows of partial results, a number or symbolic.

    `pointers` is for persistent mode. Each row has `weights` numbers for the merge: its
    log-sum-exp, or two that it comes from.
    """
    partial = 256 if pointers else 0
    partial_lse = partial + rows * latent_dim * _FLOAT
    return Workspace(0, partial, partial_lse, partial_lse + rows * weights * _FLOAT)
