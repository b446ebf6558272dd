# SPDX-License-Identifier: Apache-2.0
"""Decode across devices: what `jax.shard_map` leaves to do, and a warning where it is missing."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import mlir

from jax_mla import compat


def merge_over(axis_name: str, out: jax.Array, lse: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Merges attention over parts of the keys that lie on different devices (context parallel).

    Call it inside `jax.shard_map` on the results of `decode(..., return_residuals=True)`, where
    each device holds a part of every sequence's keys and lengths counts the local ones. Right for
    q_len 1, where every local key is visible.

    Args:
      axis_name: mesh axis that the keys are spread over.
      out: `[..., latent_dim]`.
      lse: float32 `[...]`, -inf where this device had no key.

    Returns:
      out and lse over all keys, the same on every device of the axis.
    """
    out, lse = (compat.vary_over(x, frozenset({axis_name})) for x in (out, lse))
    best = lax.pmax(lax.stop_gradient(lse), axis_name)
    best = jnp.where(best == -jnp.inf, 0.0, best)
    weight = jnp.exp(lse - best)
    total = lax.psum(weight, axis_name)
    merged = lax.psum(out.astype(jnp.float32) * weight[..., None], axis_name)
    merged = merged / jnp.where(total == 0.0, 1.0, total)[..., None]
    return merged.astype(out.dtype), best + jnp.log(total)


def lower_fun(fun: Callable[..., Any]) -> Callable[..., Any]:
    """`mlir.lower_fun` for functions with several results, on meshes with explicit axes as well.

    There every operation must say how its result is sharded, which the inside of a kernel cannot.
    It is traced as if nothing were sharded, and the compiler partitions it as it does with
    automatic axes.
    """
    rule = mlir.lower_fun(fun, multiple_results=True)

    def lower(ctx: Any, *args: Any, **params: Any) -> Any:
        unsharded = [
            aval.update(sharding=aval.sharding.update(spec=jax.P(*[None] * aval.ndim)))
            for aval in ctx.avals_in
        ]
        return rule(ctx.replace(avals_in=unsharded), *args, **params)

    return lower


def warn_if_sharded(op: str, **operands: jax.Array) -> None:
    """Warns of operands of `op` that are known to be sharded outside of shard_map."""
    sharded = [name for name, x in operands.items() if _is_sharded(x)]
    if sharded:
        warnings.warn(
            f"{op}: {', '.join(sharded)}: sharded over devices outside of jax.shard_map; a "
            "compiler gathers the operands of a custom call on every device, the cache included. "
            f"Wrap {op} in jax.shard_map with every sharded mesh axis in its specs "
            "(docs/sharding.md).",
            stacklevel=3,
        )


def _is_sharded(x: jax.Array) -> bool:
    if isinstance(x, jax.core.Tracer):
        # Known while tracing only for meshes with explicit axes; inside shard_map axes are manual.
        return any(axis is not None for axis in jax.typeof(x).sharding.spec)
    return isinstance(x, jax.Array) and not x.sharding.is_fully_replicated
