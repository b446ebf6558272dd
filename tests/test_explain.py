# SPDX-License-Identifier: Apache-2.0
"""`explain`, in Python and on the command line."""

import subprocess
import sys
from typing import Any

import cases
import ir
import jax
import pytest

import jax_mla
from jax_mla import Target, __main__, aiter, native
from jax_mla.explain import Explanation, explain_sizes

MI300X, MI355X = Target("gfx942", 304), Target("gfx950", 256)
SUBQ16 = "mla_dec_stage1_bf16_a16w16_subQ16_mqa16"
M16X4 = "mla_a16w16_qh16_m16x4_n16x1_coex0_mask1_ps"
A8W8 = "mla_a8w8_qh16_qseqlen1_gqaratio16"


def check_model(heads: int, target: Target, dtypes: str, mode: str, kernel: str) -> Explanation:
    said = explain_sizes(heads, target=target, dtypes=dtypes, mode=mode, implementation="asm")
    plan = said.asm
    assert plan is not None and said.implementation == "asm" and said.mode == mode
    assert plan.kernel.file == kernel and plan.kernel.arch == target.arch
    assert plan.launches == (3 if mode == "persistent" else plan.heads.groups + 1)
    return said


@pytest.mark.parametrize("target", [MI300X, MI355X], ids=lambda t: t.arch)
@pytest.mark.parametrize(
    ("dtypes", "mode", "kernel"),
    [
        ("bf16", "split", SUBQ16),
        ("bf16", "persistent", M16X4),
        ("fp8", "split", A8W8),
        ("fp8", "persistent", f"{A8W8}_ps"),
    ],
)
@pytest.mark.parametrize(
    ("heads", "stride"),
    [
        pytest.param(4, 4, id="Kimi-Linear TP 8"),
        pytest.param(8, 2, id="GLM-5 TP 8"),
        pytest.param(12, 1, id="Kimi-K3 TP 8"),
    ],
)
def test_models_of_few_heads(
    heads: int, stride: int, dtypes: str, mode: str, kernel: str, target: Target
) -> None:
    said = check_model(heads, target, dtypes, mode, kernel)
    assert said.asm is not None and said.bytes_ratio is not None
    layout = said.asm.heads
    assert (layout.padded_heads, layout.head_stride, layout.groups) == (16, stride, 1)
    # What comes on top of the cache is partial results and token indices.
    assert 1.0 < said.bytes_ratio < 1.3


@pytest.mark.parametrize(
    ("target", "dtypes", "mode", "groups", "kernel"),
    [
        (MI300X, "bf16", "split", 1, "mla_dec_stage1_bf16_a16w16_subQ128_mqa128"),
        (MI300X, "bf16", "persistent", 8, M16X4),
        (MI300X, "fp8", "split", 1, "mla_a8w8_qh128_m32x4_n16x2_msk1"),
        (MI300X, "fp8", "persistent", 1, "mla_a8w8_qh128_m32x4_n16x2_msk0_ps"),
        (MI355X, "bf16", "split", 1, "mla_dec_stage1_bf16_a16w16_subQ128_mqa128"),
        (MI355X, "bf16", "persistent", 1, "mla_a16w16_qh32_qseqlen4_gqaratio32_ps"),
        (MI355X, "fp8", "split", 1, "mla_a8w8_qh128_m32x4_n16x2_msk1"),
        (MI355X, "fp8", "persistent", 1, "mla_a8w8_qh32_qseqlen4_gqaratio32_ps"),
    ],
)
def test_deepseek_v3(target: Target, dtypes: str, mode: str, groups: int, kernel: str) -> None:
    """128 heads on one GPU: no padding, and one reading of the cache but in one cell."""
    said = check_model(128, target, dtypes, mode, kernel)
    assert said.asm is not None and said.bytes_ratio is not None
    layout = said.asm.heads
    assert (layout.padded_heads, layout.groups, layout.kind) == (128, groups, "native")
    # 128 rows of partial results weigh as much as thousands of tokens.
    assert 0.9 * groups < said.bytes_ratio < 4 * groups


