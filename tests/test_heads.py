# SPDX-License-Identifier: Apache-2.0
import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_mla import Target, heads, kernels
from jax_mla.call import Unserved
from jax_mla.heads import HeadPlan

BF16, FN, FNUZ = map(jnp.dtype, (jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e4m3fnuz))
MI300X, MI355X = Target("gfx942", 304), Target("gfx950", 256)


def plan(
    count: int, *, target: Target = MI300X, q: Any = BF16, kv: Any = None, **options: Any
) -> tuple[kernels.Kernel, HeadPlan]:
    q_len, mode = options.pop("q_len", 1), options.pop("mode", "split")
    return heads.plan(target, count, q_len, q, q if kv is None else kv, mode, **options)


@st.composite
def plans(draw: Any) -> HeadPlan:
    """Any plan that some kernel could ask for."""
    count = draw(st.integers(1, 128))
    size = draw(st.sampled_from([16, 32, 64, 128]))
    one = dataclasses.replace(kernels.TABLE[0], heads=size)
    return heads.plan(MI300X, count, 1, BF16, BF16, "split", table=(one,))[1]


@settings(max_examples=20)
@given(plans())
def test_undo_of_apply_changes_nothing(plan: HeadPlan) -> None:
    shape = (2, 3, plan.heads, 2)
    q = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    laid_out = np.asarray(plan.apply(jnp.asarray(q)))
    assert laid_out.shape == (plan.groups * 2, 3, plan.group_heads, 2)
    np.testing.assert_array_equal(plan.undo(jnp.asarray(laid_out)), q)
    np.testing.assert_array_equal(plan.undo(jnp.asarray(laid_out[..., 0])), q[..., 0])

    # Group g of sequence b, row r is head (g * rows + r) / stride, or padding.
    rows = laid_out.reshape(plan.groups, 2, 3, plan.group_heads, 2)
    rows = np.moveaxis(rows, 0, 2).reshape(2, 3, plan.padded_heads, 2)
    if plan.head_stride > 1:
        np.testing.assert_array_equal(rows, np.repeat(q, plan.head_stride, axis=2))
    else:
        np.testing.assert_array_equal(rows[:, :, : plan.heads], q)
        assert not rows[:, :, plan.heads :].any()


@pytest.mark.parametrize("count", range(1, 129))
def test_undo_of_apply_for_every_count(count: int) -> None:
    _, layout = plan(count)
    q = jnp.arange(2 * count * 3, dtype=jnp.float32).reshape(2, 1, count, 3) + 1
    np.testing.assert_array_equal(layout.undo(layout.apply(q)), q)


@pytest.mark.parametrize(
    ("count", "rows", "stride", "kind"),
    [(1, 16, 16, "pad"), (2, 16, 8, "pad"), (3, 16, 1, "pad"), (4, 16, 4, "pad"),
     (8, 16, 2, "pad"), (12, 16, 1, "pad"), (16, 16, 1, "native"), (17, 32, 1, "pad"),
     (20, 32, 1, "pad"), (24, 32, 1, "pad"), (32, 32, 1, "native"), (40, 64, 1, "pad"),
     (48, 64, 1, "pad"), (64, 64, 1, "native"), (96, 128, 1, "pad"), (128, 128, 1, "native")],
)  # fmt: skip
def test_padded_by_count_never_by_ratio(count: int, rows: int, stride: int, kind: str) -> None:
    """bf16 in split mode has kernels of 16, 32, 64 and 128 heads."""
    kernel, layout = plan(count)
    assert (layout.padded_heads, layout.head_stride, layout.kind) == (rows, stride, kind)
    assert layout.groups == 1 and kernel.heads == rows
    assert layout.extra_bytes == (rows - count) * 576 * 2


