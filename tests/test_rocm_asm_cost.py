# SPDX-License-Identifier: Apache-2.0
"""What decode on AITER's kernels launches and moves, as the emulated GPU counts it.

Bytes count once a launch. Counted at each access there are more: the kernels of AITER read token
indices once a wave, and beyond the end of a part the first row of the pool; both come from caches.
"""

import dataclasses
from typing import Any

import asm_decode
import jax
import numpy as np
import pytest
from asm_decode import decode, make_metadata, of_heads
from cases import Case
from emulator import environment
from emulator.runtime import Records, Runtime

import jax_mla
from jax_mla import aiter
from jax_mla.kernels import MODES

pytestmark = [
    pytest.mark.rocm,
    asm_decode.needs_aiter,
    pytest.mark.skipif(not environment.active_arch(), reason="asks the emulator"),
]

DECODE = {"split": ["stage 1", "merge"], "persistent": ["pointers", "stage 1", "merge"]}
METADATA = {"split": ["expand"], "persistent": ["expand", "plan"]}


def record(program: Any, *arrays: Any) -> Records:
    """What a program does when its code is loaded."""
    jax.block_until_ready(program(*arrays))
    return record_first(program, *arrays)


def record_first(program: Any, *arrays: Any) -> Records:
    with Runtime().recording() as records:
        jax.block_until_ready(program(*arrays))
    return records


def names(records: Records) -> list[str]:
    """What ran, in order; "xla" for its own kernels."""
    result = []
    for launch in records.launches:
        name = launch.kernel
        if name.startswith("jax_mla_"):
            result.append(name.split("_")[2])
        else:
            result.append("stage 1" if "mla" in name.lower() else "xla")
    return result


def assert_nothing_else(records: Records) -> None:
    assert (records.copies, records.fills, records.module_loads) == (0, 0, [])


@pytest.mark.parametrize(
    ("heads", "q_len", "dtypes"),
    [(16, 1, "bf16"), (4, 1, "bf16"), (12, 2, "bf16"), (40, 2, "bf16"), (8, 1, "fp8")],
)
@pytest.mark.parametrize("mode", MODES)
def test_launches_of_a_call(mode: str, heads: int, q_len: int, dtypes: str) -> None:
    """The layout of the heads goes into the kernel that makes q, or is one where none does."""
    case = asm_decode.make((40, 0, 100), heads=heads, q_len=q_len, dtypes=dtypes, capacity=128)
    plan = asm_decode.plan(case, mode)
    expected = METADATA[mode] + DECODE[mode]
    if mode == "split":
        expected = ["expand"] + ["stage 1"] * plan.heads.groups + ["merge"]
    assert len(expected) == plan.launches + len(METADATA[mode])

    records = record(jax.jit(lambda *operands: decode(case, operands, mode)), *case.operands)
    laid_out = plan.heads.padded_heads > heads or plan.heads.groups > 1
    assert [name for name in names(records) if name != "xla"] == expected
    assert names(records).count("xla") == int(laid_out)
    assert_nothing_else(records)

    def with_producer(q: jax.Array, *others: jax.Array) -> Any:
        return decode(case, (jax.numpy.negative(q), *others), mode)

    assert names(record(jax.jit(with_producer), *case.operands)).count("xla") == 1


@pytest.mark.parametrize("heads", [4, 16])
@pytest.mark.parametrize("mode", MODES)
def test_six_layers_in_a_command_buffer(mode: str, heads: int) -> None:
    """The metadata once, then for each layer what makes its q, and the decode."""
    case = asm_decode.make((40, 0, 100), heads=heads, capacity=128)

    def layers(q: jax.Array, *others: jax.Array) -> list[Any]:
        metadata = make_metadata((q, *others), mode)
        results = []
        for _ in range(6):
            q = -q
            results.append(decode(case, (q, *others), mode, metadata))
            q = q.at[..., :512].add(results[-1][0])
        return results

    records = record(jax.jit(layers), *case.operands)
    assert records.graph_launches > 0
    assert_nothing_else(records)
    assert [name for name in names(records) if name != "xla"] == METADATA[mode] + 6 * DECODE[mode]
    assert names(records).count("xla") <= 6


