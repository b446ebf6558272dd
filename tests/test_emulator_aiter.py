# SPDX-License-Identifier: Apache-2.0
"""AITER's own decode kernels on the emulated GPU, against float64.

They are right on hardware, so they are the strongest witness there is for matrix instructions,
buffer access and waits. Set JAX_MLA_AITER_DIR to the `hsa` folder of an AITER checkout.
"""

import csv
import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

import aiter_decode
import numpy as np
import pytest
from aiter_decode import (
    Errors,
    Kernel,
    Problem,
    launch_persistent,
    launch_split,
    run_persistent,
    run_split,
    untouched,
)
from emulator.machine import Fault, Machine

ROOT = aiter_decode.folder()
pytestmark = pytest.mark.skipif(ROOT is None, reason="JAX_MLA_AITER_DIR is not set")

with (Path(__file__).parent / "aiter_code_objects.csv").open() as table:
    CODE_OBJECTS = list(csv.DictReader(table))

A8W8 = dict(q="fp8", kv="fp8")
SPLIT_16 = "mla_dec_stage1_bf16_a16w16_subQ16_mqa16"
SPLIT_8 = "mla_a16w16_qh8_qseqlen1_gqaratio8_v3"
PERSISTENT = "mla_a16w16_qh16_m16x4_n16x1_coex0_mask1"
BF16_SPLIT = Kernel("gfx942", SPLIT_16)
FP8_SPLIT = Kernel("gfx942", "mla_a8w8_qh16_qseqlen1_gqaratio16", **A8W8, single_is_bf16=True)


@pytest.mark.parametrize(
    "facts", CODE_OBJECTS, ids=lambda facts: f"{facts['arch']}-{facts['file']}"
)
def test_code_object(facts: dict[str, str]) -> None:
    """Loads, declares what is known of it, and has only instructions that are known."""
    kernel_file = Kernel(facts["arch"], facts["file"]).path
    found = hashlib.sha256(kernel_file.read_bytes()).hexdigest()
    if not found.startswith(facts["sha256"]):
        pytest.skip(f"another version: SHA-256 {found[:8]}, not {facts['sha256']}")
    module = Machine(facts["arch"]).load(kernel_file)
    (kernel,) = module.kernels.values()
    for name in ("kernarg_bytes", "static_lds", "vgprs", "agprs", "sgprs"):
        assert getattr(kernel, name) == int(facts[name]), name
    assert kernel.private_bytes == 0
    unknown = {text for _, text, implemented in module.disassemble() if not implemented}
    assert not unknown


def case_id(value: object) -> str:
    return f"{value.file}-{value.q_len}" if isinstance(value, Kernel) else ""


def check(errors: Errors, expected: tuple[float, float, float]) -> None:
    """The figures of the table come out again; those of outputs are no smaller either."""
    out, lse, merged = expected
    assert out / 1.1 <= errors.out <= 1.1 * out, errors
    assert merged / 1.1 <= errors.merged <= 1.1 * merged, errors
    assert errors.lse <= 1.3 * lse, errors


def worst(runs: Iterable[Errors]) -> Errors:
    errors = Errors()
    for run in runs:
        errors.include(run)
    return errors


SPLIT_CASES = [([1], 1), ([17], 1), ([200], 1), ([64, 1000], 1)]
SPLIT_CASES += [([200], 2), ([65, 1, 700], 4), ([63], 2), ([128, 129], 3)]
SHORT_SPLIT_CASES = [
    (lengths, splits) for lengths in ([1], [17], [200], [65, 1, 300]) for splits in (1, 2)
]
GFX942_SPLIT = [
    (BF16_SPLIT, (1.2e-3, 6e-6, 1.0e-3)),
    (FP8_SPLIT, (2.1e-2, 1.6e-6, 2.1e-2)),
    (Kernel("gfx942", SPLIT_8, heads=8), (1.2e-3, 3.4e-6, 1.0e-3)),
    (
        Kernel("gfx942", "mla_a8w8_qh8_qseqlen1_gqaratio8_v1", **A8W8, heads=8, scaled=False,
               single_is_bf16=True, reads_beyond=True),
        (2.4e-2, 1.5e-6, 1.8e-2),
    ),
]  # fmt: skip
GFX950_SPLIT = [
    (Kernel("gfx950", SPLIT_16), (9.5e-4, 4.9e-6, 8.4e-4)),
    (Kernel("gfx950", SPLIT_8, heads=8), (8.5e-4, 4.9e-6, 8.4e-4)),
    (
        Kernel("gfx950", "mla_a8w8_qh16_qseqlen1_gqaratio16", **A8W8, tile=128,
               single_is_bf16=True),
        (1.6e-2, 1.3e-6, 1.26e-2),
    ),
    (
        Kernel("gfx950", "mla_a8w8_qh8_qseqlen1_gqaratio8_v3", **A8W8, heads=8,
               single_is_bf16=True),
        (2.1e-2, 1.2e-6, 2.0e-2),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "expected"), GFX942_SPLIT, ids=case_id)