def test_bytes_and_workspace_by_hand() -> None:
    """2 sequences of 128 tokens, 4 heads, 3 splits asked for, 2 blocks of 64 to deal out."""
    said = explain_sizes(
        4, target=MI300X, batch=2, tokens=128, page_size=16, implementation="asm", num_kv_splits=3
    )
    cache, row, lse = 2 * 128 * 1152, 1152, 4
    results = 2 * 4 * (512 * 2 + lse)
    assert said.bytes_needed == cache + 2 * 8 * 4 + 2 * 4 * row + results
    parts = 2 * 2
    padding = 2 * 4 * row + 2 * 16 * row
    partials = parts * (16 + 4) * 513 * 4
    assert said.bytes_moved == (
        cache + 2 * 128 * 4 + padding + parts * 16 * row + partials + results
    )
    assert said.asm is not None and said.asm.workspace_bytes == 2 * 3 * 16 * 513 * 4


@pytest.mark.parametrize(
    ("heads", "q_len", "mode"),
    [(4, 1, "split"), (20, 1, "split"), (4, 1, "persistent"), (20, 4, "persistent")],
)
def test_it_says_what_is_lowered(heads: int, q_len: int, mode: str) -> None:
    case = cases.make(heads, q_len, lengths=(192, 7))
    options: dict[str, Any] = case.options | {"implementation": "asm", "target": MI300X}
    q, kv_pages, lengths, page_indices = case.operands

    def metadata(lengths: jax.Array) -> jax_mla.DecodeMetadata | None:
        if mode == "split":
            return None
        return jax_mla.make_metadata(
            lengths, page_indices, page_size=16, num_pages=kv_pages.shape[0], heads=heads,
            q_len=q_len, q_dtype=q.dtype, kv_dtype=kv_pages.dtype, mode=mode, target=MI300X,
        )  # fmt: skip

    def step(q: jax.Array, lengths: jax.Array) -> Any:
        return jax_mla.decode(
            q, kv_pages, lengths, page_indices, metadata=metadata(lengths), **options
        )

    (call,) = ir.custom_calls(jax.jit(step).trace(q, lengths).lower(lowering_platforms=("rocm",)))
    said = jax_mla.explain(*case.operands, metadata=metadata(lengths), **options)
    assert said.asm is not None
    assert call.results[2] == ((said.asm.workspace_bytes,), "ui8")
    assert call.attributes["padded_heads"] == f"{said.asm.heads.padded_heads} : i64"
    assert call.attributes["num_kv_splits"] == f"{said.asm.num_kv_splits} : i64"
    assert call.attributes["mode"] == f'"{said.mode}"'


def test_why_the_better_ones_were_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "LAUNCHES", frozenset())
    said = explain_sizes(4, target=MI300X)
    assert said.implementation == "xla" and said.asm is None and said.bytes_moved is None
    assert set(said.passed_over) == {"asm", "kernel"}
    assert "no device code of 'asm' for rocm" in said.passed_over["asm"]

    monkeypatch.setattr(native, "LAUNCHES", frozenset({("rocm", "asm"), ("rocm", "kernel")}))
    monkeypatch.setattr(aiter, "find", lambda kernel: kernel)
    assert explain_sizes(4, target=MI300X).passed_over == {}
    said = explain_sizes(4, target=MI300X, dtypes="bf16-fp8")
    assert said.implementation == "kernel"
    assert "no kernel for bf16 q on a fp8 cache in mode 'split'" in said.passed_over["asm"]


def test_our_own_kernels() -> None:
    """2 sequences of 128 tokens, 20 heads in 2 tiles, 4 blocks of 32 dealt out to 3 splits."""
    said = explain_sizes(
        20, target=MI300X, batch=2, tokens=128, page_size=16, implementation="kernel",
        num_kv_splits=3,
    )  # fmt: skip
    assert said.asm is None and said.kernel is not None
    assert (said.kernel.row_tiles, said.kernel.launches) == (2, 2)
    assert said.kernel.workspace_bytes == 2 * 3 * 2 * 16 * 513 * 4
    parts, rows = 2 * 3, 20
    assert said.bytes_moved == (
        2 * 2 * 128 * (1152 + 4)  # both tiles read all tokens and their pages
        + parts * rows * 1152
        + 2 * parts * rows * 513 * 4
        + 2 * rows * (512 * 2 + 4)
    )
    text = str(said)
    assert "3 splits of each sequence" in text and "2 x 16 (query, head) pairs" in text


