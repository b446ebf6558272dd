# SPDX-License-Identifier: Apache-2.0
"""Differences between the supported JAX versions; every other module is written for the newest."""

from typing import Any

import jax


def varying_axes(x: jax.Array) -> frozenset[str]:
    """The shard_map axes that `x` is known to vary over; empty outside of shard_map."""
    aval: Any = jax.typeof(x)
    if hasattr(aval, "manual_axis_type"):
        return frozenset(aval.manual_axis_type.varying)
    return frozenset(aval.vma)  # jax < 0.10


def vary_over(x: jax.Array, axes: frozenset[str]) -> jax.Array:
    """`x`, marked as varying over `axes` as well."""
    missing = tuple(sorted(axes - varying_axes(x)))
    if not missing:
        return x
    lax: Any = jax.lax
    varied: jax.Array = (
        lax.pcast(x, missing, to="varying")
        if hasattr(lax, "pcast")
        else lax.pvary(x, missing)  # jax < 0.8.2
    )
    return varied


def mesh_devices(ctx: Any) -> tuple[jax.Device, ...]:
    """The devices of the mesh that a lowering rule is inside of; elsewhere JAX does not tell."""
    mesh = getattr(ctx.module_context.axis_context, "mesh", None)
    return tuple(mesh.devices.flat) if isinstance(mesh, jax.sharding.Mesh) else ()
