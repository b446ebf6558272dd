# SPDX-License-Identifier: Apache-2.0
"""What AITER's kernels do that a caller has to know: avoided, and wrong where it is not.

Each test makes the call as decode makes it, which is right, and once more with one thing undone.
"""

from typing import Any

import asm_call
import cases
import compare
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from emulator.runtime import Runtime

import jax_mla
from jax_mla import aiter, kernels
from jax_mla.target import resolve

pytestmark = [pytest.mark.rocm, pytest.mark.usefixtures("aiter_kernels")]


def fp8() -> str:
    return "fp8fnuz" if resolve(None, "rocm").arch == "gfx942" else "fp8fn"


def make(q_len: int = 1, dtypes: str = "bf16", lengths: tuple[int, ...] = (70, 10)) -> cases.Case:
    return cases.make(4, q_len, 16, dtypes, lengths, capacity=160, first_row=True)


def is_right(case: cases.Case, call: dict[str, Any]) -> bool:
    """Against float64; P is rounded to an 8-bit float where q is one."""
    out, lse, _ = asm_call.run(call)
    expected_out, expected_lse = oracle.decode(case)
    if case.q.dtype.itemsize == 1:
        error = np.abs(out.astype(np.float64) - expected_out).max()
        bound = 8e-2 * np.abs(expected_out).max()
        unseen = np.isneginf(expected_lse)
        return bool(error <= bound) and np.allclose(lse[~unseen], expected_lse[~unseen], atol=1e-3)
    try:
        compare.assert_close(out, lse, expected_out, expected_lse)
    except AssertionError:
        return False
    return True


def works(*works: tuple[int, ...], units: int) -> dict[str, Any]:
    """A plan in which the first unit has all works of (sequence, query rows, keys, keys after)."""
    rows = [
        (sequence, slot * (q_end - q_begin), q_begin, q_end, begin, end, after, 0)
        for slot, (sequence, q_begin, q_end, begin, end, after) in enumerate(works)
    ]
    return {
        "work_indptr": jnp.array([0] + [len(works)] * units, jnp.int32),
        "work_info": jnp.array(rows, jnp.int32),
    }


def persistent(case: cases.Case, *plan: tuple[int, ...], counts: list[int]) -> dict[str, Any]:
    """The call of a case with these works, `counts` of each sequence."""
    units = len(plan) - len(case.lengths) + 1
    rows = len(plan) * case.q.shape[1] * 16
    return asm_call.of(case, mode="persistent") | {
        **works(*plan, units=units),
        "reduce_indptr": jnp.array([0, *np.cumsum(counts)], jnp.int32),
        "workspace": asm_call.workspace(rows, extra=256),
    }


def test_a_split_without_keys_is_not_written() -> None:
    """Blocks of 64 tokens are dealt out in turn: of 70 and 10 tokens, to two and to one of five."""
    case = make()
    call = asm_call.of(case, num_kv_splits=5)
    assert is_right(case, call)
    assert not is_right(case, call | {"kv_block": np.int64(13)})  # then five seem to have some


def test_a_split_that_a_query_does_not_see_holds_no_number() -> None:
    """Of 65 tokens the second block of 64 has one, which the first of two queries does not see."""
    case = make(q_len=2, dtypes=fp8(), lengths=(65,))
    call = asm_call.of(case, num_kv_splits=2)
    assert call["kv_block"] == 64
    assert is_right(case, call)
    assert not is_right(case, call | {"kv_block": np.int64(63)})


@pytest.mark.parametrize("mode", ["split", "persistent"])
def test_queries_before_the_sequence_began(mode: str) -> None:
    """Two tokens and four queries: what the kernels leave for the first two is not looked at."""
    case = make(q_len=4, lengths=(2, 40))
    call = asm_call.of(case, mode=mode)
    assert is_right(case, call)
    assert not is_right(case, call | {"lengths": jnp.array([4, 40], jnp.int32)})


def test_an_empty_work_ends_the_workgroup() -> None:
    """So a sequence without keys has none."""
    case = make(lengths=(0, 40, 60))
    assert is_right(case, asm_call.of(case, mode="persistent"))
    two = ((1, 1, 2, 0, 40, 0), (2, 2, 3, 40, 100, 0))
    nothing = (0, 0, 1, 0, 0, 0)
    last = (2, 2, 3, 40, 100, 0)
    assert is_right(case, persistent(case, *two, last, counts=[0, 1, 1]))
    assert not is_right(case, persistent(case, nothing, *two, counts=[1, 1, 1]))


def test_a_work_shorter_than_the_queries() -> None:
    """The first of four queries sees nothing of the last two tokens, and is not masked for it."""
    case = make(q_len=4, lengths=(66,))
    assert is_right(case, asm_call.of(case, mode="persistent"))

    def cut(at: int) -> dict[str, Any]:
        return persistent(case, (0, 0, 4, 0, at, 66 - at), (0, 0, 4, at, 66, 0), counts=[2])

    assert is_right(case, cut(48))
    assert not is_right(case, cut(64))


