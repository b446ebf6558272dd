# SPDX-License-Identifier: Apache-2.0
"""AITER's kernels on four devices: shard_map moves nothing and changes no bit."""

import functools
import re
from typing import Any

import cases
import compare
import jax
import numpy as np
import oracle
import pytest
from emulator.runtime import Runtime
from jax.sharding import NamedSharding

import jax_mla
from jax_mla.kernels import MODES

pytestmark = [pytest.mark.rocm, pytest.mark.usefixtures("aiter_kernels")]

P = jax.P
EVERYWHERE, HEADS, BATCH = P(), P(None, None, "x"), P("x")
# How q, kv_pages, lengths and page_indices lie on the devices, and how out and lse do.
BY_HEADS = ((HEADS, EVERYWHERE, EVERYWHERE, EVERYWHERE), (HEADS, HEADS))
BY_BATCH = ((BATCH, EVERYWHERE, BATCH, BATCH), (BATCH, BATCH))


def decode(
    q: jax.Array, kv_pages: jax.Array, *table: jax.Array, mode: str, **options: Any
) -> tuple[jax.Array, jax.Array]:
    num_pages, page_size, _ = kv_pages.shape
    metadata = jax_mla.make_metadata(
        *table,
        page_size=page_size,
        num_pages=num_pages,
        heads=q.shape[2],
        q_dtype=q.dtype,
        kv_dtype=kv_pages.dtype,
        mode=mode,
    )
    options |= {"metadata": metadata, "return_residuals": True, "implementation": "asm"}
    out, lse = jax_mla.decode(q, kv_pages, *table, **options)
    return out, lse


@pytest.mark.parametrize(
    ("specs", "mode"),
    [(specs, mode) for specs in (BY_HEADS, BY_BATCH) for mode in MODES],
    ids=[f"{what} {mode}" for what in ("heads", "batch") for mode in MODES],
)
def test_four_devices_give_the_bits_of_one(specs: Any, mode: str, platform: str) -> None:
    """Sixteen heads are four each, which every device repeats to the sixteen rows of its kernel.

    A row does not depend on what is in the others, so they are the bits of the unsharded call,
    which pads nothing, wherever sequences are cut alike: by the capacity in split mode, by all
    lengths in persistent mode. There a device with a part of the batch has fewer lengths.
    """
    devices = jax.devices("rocm")
    if len(devices) < 4:
        pytest.skip(f"needs 4 devices, there are {len(devices)}")
    case = cases.make(16, lengths=(192, 0, 77, 33), first_row=True)
    step = functools.partial(decode, mode=mode, **case.options)
    whole = jax.jit(step)(*case.operands)
    compare.assert_close(*map(np.asarray, whole), *oracle.decode(case))

    ins, outs = specs
    mesh = jax.make_mesh((4,), ("x",), devices=devices[:4])
    sharded = jax.shard_map(step, mesh=mesh, in_specs=ins, out_specs=outs)
    operands = [
        jax.device_put(x, NamedSharding(mesh, spec))
        for x, spec in zip(case.operands, ins, strict=True)
    ]
    compiled = jax.jit(sharded).lower(*operands).compile()
    text = compiled.as_text()
    assert not re.findall(r"all-gather|all-reduce|all-to-all|collective-permute", text)
    assert len(re.findall(r'custom_call_target="jax_mla_decode_asm_rocm_v1"', text)) == 1
    parts = compiled(*operands)
    assert [shard.device for shard in parts[0].addressable_shards] == devices[:4]
    compare.assert_close(*map(np.asarray, parts), *oracle.decode(case))
    if specs is BY_HEADS or mode == "split":
        for a, b in zip(parts, whole, strict=True):
            np.testing.assert_array_equal(a, b)
    if platform.startswith("emulated"):
        with Runtime().recording() as records:
            jax.block_until_ready(compiled(*operands))
        merges = [launch for launch in records.launches if "jax_mla_merge" in launch.kernel]
        assert len(merges) == 4 and records.copies == 0