def test_split(kernel: Kernel, expected: tuple[float, float, float]) -> None:
    check(worst(run_split(kernel, *case, seed) for seed, case in enumerate(SPLIT_CASES)), expected)


@pytest.mark.parametrize(("kernel", "expected"), GFX950_SPLIT, ids=case_id)
def test_split_gfx950(kernel: Kernel, expected: tuple[float, float, float]) -> None:
    cases = enumerate(SHORT_SPLIT_CASES)
    check(worst(run_split(kernel, *case, seed // 2) for seed, case in cases), expected)


# Lengths, the tokens at which each sequence is cut, and the number of workgroups.
PERSISTENT_CASES = [([200], [[]], 1), ([200, 65, 1000], [[100], [], [64, 512, 800]], 3)]
PERSISTENT_CASES += [([1, 16, 63, 129], [[], [], [16], []], 2)]
M16_CASES = [
    ([200], 1, [[]], 1), ([1], 1, [[]], 1), ([17], 1, [[]], 2),
    ([200, 65, 1000], 1, [[], [], []], 2),
    ([200, 65, 1000], 1, [[100], [], [64, 512, 800]], 3), ([200], 4, [[]], 1),
    ([200, 65, 1000], 4, [[100], [32], [64, 512, 800]], 3), ([300], 2, [[]], 1),
    ([300, 33], 3, [[128], []], 2), ([64], 4, [[]], 1), ([63], 4, [[]], 1), ([5], 4, [[]], 1),
    ([4], 4, [[]], 1),
]  # fmt: skip
A16W8 = "mla_a16w8_qh16_m16x4_n16x1_coex0_mask1_ps"
GFX942_PERSISTENT = [
    (Kernel("gfx942", A16W8, kv="fp8"), (3.0e-3, 2.2e-6, 7.5e-4)),
    (Kernel("gfx942", A16W8, kv="fp8", q_len=4), (2.8e-3, 2.9e-6, 1.1e-3)),
    (Kernel("gfx942", "mla_a8w8_qh16_qseqlen1_gqaratio16_ps", **A8W8), (1.8e-2, 1.4e-6, 1.03e-2)),
    (
        Kernel("gfx942", "mla_a8w8_qh16_qseqlen2_gqaratio16_ps", **A8W8, q_len=2),
        (5.4e-2, 1.5e-6, 1.12e-2),
    ),
    (
        Kernel("gfx942", "mla_a8w8_qh64_qseqlen4_gqaratio16_ps", **A8W8, q_len=4, scaled=False),
        (2.0e-2, 1.8e-6, 2.1e-2),
    ),
]
Q4 = "mla_a16w16_qh16_qseqlen4_gqaratio16"
Q1_FP8, Q4_FP8 = "mla_a8w8_qh16_qseqlen1_gqaratio16", "mla_a8w8_qh16_qseqlen4_gqaratio16"
ONE_QUERY, FOUR_QUERIES = (2.56e-3, 5e-6, 4.2e-4), (3.15e-3, 6.2e-6, 9.35e-4)
ONE_QUERY_FP8, FOUR_QUERIES_FP8 = (1.91e-2, 1.4e-6, 1.38e-2), (2.12e-2, 1.4e-6, 1.47e-2)
GFX950_PERSISTENT = [
    (Kernel("gfx950", f"{PERSISTENT}_ps"), ONE_QUERY),
    (Kernel("gfx950", f"{PERSISTENT}_lse_ps", final_lse=True), ONE_QUERY),
    (Kernel("gfx950", f"{PERSISTENT}_lse_ps", final_lse=True, q_len=4), FOUR_QUERIES),
    (Kernel("gfx950", f"{Q4}_ps", q_len=4), FOUR_QUERIES),
    (Kernel("gfx950", f"{Q4}_lse_ps", q_len=4, final_lse=True), FOUR_QUERIES),
    (Kernel("gfx950", A16W8, kv="fp8"), (2.3e-3, 1.7e-6, 5.8e-4)),
    (Kernel("gfx950", f"{Q1_FP8}_ps", **A8W8), ONE_QUERY_FP8),
    (Kernel("gfx950", f"{Q1_FP8}_lse_ps", **A8W8, final_lse=True), ONE_QUERY_FP8),
    (Kernel("gfx950", f"{Q1_FP8}_msk0_ps", **A8W8), ONE_QUERY_FP8),
    (Kernel("gfx950", "mla_a8w8_qh16_qseqlen2_gqaratio16_ps", **A8W8, q_len=2), FOUR_QUERIES_FP8),
    (Kernel("gfx950", f"{Q4_FP8}_v3_ps", **A8W8, q_len=4, rows=16), FOUR_QUERIES_FP8),
    (
        Kernel("gfx950", f"{Q4_FP8}_lse_v3_ps", **A8W8, q_len=4, rows=16, final_lse=True),
        FOUR_QUERIES_FP8,
    ),
]


def test_persistent_bf16() -> None:
    runs = (
        run_persistent(
            Kernel("gfx942", f"{PERSISTENT}_ps", q_len=q_len), lengths, cuts, slots, seed
        )
        for seed, (lengths, q_len, cuts, slots) in enumerate(M16_CASES)
    )
    check(worst(runs), (3.2e-3, 5.8e-6, 1.0e-3))


@pytest.mark.parametrize(("kernel", "expected"), GFX942_PERSISTENT, ids=case_id)
def test_persistent(kernel: Kernel, expected: tuple[float, float, float]) -> None:
    longer = 8 if kernel.q_len > 1 else 0
    runs = (
        run_persistent(kernel, [length + longer for length in lengths], cuts, slots, seed)
        for seed, (lengths, cuts, slots) in enumerate(PERSISTENT_CASES)
    )
    check(worst(runs), expected)


@pytest.mark.parametrize(("kernel", "expected"), GFX950_PERSISTENT, ids=case_id)
def test_persistent_gfx950(kernel: Kernel, expected: tuple[float, float, float]) -> None:
    runs = []
    for seed, lengths in enumerate(([1], [17], [200], [65, 1, 300])):
        cuts = [[length // 2] if length > 100 else [] for length in lengths]
        longer = 4 if kernel.q_len > 1 else 0
        lengths = [length + longer for length in lengths]
        runs.append(run_persistent(kernel, lengths, cuts, 2, seed))
    check(worst(runs), expected)


@pytest.mark.parametrize("heads", range(1, 17))
@pytest.mark.parametrize("kernel", [BF16_SPLIT, FP8_SPLIT], ids=case_id)
def test_fewer_heads_without_padding(kernel: Kernel, heads: int) -> None:
    """The number of rows is an argument: nothing beyond the buffers of so many is touched."""
    kernel = dataclasses.replace(kernel, heads=heads)
    cases = [([1], 2), ([63, 200], 2), ([64, 129, 300], 4)]
    errors = worst(run_split(kernel, *case, seed) for seed, case in enumerate(cases))
    limit = 2e-3 if kernel.q == "bf16" else 3e-2
    assert errors.out <= limit and errors.merged <= limit and errors.lse <= 1e-5, errors


@pytest.mark.parametrize(
    "kernel",
    [BF16_SPLIT, GFX942_SPLIT[2][0], GFX950_SPLIT[0][0], GFX950_SPLIT[1][0]],
    ids=case_id,
)
def test_waves_that_run_to_their_barriers(kernel: Kernel) -> None:
    """The bf16 kernels do not count on their waves staying together."""
    errors = run_split(kernel, [200, 65], 2, quantum=1 << 30)
    assert errors.out <= 2e-3 and errors.merged <= 2e-3, errors


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
def test_fp8_waves_have_to_stay_together(arch: str) -> None:
    """Between two barriers this kernel writes the next keys over probabilities still in use."""
    tile = 64 if arch == "gfx942" else 128
    kernel = dataclasses.replace(FP8_SPLIT, arch=arch, tile=tile)
    try:
        errors = run_split(kernel, [1000], 2, quantum=1 << 30)
    except Fault:
        return
    assert errors.out > 0.1, errors


@pytest.mark.parametrize("kernel", [BF16_SPLIT, FP8_SPLIT, GFX950_SPLIT[2][0]], ids=case_id)
def test_masked_tokens_read_row_0(kernel: Kernel) -> None:
    """A NaN in the pool's first row reaches results of sequences that do not use it."""
    problem = Problem(kernel, [70], seed=0)
    problem.tokens = np.delete(np.arange(problem.cache.shape[0], dtype=np.int32), 0)[:70]
    for poison, harmless in ((1.0, True), (np.nan, False)):
        problem.cache[0] = np.array(poison).astype(problem.cache.dtype)
        outputs = launch_split(problem, splits=2)
        last = outputs["partial"][0, 1 if kernel.tile == 64 else 0]
        assert np.isfinite(last).all() == harmless


@pytest.mark.parametrize("lengths", [[40, 40], [0, 40]], ids=["full", "empty"])
def test_an_empty_work_ends_the_workgroup(lengths: list[int]) -> None:
    """The works after it in the same slot are not done."""
    problem = Problem(Kernel("gfx942", f"{PERSISTENT}_ps"), lengths, seed=0)
    outputs, _ = launch_persistent(problem, [[], []], slots=1)
    assert untouched(outputs["final"][1]) == (lengths[0] == 0)


def test_arguments_that_are_read() -> None:
    """Thirteen slots of 16 bytes, the value at the start of each and nothing after it."""
    problem = Problem(BF16_SPLIT, [100], seed=0)
    machine = Machine("gfx942")
    read = machine.track_arguments(368)
    outputs = launch_split(problem, splits=2, machine=machine)
    assert not untouched(outputs["partial"])
    slots = np.flatnonzero(read & 1)
    wanted = [16 * slot + byte for slot in range(13) for byte in range(4 if slot >= 7 else 8)]
    assert slots.tolist() == wanted
