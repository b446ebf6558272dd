# SPDX-License-Identifier: Apache-2.0
"""Reads what a program was lowered to."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax

import jax_mla

Shape = tuple[tuple[int, ...], str]


@dataclasses.dataclass(frozen=True)
class Call:
    """A custom call of this package; plain data, because the program owns its operations.

    Attributes:
      target: name of the call.
      operands: shape and element type of each operand.
      results: shape and element type of each result.
      attributes: name to value and type as StableHLO prints them, e.g. "16 : i64".
      sources: name of the operation that each operand comes from, "argument" if from none.
      values: what tells the operands of several calls apart.
      users: names of the operations that use the results.
    """

    target: str
    operands: list[Shape]
    results: list[Shape]
    attributes: dict[str, str]
    sources: list[str]
    values: list[str]
    users: list[str]


def operations(lowered: Any) -> list[str]:
    """The name of every StableHLO operation, the bodies of others included."""
    return [op.name for op in _walk(lowered.compiler_ir("stablehlo").operation)]


def custom_calls(lowered: Any, prefix: str = "jax_mla_decode_") -> list[Call]:
    """Those of this package whose targets begin with `prefix`."""
    module = lowered.compiler_ir("stablehlo")
    return [
        _call(op)
        for op in _walk(module.operation)
        if op.name == "stablehlo.custom_call"
        and op.attributes["call_target_name"].value.startswith(prefix)
    ]


def lower(case: Any, *platforms: str, **options: Any) -> Any:
    """decode on a case, lowered for platforms that need not be there."""
    options = case.options | {"return_residuals": True} | options
    step = jax.jit(functools.partial(jax_mla.decode, **options))
    return step.trace(*case.operands).lower(lowering_platforms=platforms)


def _walk(op: Any) -> Iterator[Any]:
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield inner.operation
                yield from _walk(inner.operation)


def _call(op: Any) -> Call:
    return Call(
        target=op.attributes["call_target_name"].value,
        operands=[_shape(v) for v in op.operands],
        results=[_shape(v) for v in op.results],
        attributes={a.name: str(a.attr) for a in op.attributes["mhlo.backend_config"]},
        sources=[getattr(v.owner, "name", "argument") for v in op.operands],
        values=[v.get_name() for v in op.operands],
        users=[use.owner.name for v in op.results for use in v.uses],
    )


def _shape(value: Any) -> Shape:
    return tuple(value.type.shape), str(value.type.element_type)