def test_the_first_row_of_the_pool_is_read() -> None:
    """For slots past the end, with weight 0: any number will do, but NaN spreads."""
    case = make()
    assert not (case.page_indices[:, :5] == 0).any(), "row 0 should be in nobody's table"
    call = asm_call.of(case)
    assert is_right(case, call)
    first = asm_call.run(call)[:2]
    pool = call["kv_pages"].at[0, 0].set(1e4)
    for a, b in zip(asm_call.run(call | {"kv_pages": pool}), first, strict=False):
        np.testing.assert_array_equal(a, b)
    pool = call["kv_pages"].at[0, 0].set(jnp.nan)
    assert not is_right(case, call | {"kv_pages": pool})
    cache = jax_mla.init_cache(2, 16)
    assert not np.asarray(cache).any()


@pytest.mark.parametrize("q_len", [1, 4])
def test_kv_scale_is_applied_once(q_len: int) -> None:
    """One kernel leaves it to its caller."""
    case = make(q_len=q_len, dtypes=fp8())
    call = asm_call.of(case, mode="persistent")
    assert call["scale_out"] == (resolve(None, "rocm").arch == "gfx942" and q_len == 4)
    assert is_right(case, call)
    assert not is_right(case, call | {"scale_out": not call["scale_out"]})


def test_one_split_has_another_form() -> None:
    """With one split most kernels write the output itself, in bfloat16, and no log-sum-exp."""
    case = make(dtypes=fp8())
    with pytest.raises(NotImplementedError, match="num_kv_splits of at least 2"):
        jax_mla.decode(
            *case.operands, **case.options, implementation="asm", num_kv_splits=1
        )  # fmt: skip
    call = asm_call.of(case, num_kv_splits=2)
    assert is_right(case, call)
    one = {
        "num_kv_splits": np.int64(1),
        "num_kv_splits_indptr": jnp.arange(3, dtype=jnp.int32)[None],
        "workspace": asm_call.workspace(2 * 16),
    }
    assert not is_right(case, call | one)


def test_groups_of_heads_are_launches_of_their_own(platform: str) -> None:
    """In one grid the 16-row kernels write over one another's log-sum-exp, in any order."""
    if not platform.startswith("emulated"):
        pytest.skip("asks the emulator")
    case = cases.make(20, 1, 16, "bf16", (70, 10), capacity=160, first_row=True)
    kernel = kernels.select(
        resolve(None, "rocm").arch, case.q.dtype, case.kv_pages.dtype, "split", 1, heads=16
    )
    rows = jnp.pad(case.q, ((0, 0), (0, 0), (0, 12), (0, 0)))
    groups = asm_call.of(case, num_kv_splits=2) | {
        "q": rows.reshape(2, 1, 2, 16, 576).transpose(2, 0, 1, 3, 4).reshape(4, 1, 16, 576),
        "qo_indptr": jnp.arange(5, dtype=jnp.int32)[None],
        "padded_heads": np.int64(32),
        "code_object": aiter.find(kernel).sha256,
        "workgroup_rows": np.int64(16),
        "row_argument": np.int64(16),
        "kv_block": np.int64(kernel.kv_block),
        "workspace": asm_call.workspace(2 * 2 * 32),
    }
    assert is_right(case, groups)
    together = groups | {
        "q": rows,
        "qo_indptr": jnp.arange(3, dtype=jnp.int32)[None],
        "row_argument": np.int64(32),
    }
    assert times_written(together) > times_written(groups)


def times_written(call: dict[str, Any]) -> float:
    """How often stage 1 writes each log-sum-exp of its partial results."""
    with Runtime().recording() as records:
        asm_call.run(call)
    traffic = [launch.counters.traffic for launch in records.launches]
    written = [t["partial_lse"] for t in traffic if "kv_pages" in t]
    return sum(t.written_total for t in written) / sum(t.written_distinct for t in written)


def test_a_work_is_masked_by_its_place_in_q() -> None:
    """Which is not its sequence's number where there are several groups of heads."""
    if resolve(None, "rocm").arch != "gfx950":
        pytest.skip("kernels of gfx950 alone look the place up in qo_indptr")
    case = cases.make(128, 2, 16, "bf16", (40, 33), capacity=48, first_row=True)
    call = asm_call.of(case, mode="persistent")
    assert call["q"].shape[0] == 4  # two groups
    assert is_right(case, call)
    sequences = call["work_info"].at[:, 0].set(call["work_info"][:, 0] % 2)
    assert not is_right(case, call | {"work_info": sequences})


def test_eight_heads_are_padded() -> None:
    """The kernels for 8 write float32 where one split leaves room for bfloat16."""
    assert min(kernel.heads for kernel in kernels.TABLE) == 16
    denied = [kernel for kernel in kernels.DENIED if "qh8_" in kernel.file]
    assert denied and {kernel.arch for kernel in denied} == set(kernels.ARCHES)
    case = cases.make(8, 1, 16, "bf16", (70, 10), capacity=160, first_row=True)
    call = asm_call.of(case)
    assert call["padded_heads"] == 16 and is_right(case, call)


def test_another_code_object_of_the_same_name_is_not_used() -> None:
    """The call names it by its content."""
    case = make()
    wrong = {"code_object": asm_call.NO_SUCH_CODE}
    with pytest.raises(jax.errors.JaxRuntimeError, match="not found or is not trusted"):
        asm_call.run(asm_call.of(case) | wrong)