@dataclasses.dataclass(frozen=True)
class Bytes:
    """Of a decode without its metadata.

    Attributes:
      moved: read and written, each byte once a launch.
      accessed: the same at each access.
      parts: of the sequences, that partial results were written for.
    """

    moved: int
    accessed: int
    parts: int


def count(case: Case, mode: str, num_kv_splits: int | None) -> Bytes:
    operands = case.operands
    metadata = jax.jit(
        lambda *operands: make_metadata(operands, mode, num_kv_splits=num_kv_splits)
    )(*operands)

    def program(metadata: Any, *operands: jax.Array) -> Any:
        return decode(case, operands, mode, metadata, num_kv_splits)

    records = record_first(jax.jit(program), metadata, *operands)
    counters = [
        (name, traffic)
        for launch in records.launches
        for name, traffic in launch.counters.traffic.items()
        if name != "kernel arguments"
    ]
    heads = asm_decode.plan(case, mode, num_kv_splits).heads.padded_heads
    rows = sum(t.written_distinct for name, t in counters if name == "partial_lse") // 4
    return Bytes(
        moved=sum(t.read_distinct + t.written_distinct for _, t in counters),
        accessed=sum(t.read_total + t.written_total for _, t in counters),
        parts=rows // (heads * case.q.shape[1]),
    )


def explained(case: Case, mode: str, num_kv_splits: int | None) -> jax_mla.Explanation:
    metadata = make_metadata(case.operands, mode, num_kv_splits=num_kv_splits)
    return jax_mla.explain(*case.operands, **case.options, metadata=metadata, implementation="asm")


# Over what is needed. The plan of persistent mode lets partial results be a tenth of what is read
# of the cache; token indices and lists come on top.
LIMITS = {
    (4096, "split"): 1.10,
    (4096, "persistent"): 1.101,
    (1024, "split"): 1.6,
    (1024, "persistent"): 1.6,
}


@pytest.mark.parametrize(("tokens", "mode"), LIMITS)
def test_bytes(tokens: int, mode: str) -> None:
    """Few splits: with many, and few sequences, partial results are most of what is moved."""
    splits = 4 if mode == "split" else None
    all_heads = asm_decode.make((tokens, tokens), heads=16, page_size=64, capacity=tokens)
    moved = {}
    for heads in (4, 8, 12, 16):
        case = of_heads(all_heads, heads)
        plan = asm_decode.plan(case, mode, splits)
        counted, explanation = count(case, mode, splits), explained(case, mode, splits)
        moved[heads] = counted.moved
        assert counted.moved <= LIMITS[tokens, mode] * explanation.bytes_needed, heads
        # Explained are queries for each part, not each sequence, and as many works as can be.
        parts = counted.parts if plan.works is None else plan.works.max_works(2)
        queries = (parts - 2) * plan.heads.padded_heads * 576 * 2
        more_parts = (parts - counted.parts) * (plan.heads.padded_heads + heads) * 513 * 4
        expected = counted.moved + queries + more_parts
        assert explanation.bytes_moved == pytest.approx(expected, rel=0.02), heads
    assert moved[4] <= 1.02 * moved[16]


@pytest.mark.parametrize("mode", MODES)
def test_accesses_to_the_cache(mode: str) -> None:
    """AITER's kernels go over the cache once, and in advance at most two blocks a part."""
    case = asm_decode.make((4096, 4096), heads=4, page_size=64, capacity=4096)
    plan = asm_decode.plan(case, mode, splits := 4 if mode == "split" else None)
    if not aiter.find(plan.kernel).known:
        pytest.skip("a stand-in, which reads the cache several times")
    records = record_first(
        jax.jit(lambda *operands: decode(case, operands, mode, num_kv_splits=splits)),
        *case.operands,
    )
    (pool,) = (launch.counters.traffic["kv_pages"] for launch in records.launches
               if "kv_pages" in launch.counters.traffic)  # fmt: skip
    cache = 2 * 4096 * 1152
    parts = 2 * splits if splits else plan.works.max_works(2)
    assert cache <= pool.read_total <= cache + parts * 2 * plan.kernel.kv_block * 1152
    assert np.isclose(pool.read_distinct, cache, atol=1152)
