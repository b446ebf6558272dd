# SPDX-License-Identifier: Apache-2.0
"""Every row of the table of AITER's kernels that is said to have run, run: the table's evidence.

AITER's code objects on the emulated GPU, against float64. Set JAX_MLA_AITER_DIR to the `hsa` folder
of an AITER checkout.
"""

from pathlib import Path

import aiter_decode
import pytest
from aiter_decode import (
    Errors,
    Problem,
    launch_split,
    of_row,
    run_persistent,
    run_split,
    untouched,
)
from emulator.machine import Fault

from jax_mla import kernels

pytestmark = pytest.mark.skipif(
    aiter_decode.folder() is None, reason="no AITER: JAX_MLA_AITER_DIR names no hsa folder"
)
ROWS = [(k, q_len) for k in kernels.TABLE for q_len in k.q_lens]


def worst(k: kernels.Kernel, q_len: int, root: Path | None = None) -> Errors:
    """Lengths around multiples of the block, many blocks, ragged; cuts at and off the block."""
    kernel, block, more = of_row(k, q_len, root), k.kv_block, q_len - 1
    errors = Errors()
    if k.mode == "split":
        splits = [([1, block - 1, block], k.min_splits), ([block + 1, 10 * block + 7, 17], 2)]
        splits += [([1000, 3 * block], 3), ([257], 7)]
        for seed, (lengths, count) in enumerate(splits):
            lengths = [length + more for length in lengths]
            errors.include(run_split(kernel, lengths, count, seed))
        return errors
    works = [([1, block, 1000], [[], [], []], 2), ([10 * block + 7], [[]], 1)]
    works += [([block + 1, 700], [[], [block, 3 * block + 5]], 3)]
    works += [([2 * block, 333], [[block], [16]], 1)]
    for seed, (lengths, cuts, slots) in enumerate(works):
        lengths = [length + more for length in lengths]
        errors.include(run_persistent(kernel, lengths, cuts, slots, seed))
    return errors


@pytest.mark.parametrize(
    ("k", "q_len"),
    ROWS,
    ids=[f"{k.arch}-{k.file}-{k.heads}x{q_len}" for k, q_len in ROWS],
)
def test_row(k: kernels.Kernel, q_len: int) -> None:
    if k.evidence == "doubtful":
        with pytest.raises((AssertionError, Fault)):
            check(k, worst(k, q_len))
    else:
        check(k, worst(k, q_len))


def check(k: kernels.Kernel, errors: Errors) -> None:
    # P is rounded to bfloat16 or float8 on the way to its product, final outputs to bfloat16.
    limit = 6e-3 if k.q_dtype == "bf16" else 8e-2
    assert errors.out <= limit and errors.merged <= limit and errors.lse <= 2e-5, errors


@pytest.mark.parametrize("arch", kernels.ARCHES)
def test_a_group_of_heads_writes_into_the_others(arch: str) -> None:
    """So groups are launches of their own: in one, which value stays is a matter of order."""
    kernel = aiter_decode.Kernel(arch, "mla_dec_stage1_bf16_a16w16_subQ16_mqa16", heads=64)
    outputs = launch_split(Problem(kernel, [300], seed=0), 2)  # one workgroup, for rows 0 to 15
    assert untouched(outputs["partial"][:, :, 16:])
    assert not untouched(outputs["partial_lse"][:, :, 16:])