@pytest.mark.parametrize(
    ("count", "rows", "groups"),
    [(4, 16, 1), (16, 16, 1), (17, 32, 2), (24, 32, 2), (32, 32, 2), (96, 96, 6), (128, 128, 8)],
)
def test_groups_where_there_is_no_larger_kernel(count: int, rows: int, groups: int) -> None:
    """bf16 in persistent mode on MI300X has the kernel of 16 heads alone."""
    kernel, layout = plan(count, mode="persistent")
    assert kernel.heads == 16
    assert (layout.padded_heads, layout.groups, layout.group_heads) == (rows, groups, 16)
    assert ("read the cache" in layout.reason) == (groups > 1)


def test_what_no_run_has_shown_to_be_right_is_not_chosen() -> None:
    for evidence in ("doubtful", "disassembly"):
        table = tuple(dataclasses.replace(k, evidence=evidence) for k in kernels.TABLE)
        with pytest.raises(Unserved, match="only kernels that no run has shown to be right"):
            plan(4, table=table)
    small, *others = (k for k in kernels.TABLE if k.mode == "split" and k.q_dtype == "bf16")
    doubted = dataclasses.replace(small, evidence="doubtful")
    assert plan(4)[0] == small
    assert plan(4, table=(doubted, *others))[0].heads == 32


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ({}, "mla_dec_stage1_bf16_a16w16_subQ16_mqa16"),
        ({"target": MI355X}, "mla_dec_stage1_bf16_a16w16_subQ16_mqa16"),
        ({"mode": "persistent", "q_len": 3}, "mla_a16w16_qh16_m16x4_n16x1_coex0_mask1_ps"),
        (
            {"mode": "persistent", "q_len": 4, "target": MI355X},
            "mla_a16w16_qh16_m16x4_n16x1_coex0_mask1_ps",
        ),
        (
            {"q": BF16, "kv": FNUZ, "mode": "persistent"},
            "mla_a16w8_qh16_m16x4_n16x1_coex0_mask1_ps",
        ),
        ({"q": FNUZ}, "mla_a8w8_qh16_qseqlen1_gqaratio16"),
        ({"q": FN, "target": MI355X}, "mla_a8w8_qh16_qseqlen1_gqaratio16"),
        (
            {"q": FN, "target": MI355X, "mode": "persistent", "q_len": 4},
            "mla_a8w8_qh32_qseqlen4_gqaratio32_ps",  # the one for 16 heads is doubtful
        ),
    ],
)
def test_the_kernel_of_a_cell(options: dict[str, Any], file: str) -> None:
    assert plan(4, **options)[0].file == file


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv": FNUZ}, "no kernel for bf16 q on a fp8 cache in mode 'split' with q_len 1 on gfx942 "
                       r"\(it serves: mode 'persistent' with q_len 1, 2, 3, 4\)"),
        ({"q_len": 9}, "no kernel for bf16 q .* with q_len 9"),
        ({"q": jnp.dtype(jnp.float16)}, r"no kernel for float16 q .*\(it serves: none\)"),
        ({"target": Target("gfx90a", 104)}, r"on gfx90a \(it serves: none\)"),
    ],
)  # fmt: skip
def test_cells_without_a_kernel(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Unserved, match=message):
        plan(4, **options)


@pytest.mark.parametrize(("target", "q"), [(MI300X, BF16), (MI355X, BF16), (MI300X, FNUZ)])
@pytest.mark.parametrize("count", [1, 5, 16])
def test_rows_are_not_padded(count: int, target: Target, q: Any) -> None:
    _, layout = plan(count, target=target, q=q, head_plan="rows")
    assert (layout.padded_heads, layout.head_stride, layout.groups) == (count, 1, 1)
    assert layout.kind == "rows" and layout.extra_bytes == 0
    x = jnp.ones((1, 1, count, 8))
    assert layout.apply(x) is x


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (17, {}, "32mx1_16nx1_Coex0_Msk1_QH16 takes head_plan 'pad', got 17 heads"),
        (4, {"q": FN, "target": MI355X}, "takes head_plan 'pad'"),
        (4, {"mode": "persistent"}, "takes head_plan 'pad'"),
    ],
)
def test_rows_that_no_kernel_takes(count: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Unserved, match=f"head_plan='rows': .*{message}"):
        plan(count, head_plan="rows", **options)
