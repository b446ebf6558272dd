# SPDX-License-Identifier: Apache-2.0
"""`python -m jax_mla bench` on the CPU: points, goals, statistics, the table and a whole run."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jax_mla.__main__ import main
from jax_mla.bench import programs, report
from jax_mla.bench.points import Point, goal, goals, sweep
from jax_mla.bench.summary import Summary, faster, summarize

H200 = "NVIDIA H200"


@pytest.fixture(autouse=True)
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two calls."""
    monkeypatch.setattr(programs, "POOL_BYTES", 0)


@pytest.mark.parametrize("batch", [1, 4, 5])
def test_uniform_lengths_have_the_sum_of_equal_ones(batch: int) -> None:
    lengths = Point(batch, 100, 4, lengths="uniform").sequence_lengths
    assert lengths.sum() == batch * 100 and lengths.min() >= 1 and lengths.max() < 200
    assert batch == 1 or len(set(lengths.tolist())) == batch


def test_uniform_lengths_are_spread() -> None:
    lengths = Point(1000, 100, 4, lengths="uniform").sequence_lengths
    counts, _ = np.histogram(lengths, bins=4, range=(1, 200))
    assert counts.min() > 200


def test_a_page_table_holds_each_page_once() -> None:
    point = Point(5, 100, 4, page_size=16, lengths="uniform")
    pages = np.arange(1, point.pages + 1)
    table = point.page_table(pages)
    assert table.shape == (5, 13)  # 199 tokens at most
    assert sorted(table[table > 0]) == pages.tolist()
    used = -(-point.sequence_lengths // 16)
    assert ((table > 0) == (np.arange(13) < used[:, None])).all()


@pytest.mark.parametrize(("dtypes", "size"), [("bf16", 2), ("bf16-fp8", 1), ("fp8", 1)])
def test_kv_bytes(dtypes: str, size: int) -> None:
    assert Point(2, 10, 4, dtypes).kv_bytes == 20 * 576 * size


def test_goals_are_of_the_points_that_they_were_set_for() -> None:
    point = Point(4, 8192, 16)
    assert goal(point, H200) == {
        "read": 17.5, "flashinfer": 32, "flashmla": 30, "prototype": 25.9, "goal": 22,
    }  # fmt: skip
    assert goal(Point(4, 8192, 5), H200) == {"read": 17.5}
    others = [
        Point(4, 8191, 16), Point(4, 8192, 16, "fp8"), Point(4, 8192, 16, page_size=1),
        Point(4, 8192, 16, q_len=2), Point(4, 8192, 16, lengths="uniform"),
    ]  # fmt: skip
    assert [goal(other, H200) for other in others] == [{}] * 5
    assert goal(point, "AMD Instinct MI300X") == {}


def test_every_goal_lies_between_the_plain_read_and_the_prototype() -> None:
    for row in goals()["points"]:
        for heads in ("4", "16"):
            assert row["read"] < row["goal"][heads] < row["prototype"][heads]
            assert row["prototype"][heads] < min(row["flashinfer"][heads], row["flashmla"][heads])


def test_the_sweep() -> None:
    assert len(sweep()) == 20 and sweep()[0] == Point(1, 1024, 4)
    assert sweep([2], [64], [1, 3]) == [Point(2, 64, 1), Point(2, 64, 3)]
    batches = {point.batch for point in sweep(tokens=[64])}
    assert batches == {1, 4, 16, 64, 128}


def test_statistics() -> None:
    summary = summarize([5e-6, 1e-6, 3e-6, 2e-6, 4e-6], calls_each=10)
    assert summary == Summary(pytest.approx(3), pytest.approx(1.5), pytest.approx(4.5), 50)
    assert summarize([2e-6]).spread == 0


@pytest.mark.parametrize(
    ("spreads", "expected"), [((1, 1), True), ((3, 1), False), ((1, 3), False)]
)
def test_faster_is_by_more_than_both_spreads(spreads: tuple[int, int], expected: bool) -> None:
    a, b = (Summary(m, m, m + s, 1) for m, s in zip((10, 12), spreads, strict=True))
    assert faster(a, b) is expected and not faster(b, a)


def test_calls_take_other_pages_in_turn() -> None:
    point = Point(2, 32, 4, page_size=16, lengths="uniform")
    operands = programs.make_operands(point, programs.make_pool(point))
    tables = [np.asarray(table) for table in operands.tables]
    used = [set(table[:, 0]) for table in tables]
    assert len(tables) == 2 * programs.calls_of(point)
    assert not used[0] & used[1] and used[0] == used[2]
    assert all(np.array_equal(table, tables[0]) for table in operands.warm_tables)


@pytest.mark.parametrize("dtypes", ["bf16", "bf16-fp8", "fp8"])
@pytest.mark.parametrize("q_len", [1, 2])
def test_plain_is_decode(dtypes: str, q_len: int) -> None:
    point = Point(3, 20, 4, dtypes, page_size=16, q_len=q_len)
    operands = programs.make_operands(point, programs.make_pool(point))
    results = (
        jax.jit(make(operands))(operands.q, operands.pool, operands.lengths, operands.tables[0])
        for make in (programs.ours, programs.plain)
    )
    ours, plain = (np.asarray(x, np.float32) for x in results)
    assert ours.shape == (3, q_len, 4, 512)
    np.testing.assert_allclose(ours, plain, rtol=0.05, atol=0.03)


def test_a_program_is_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of each of the first calls, whatever tables there are besides."""
    monkeypatch.setattr(programs, "CALLS", (2, 2))
    point = Point(2, 32, 4, page_size=16)
    operands = programs.make_operands(point, programs.make_pool(point))
    decode = jax.jit(programs.ours(operands))
    q, pool, lengths, tables = operands.q, operands.pool, operands.lengths, operands.tables
    numbers = programs.program(decode, 3)(q, pool, lengths, tables)
    alone = [float(decode(q, pool, lengths, table)[0, 0, 0, 0]) for table in tables[:3]]
    np.testing.assert_array_equal(np.asarray(numbers, np.float32), alone)


def test_a_run_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--batch", "2", "--tokens", "16", "--heads", "3", "--page-size", "8"]
    assert main(["bench", *sizes, "--lengths", "equal", "uniform", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "bench.json").read_text())
    assert [r["lengths"] for r in written["results"]] == ["equal", "uniform"]
    for result in written["results"]:
        assert result["error"] is None and result["kv_bytes"] == 2 * 16 * 576 * 2
        assert set(result["times"]) == {"read", "jit", "cold", "jnp"}
        assert all(0 < time["low"] <= time["high"] for time in result["times"].values())
    assert "| 2 x 16 (uniform) | 3 | bf16 | 8 | 1 |" in capsys.readouterr().out


def test_a_point_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_at_16(point: Point) -> bool:
        if point.tokens == 16:
            raise RuntimeError("out of patience")
        return False

    monkeypatch.setattr(programs, "plain_fits", fail_at_16)
    sizes = ["--batch", "1", "--tokens", "16", "32", "--heads", "3"]
    assert main(["bench", *sizes, "--out", str(tmp_path)]) == 1
    first, second = json.loads((tmp_path / "bench.json").read_text())["results"]
    assert first["error"] == "RuntimeError: out of patience" and second["error"] is None
    assert "1 x 16: RuntimeError: out of patience" in capsys.readouterr().out


def test_a_row_holds_ratios_and_goals() -> None:
    times = {"read": 8.0, "cold": 10.0, "jit": 20.0, "jnp": 50.0}
    result = {
        **{"batch": 1, "tokens": 1024, "heads": 4, "dtypes": "bf16", "page_size": 64, "q_len": 1},
        "lengths": "equal",
        "kv_bytes": 1_179_648,
        "goal": {"goal": 9.0},
        "error": None,
        "times": {
            name: {"median": t, "low": t - 1, "high": t + 1, "calls": 20}
            for name, t in times.items()
        },
    }
    assert report.row(result) == (
        "| 1 x 1024 | 4 | bf16 | 64 | 1 | 8 ± 1 | 10 ± 1 | 118 | 0.80 | - | - | - | 9 | 20 ± 1 "
        "| 2.50 | - |"
    )
