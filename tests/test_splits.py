# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_mla import Target, asm
from jax_mla.call import Call, Unserved
from jax_mla.splits import default_num_kv_splits

BF16 = jnp.dtype(jnp.bfloat16)


def call(heads: int = 16, q_len: int = 1, batch: int = 1, tokens: int = 8192) -> Call:
    return Call(
        batch=batch,
        q_len=q_len,
        heads=heads,
        width=576,
        latent_dim=512,
        num_pages=1024,
        page_size=16,
        pages_per_seq=-(-tokens // 16),
        q_dtype=BF16,
        kv_dtype=BF16,
    )


@pytest.mark.parametrize(
    ("batch", "capacity", "units", "splits"),
    [(1, 65536, 304, 64), (32, 65536, 304, 19), (4096, 65536, 304, 2), (1, 100, 304, 2),
     (1, 1024, 304, 16), (0, 64, 1, 2), (1, 65536, 80, 64)],
)  # fmt: skip
def test_the_formula(batch: int, capacity: int, units: int, splits: int) -> None:
    assert default_num_kv_splits(batch, capacity, compute_units=units) == splits


@given(
    batch=st.integers(0, 2**20),
    capacity=st.integers(1, 2**24),
    units=st.sampled_from([1, 4, 80, 256, 304]) | st.integers(1, 1024),
    block=st.sampled_from([16, 32, 64, 128]),
)
def test_it_is_total(batch: int, capacity: int, units: int, block: int) -> None:
    splits = default_num_kv_splits(batch, capacity, compute_units=units, kv_block=block)
    assert 2 <= splits <= 64
    assert splits == 2 or (splits - 1) * block < capacity  # no split but the second is idle


@settings(max_examples=300)
@given(
    heads=st.integers(1, 128),
    q_len=st.integers(1, 4),
    batch=st.integers(1, 2**16),
    tokens=st.integers(1, 2**20),
    units=st.sampled_from([1, 4, 80, 256, 304]),
    mode=st.sampled_from(["split", "persistent"]),
)
def test_the_workspace_fits_or_its_size_is_named(
    heads: int, q_len: int, batch: int, tokens: int, units: int, mode: str
) -> None:
    """For every heads * q_len up to 512."""
    one = call(heads, q_len, batch, tokens)
    try:
        plan = asm.plan(one, Target("gfx942", units), mode=mode)
    except Unserved as error:
        if "q_len" not in str(error):
            size = int(str(error).split("got ")[1])
            assert "workspace below 2**32 bytes" in str(error) and size >= 2**32
        return
    assert plan.num_kv_splits >= 1
    assert 0 < plan.workspace_bytes < 2**32
    partials = plan.partials * plan.heads.group_heads * q_len * 513 * 4
    assert plan.workspace_bytes == partials + (256 if mode == "persistent" else 0)
    assert plan.partials >= batch * plan.heads.groups


def test_a_fixed_number_is_taken_as_it_is() -> None:
    """Whatever the batch: that is what makes results independent of it."""
    for batch in (1, 7, 300):
        for splits in (1, 2, 5, 64, 133):
            plan = asm.plan(call(batch=batch), Target("gfx942", 304), num_kv_splits=splits)
            assert plan.num_kv_splits == splits


@pytest.mark.parametrize(
    ("options", "plan_options", "message"),
    [
        ({"q_dtype": jnp.dtype(jnp.float8_e4m3fnuz), "kv_dtype": jnp.dtype(jnp.float8_e4m3fnuz)},
         {"num_kv_splits": 1}, "num_kv_splits of at least 2 .* got 1"),
        ({}, {"num_kv_splits": 4, "mode": "persistent"}, "expected num_kv_splits None .* got 4"),
        ({"num_pages": 2**20, "page_size": 17}, {}, "at most 2.*24 tokens in the cache, got 17825"),
        ({"num_pages": 2**22, "page_size": 1}, {}, "at most 2.*32 bytes, got 4831838208"),
        ({"batch": 0}, {}, "at least one sequence, got 0"),
        ({"batch": "b"}, {"mode": "persistent"}, "static batch and capacity, got b and 8192"),
    ],
)  # fmt: skip
def test_what_cannot_be_served(
    options: dict[str, object], plan_options: dict[str, object], message: str
) -> None:
    one = dataclasses.replace(call(), **options)  # type: ignore[arg-type]
    with pytest.raises(Unserved, match=message):
        asm.plan(one, Target("gfx942", 304), **plan_options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("pages", "served"), [(3_728_270, True), (3_728_271, False)])
def test_the_last_cache_that_32_bits_reach(pages: int, served: bool) -> None:
    one = dataclasses.replace(call(), num_pages=pages, page_size=1)
    if served:
        asm.plan(one, Target("gfx942", 304))
    else:
        with pytest.raises(Unserved, match="got 4294968192"):
            asm.plan(one, Target("gfx942", 304))