def test_hopper_has_two_weights_of_a_partial_row() -> None:
    """2 sequences of 2 blocks of 64 keys in 2 splits, 60 rows in 4 tiles."""
    said = explain_sizes(
        20, target=Target("sm_90", 132), platform="cuda", q_len=3, batch=2, tokens=128,
        page_size=16, implementation="kernel", num_kv_splits=2,
    )  # fmt: skip
    assert said.kernel is not None and said.kernel.source == "decode_sm90"
    parts, rows = 2 * 2, 60
    assert said.bytes_moved == (
        4 * 2 * 128 * (1152 + 4)
        + parts * rows * 1152
        + 2 * parts * rows * 514 * 4
        + 2 * rows * (512 * 2 + 4)
    )


def test_workers_that_share_the_keys() -> None:
    """4 jobs of 4 blocks over 3 workers, 5 and 5 and 6: two jobs are cut in two."""
    said = explain_sizes(
        20, target=Target("gfx942", 3), batch=2, tokens=128, page_size=16, implementation="kernel"
    )
    rows = 20 / 2  # on average in a tile
    assert said.bytes_moved == (
        2 * 2 * 128 * (1152 + 4)
        + (2 + 4) * rows * 1152
        + 2 * 4 * rows * 513 * 4
        + 2 * 20 * (512 * 2 + 4)
    )
    assert "the keys of all sequences, evenly over 3 blocks of threads" in str(said)


def test_our_own_kernels_take_a_limited_batch() -> None:
    """Sequences are the last axis of a grid, which ends at 2**16 - 1 blocks on NVIDIA GPUs."""
    sizes = {"target": MI300X, "tokens": 16, "page_size": 16, "implementation": "kernel"}
    assert explain_sizes(4, batch=2**16 - 1, **sizes).kernel is not None
    with pytest.raises(NotImplementedError, match="expected at most 65535 sequences, got 65536"):
        explain_sizes(4, batch=2**16, **sizes)


def test_other_platforms_have_xla_alone() -> None:
    case = cases.make()
    said = jax_mla.explain(*case.operands, platform="tpu", **case.options)
    assert (said.implementation, said.target, said.passed_over) == ("xla", None, {})


def test_the_cpu_has_native_code_where_it_was_built(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases.make()
    monkeypatch.setattr(native, "LAUNCHES", frozenset({("cpu", "kernel")}))
    said = jax_mla.explain(*case.operands, platform="cpu", **case.options)
    assert (said.implementation, said.target, said.passed_over) == ("kernel", None, {})
    assert str(said).split() == ["implementation", "kernel", "(cpu)"]

    monkeypatch.setattr(native, "LAUNCHES", frozenset())
    said = jax_mla.explain(*case.operands, platform="cpu", **case.options)
    assert said.implementation == "xla" and set(said.passed_over) == {"kernel"}


def test_bad_arguments_are_those_of_decode() -> None:
    case = cases.make()
    with pytest.raises(ValueError, match=r"decode: heads of q: expected 1\.\.128, got 129"):
        explain_sizes(129, target=MI300X)
    with pytest.raises(TypeError, match="scale: expected a Python float"):
        jax_mla.explain(*case.operands, scale="1")
    with pytest.raises(NotImplementedError, match="there is none for platform 'cpu'"):
        jax_mla.explain(*case.operands, platform="cpu", scale=1.0, implementation="asm")


# --- Command line ---------------------------------------------------------------------------------


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["explain", "--heads", "12", "--arch", "gfx950", "--dtypes", "fp8"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("implementation")
    assert said[0].endswith("asm (rocm, gfx950 with 256 compute units)")
    assert said[1].split() == ["kernel", "AITER's", A8W8]
    assert "12: 4 rows of zeros, for the kernel's 16 heads" in said[2]
    assert "16 splits of each sequence" in said[3]


def test_command_line_refuses_with_a_reason_and_a_status() -> None:
    command = [sys.executable, "-m", "jax_mla", "explain", "--dtypes", "bf16-fp8"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert "it serves: mode 'persistent' with q_len 1, 2, 3, 4" in result.stderr


def test_command_line_names_bad_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["explain", "--arch", "mi300x"]) == 1
    assert "arch: expected 'gfx942', 'gfx950' or 'sm_NN', got 'mi300x'" in capsys.readouterr().err
    for name in ("--page-size", "--batch", "--compute-units"):
        with pytest.raises(SystemExit):
            __main__.main(["explain", name, "0"])
        assert f"argument {name}: expected a positive number, got 0" in capsys.readouterr().err
