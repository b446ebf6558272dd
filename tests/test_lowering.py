# SPDX-License-Identifier: Apache-2.0
"""What programs are lowered to for GPUs that are not there."""

import dataclasses
import functools
import sys
import warnings
from typing import Any

import cases
import ir
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jax_mla
from jax_mla import Target, aiter, kernels, lowering, native
from jax_mla.call import Unserved

MI300X = Target("gfx942", 304)
MI355X = Target("gfx950", 256)
A100 = Target("sm_80", 108)
H200 = Target("sm_90", 132)


def case(heads: int = 4, q_len: int = 1, dtypes: str = "bf16", **options: Any) -> cases.Case:
    return cases.make(heads, q_len, 16, dtypes, lengths=(160, 7), capacity=160, **options)


def only_call(lowered: Any) -> ir.Call:
    (call,) = ir.custom_calls(lowered)
    return call


# --- ROCm -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [MI300X, MI355X], ids=lambda t: t.arch)
@pytest.mark.parametrize(
    ("heads", "padded", "stride"),
    [
        (1, 16, 16), (2, 16, 8), (3, 16, 1), (4, 16, 4), (5, 16, 1), (6, 16, 1), (8, 16, 2),
        (12, 16, 1), (16, 16, 1), (17, 32, 1), (24, 32, 1), (32, 32, 1), (48, 64, 1), (64, 64, 1),
        (96, 128, 1), (128, 128, 1),
    ],
)  # fmt: skip
def test_rocm_pads_the_heads(heads: int, padded: int, stride: int, target: Target) -> None:
    lowered = ir.lower(case(heads), "rocm", implementation="asm", target=target)
    call = only_call(lowered)
    assert call.target == "jax_mla_decode_asm_rocm_v1"
    assert call.operands[0] == ((2, 1, padded, 576), "bf16")
    # Real heads come out: nothing is left to slice.
    assert call.results[:2] == [((2, 1, heads, 512), "bf16"), ((2, 1, heads), "f32")]
    names = ir.operations(lowered)
    assert ("stablehlo.pad" in names) == (padded > heads and stride == 1)
    assert "stablehlo.slice" not in call.users
    attributes = call.attributes
    assert attributes["heads"] == f"{heads} : i64"
    assert attributes["padded_heads"] == f"{padded} : i64"
    assert attributes["head_stride"] == f"{stride} : i64"


def test_sixteen_heads_go_in_as_they_are() -> None:
    lowered = ir.lower(case(16), "rocm", implementation="asm")
    assert "stablehlo.pad" not in ir.operations(lowered)
    assert only_call(lowered).sources[0] == "argument"


@pytest.mark.parametrize("target", [MI300X, MI355X], ids=lambda t: t.arch)
def test_attributes_and_operands_of_the_call(target: Target) -> None:
    one = case(4)
    call = only_call(ir.lower(one, "rocm", implementation="asm", target=target, num_kv_splits=7))
    attributes = dict(call.attributes)
    value, kind = attributes.pop("scale").split(" : ")
    assert kind == "f32" and np.float32(value) == np.float32(cases.SCALE)
    bf16 = one.q.dtype
    kernel = kernels.select(target.arch, bf16, bf16, "split", q_len=1, heads=4)
    assert attributes == {
        "arch": f'"{target.arch}"',
        "code_object": f'"{kernel.sha256}"',
        "compute_units": f"{target.compute_units} : i64",
        "head_stride": "4 : i64",
        "heads": "4 : i64",
        "kv_block": "64 : i64",
        "mode": '"split"',
        "num_kv_splits": "7 : i64",
        "padded_heads": "16 : i64",
        "row_argument": "16 : i64",
        "scale_out": "false",
        "workgroup_rows": "16 : i64",
    }
    pages = one.kv_pages.shape[0]
    assert call.operands == [
        ((2, 1, 16, 576), "bf16"),
        ((pages, 16, 576), "bf16"),
        ((2,), "i32"),
        ((2, 10), "i32"),
        ((3,), "i32"),
        ((320,), "i32"),
        ((1, 3), "i32"),
        ((1, 3), "i32"),
    ]
    assert call.sources[-2:] == ["stablehlo.constant"] * 2  # which no launch makes
    workspace = 2 * 7 * 16 * (512 + 1) * 4
    assert call.results[2] == ((workspace,), "ui8")


@pytest.mark.parametrize(
    ("dtypes", "mode", "first", "scales"),
    [
        ("fp8fnuz", "split", 8, 2),
        ("fp8fnuz", "persistent", 10, 2),
        ("bf16-fp8fnuz", "persistent", 10, 1),
    ],
)
def test_scales_are_the_last_operands(dtypes: str, mode: str, first: int, scales: int) -> None:
    (call,) = ir.custom_calls(layers(case(dtypes=dtypes), mode, count=1))
    assert call.operands[first:] == [((), "f32")] * scales
    assert call.results[0][1] == "bf16"


def layers(one: cases.Case, mode: str, *, count: int, vmap: bool = False) -> Any:
    """Some layers of a step that makes its metadata once, lowered for ROCm."""
    q, kv_pages, lengths, page_indices = one.operands

    def step(q: jax.Array, lengths: jax.Array, page_indices: jax.Array) -> list[Any]:
        metadata = jax_mla.make_metadata(
            lengths,
            page_indices,
            page_size=16,
            num_pages=kv_pages.shape[0],
            heads=q.shape[2],
            q_len=q.shape[1],
            q_dtype=q.dtype,
            kv_dtype=kv_pages.dtype,
            mode=mode,
            target=MI300X,
        )
        decode = functools.partial(
            jax_mla.decode, **one.options, metadata=metadata, implementation="asm"
        )
        return [decode(q, kv_pages, lengths, page_indices) for _ in range(count)]

    operands = (q, lengths, page_indices)
    if vmap:
        step, operands = jax.vmap(step), tuple(x[:, None] for x in operands)
    return jax.jit(step).trace(*operands).lower(lowering_platforms=("rocm",))


@pytest.mark.parametrize("mode", ["split", "persistent"])
def test_metadata_is_made_once_for_many_layers(mode: str) -> None:
    lowered = layers(case(), mode, count=3)
    calls = ir.custom_calls(lowered)
    assert len(calls) == 3
    shared = 6 if mode == "split" else 9
    assert len({tuple(call.values[4:shared]) for call in calls}) == 1
    if ("rocm", "asm") in native.LAUNCHES:
        (metadata,) = ir.custom_calls(lowered, "jax_mla_metadata_")
        assert metadata.target == "jax_mla_metadata_rocm_v1"
        assert metadata.operands == [((2,), "i32"), ((2, 10), "i32")]
        assert [shape for shape, _ in metadata.results[:2]] == [(3,), (320,)]
        assert len(metadata.results) == (2 if mode == "split" else 5)


def test_metadata_without_device_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA makes it then, so that the program is lowered all the same."""
    monkeypatch.setattr(native, "LAUNCHES", frozenset())
    lowered = layers(case(), "persistent", count=1)
    assert len(ir.custom_calls(lowered)) == 1
    assert ir.custom_calls(lowered, "jax_mla_metadata_") == []


@pytest.mark.parametrize(("heads", "groups"), [(4, 1), (24, 2)])
@pytest.mark.parametrize("vmap", [False, True])
def test_operands_of_persistent_mode(heads: int, groups: int, vmap: bool) -> None:
    """Under vmap the plan is made anew, for all examples together."""
    (call,) = ir.custom_calls(layers(case(heads, q_len=4), "persistent", count=1, vmap=vmap))
    assert call.attributes["mode"] == '"persistent"'
    assert call.attributes["num_kv_splits"] == "1 : i64"
    assert call.attributes["padded_heads"] == f"{16 * groups} : i64"
    # 160 tokens leave no room for partial results: a unit for each sequence.
    sequences = 2 * groups
    works = 2 * sequences - 1
    assert call.operands[0] == ((sequences, 4, 16, 576), "bf16")
    assert call.operands[4:] == [
        ((3,), "i32"),
        ((320,), "i32"),
        ((sequences + 1,), "i32"),
        ((works, 8), "i32"),
        ((sequences + 1,), "i32"),
        ((1, sequences + 1), "i32"),
    ]
    assert call.results == [
        ((2, 4, heads, 512), "bf16"),
        ((2, 4, heads), "f32"),
        ((256 + works * 4 * 16 * 513 * 4,), "ui8"),
    ]


def test_rows_plan_does_not_pad() -> None:
    lowered = ir.lower(case(5), "rocm", implementation="asm", head_plan="rows")
    call = only_call(lowered)
    assert call.operands[0] == ((2, 1, 5, 576), "bf16")
    assert call.attributes["padded_heads"] == "5 : i64"


# --- CUDA, and everything else --------------------------------------------------------------------


@pytest.mark.parametrize("heads", [4, 16, 20])
def test_cuda_does_not_pad(heads: int) -> None:
    lowered = ir.lower(case(heads), "cuda", implementation="kernel", target=H200)
    call = only_call(lowered)
    assert call.target == "jax_mla_decode_kernel_cuda_v1"
    assert call.operands[0] == ((2, 1, heads, 576), "bf16")
    assert len(call.operands) == 4  # pages are addressed directly
    assert call.attributes["heads"] == f"{heads} : i64"
    assert call.attributes["arch"] == '"sm_90"'


@pytest.mark.parametrize(
    ("target", "source", "workers"),
    [
        (MI300X, "decode", 304),
        (MI355X, "decode", 512),
        (A100, "decode", 108),
        (H200, "decode_sm90", 132),
    ],
    ids=lambda x: getattr(x, "arch", None),
)
@pytest.mark.parametrize(("heads", "tile_rows", "tiles"), [(4, 8, 1), (20, 16, 3)])
@pytest.mark.parametrize("splits", [None, 3])
def test_our_kernels_say_what_they_are_to_launch(
    target: Target, source: str, workers: int, heads: int, tile_rows: int, tiles: int,
    splits: int | None,
) -> None:  # fmt: skip
    """Workers share the keys of 2 * tiles jobs: there is a part for each, and one for each job."""
    row_floats = 514
    if source == "decode":
        tile_rows, row_floats = 16, 513
    workers -= workers % (2 * tiles)
    platform = "rocm" if target.arch.startswith("gfx") else "cuda"
    lowered = ir.lower(
        case(heads, 2), platform, implementation="kernel", target=target, num_kv_splits=splits
    )
    call = only_call(lowered)
    assert call.attributes["source"] == f'"{source}"'
    assert call.attributes["num_kv_splits"] == f"{splits or 0} : i64"
    assert call.attributes["workers"] == f"{0 if splits else workers} : i64"
    parts = 2 * tiles * splits if splits else 2 * tiles + workers
    assert call.results == [
        ((2, 2, heads, 512), "bf16"),
        ((2, 2, heads), "f32"),
        ((parts * tile_rows * row_floats * 4,), "ui8"),
    ]


@pytest.mark.parametrize("platform", ["cpu", "rocm", "cuda", "tpu"])
def test_xla_everywhere(platform: str) -> None:
    assert ir.custom_calls(ir.lower(case(), platform, implementation="xla")) == []


# --- The choice -----------------------------------------------------------------------------------


@pytest.fixture
def fresh_warnings() -> None:
    lowering._warn_fallback.cache_clear()


@pytest.fixture
def with_aiter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if AITER were here, whole."""
    monkeypatch.setattr(aiter, "find", lambda kernel: kernel)


@pytest.mark.parametrize("platform", ["rocm", "cuda"])
def test_without_device_code_it_is_xla_and_says_so(
    platform: str, monkeypatch: pytest.MonkeyPatch, fresh_warnings: None
) -> None:
    monkeypatch.setattr(native, "LAUNCHES", frozenset())
    said = f"lowering for {platform} with implementation='xla': this build of jax_mla has no "
    with pytest.warns(UserWarning, match=said):
        lowered = ir.lower(case(), platform)
    assert ir.custom_calls(lowered) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ir.lower(case(5), platform)  # once is enough


def test_without_aiter_it_is_not_asm_and_says_so(
    monkeypatch: pytest.MonkeyPatch, fresh_warnings: None
) -> None:
    def find(kernel: kernels.Kernel) -> None:
        raise Unserved("AITER was not found")

    monkeypatch.setattr(native, "LAUNCHES", frozenset({("rocm", "asm")}))
    monkeypatch.setattr(aiter, "find", find)
    with pytest.warns(UserWarning, match="implementation='xla': AITER was not found"):
        assert ir.custom_calls(ir.lower(case(), "rocm")) == []
    # An explicit choice is for the machine that the program will run on.
    assert only_call(ir.lower(case(), "rocm", implementation="asm")).attributes["code_object"]


def test_the_best_that_can_be_launched(
    monkeypatch: pytest.MonkeyPatch, with_aiter: None, fresh_warnings: None
) -> None:
    launches = {("rocm", "asm"), ("rocm", "kernel"), ("cuda", "kernel")}
    monkeypatch.setattr(native, "LAUNCHES", frozenset(launches))
    assert only_call(ir.lower(case(), "rocm")).target == "jax_mla_decode_asm_rocm_v1"
    assert only_call(ir.lower(case(), "cuda")).target == "jax_mla_decode_kernel_cuda_v1"
    with pytest.warns(UserWarning, match=r"expected latent_dim \+ rope of 512\+64"):
        lowered = ir.lower(case(latent_dim=256), "rocm")
    assert only_call(lowered).target == "jax_mla_decode_kernel_rocm_v1"


def test_what_is_no_better_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, with_aiter: None, fresh_warnings: None
) -> None:
    monkeypatch.setattr(native, "LAUNCHES", frozenset({("rocm", "asm")}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert only_call(ir.lower(case(), "rocm")).target == "jax_mla_decode_asm_rocm_v1"


@pytest.mark.parametrize(
    ("platform", "made", "options", "message"),
    [
        ("cpu", case, {"implementation": "asm"}, "there is none for platform 'cpu'.*served.*'xla'"),
        (
            "cpu",
            functools.partial(case, latent_dim=100),
            {"implementation": "kernel"},
            r"multiple of 64 .* got 100 and \d+; served for this call: 'xla'",
        ),
        ("cuda", case, {"implementation": "asm"}, "none for platform 'cuda'.*'kernel', 'xla'"),
        ("tpu", case, {"implementation": "kernel"}, "none for platform 'tpu'"),
        (
            "rocm",
            functools.partial(case, latent_dim=256),
            {"implementation": "asm"},
            r"512\+64, got 256\+64; served for this call: 'kernel', 'xla'",
        ),
        (
            "rocm",
            functools.partial(case, dtypes="f32"),
            {"implementation": "kernel"},
            "got float32; served for this call: 'xla'",
        ),
        (
            "rocm",
            functools.partial(case, dtypes="fp8fn"),
            {"implementation": "asm", "target": MI300X},
            "q: expected float8_e4m3fnuz on gfx942, got float8_e4m3fn",
        ),
        (
            "rocm",
            functools.partial(case, dtypes="bf16-fp8fnuz"),
            {"implementation": "asm", "target": MI355X},
            "kv_pages: expected float8_e4m3fn on gfx950, got float8_e4m3fnuz",
        ),
        (
            "cuda",
            functools.partial(case, dtypes="fp8fnuz"),
            {"implementation": "kernel", "target": H200},
            "expected float8_e4m3fn on sm_90",
        ),
        (
            "rocm",
            case,
            {"implementation": "asm", "target": Target("gfx90a", 104)},
            "expected arch gfx942 or gfx950, got gfx90a",
        ),
        (
            "rocm",
            functools.partial(case, 20),
            {"implementation": "asm", "head_plan": "rows"},
            "head_plan='rows': .* takes head_plan 'pad', got 20 heads; served for this call: 'ker",
        ),
        (
            "rocm",
            functools.partial(case, dtypes="fp8fn"),
            {"implementation": "asm", "head_plan": "rows", "target": MI355X},
            "head_plan='rows': mla_a8w8_qh16_qseqlen1_gqaratio16 takes head_plan 'pad'",
        ),
        (
            "rocm",
            functools.partial(case, dtypes="bf16-fp8fnuz"),
            {"implementation": "asm", "target": MI300X},
            "no kernel for bf16 q on a fp8 cache in mode 'split'.*serves: mode 'persistent'",
        ),
        (
            "rocm",
            functools.partial(case, dtypes="fp8fnuz"),
            {"implementation": "asm", "num_kv_splits": 1},
            "expected num_kv_splits of at least 2 .* got 1",
        ),
    ],
)
def test_refusals_name_what_is_served(
    platform: str, made: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(NotImplementedError, match=message):
        ir.lower(made(), platform, **options)


@pytest.mark.parametrize(
    ("heads", "target", "tokens", "refusal"),
    [
        (4, MI300X, 2**32 // 1152, None),  # tokens of 1152 bytes, just below 4 GiB
        (4, MI300X, 2**32 // 1152 + 1, r"a cache of at most 2\*\*32 bytes, got 4294968192"),
        (4, MI300X, 2**24 + 1, r"at most 2\*\*24 tokens in the cache, got 16777217"),
        (64, MI300X, 2**26, r"at most 2\*\*24 tokens in the cache, got 67108864"),
        (64, MI355X, 2**26, None),  # its kernel has addresses of 64 bits
    ],
)
def test_caches_that_a_kernel_cannot_address_are_refused(
    heads: int, target: Target, tokens: int, refusal: str | None
) -> None:
    struct = jax.ShapeDtypeStruct
    operands = (
        struct((2, heads, 576), jnp.bfloat16),
        struct((tokens, 1, 576), jnp.bfloat16),
        struct((2,), jnp.int32),
        struct((2, 160), jnp.int32),
    )
    decode = functools.partial(jax_mla.decode, scale=0.1, implementation="asm", target=target)
    traced = jax.jit(decode).trace(*operands)
    if refusal is None:
        call = only_call(traced.lower(lowering_platforms=("rocm",)))
        assert call.operands[1] == ((tokens, 1, 576), "bf16")
    else:
        with pytest.raises(NotImplementedError, match=refusal):
            traced.lower(lowering_platforms=("rocm",))


# --- Without the plugin, and on paper -------------------------------------------------------------


def test_no_gpu_plugin_is_needed() -> None:
    assert not [name for name in sys.modules if name.startswith("jax_rocm")]
    with pytest.raises(RuntimeError):
        jax.devices("rocm")
    call = only_call(ir.lower(case(), "rocm", implementation="asm"))
    assert call.attributes["arch"] == '"gfx942"'  # MI300X, for want of a device


def test_export_for_all_platforms_runs_on_this_one(fresh_warnings: None) -> None:
    one = case()
    step = jax.jit(functools.partial(jax_mla.decode, **one.options, return_residuals=True))
    checks = [
        export.DisabledSafetyCheck.custom_call(f"jax_mla_decode_kernel_{platform}_v1")
        for platform in ("cpu", "rocm", "cuda")
    ]
    with pytest.warns(UserWarning):  # AITER is not here
        exported = export.export(step, platforms=["cpu", "rocm", "cuda"], disabled_checks=checks)(
            *one.operands
        )
    loaded = export.deserialize(exported.serialize())
    assert set(loaded.platforms) == {"cpu", "rocm", "cuda"}
    for a, b in zip(loaded.call(*one.operands), step(*one.operands), strict=True):
        np.testing.assert_array_equal(a, b)


def test_export_of_the_custom_call_with_a_symbolic_batch() -> None:
    one = case()
    (batch,) = export.symbolic_shape("b")
    arguments = [
        jax.ShapeDtypeStruct(x.shape if i == 1 else (batch, *x.shape[1:]), x.dtype)
        for i, x in enumerate(one.operands)
    ]
    step = jax.jit(functools.partial(jax_mla.decode, scale=0.1, implementation="asm"))
    name = "jax_mla_decode_asm_rocm_v1"
    exported = export.export(
        step,
        platforms=["rocm"],
        disabled_checks=[
            export.DisabledSafetyCheck.custom_call(target)
            for target in (name, "jax_mla_metadata_rocm_v1")
        ],
    )(*arguments)
    text = export.deserialize(exported.serialize()).mlir_module()
    assert text.count(f"@{name}(") == 1
    assert "num_kv_splits = 16 : i64" in text
    with pytest.raises(ValueError, match="cpu"):
        exported.call(*one.operands)


def test_the_gradient_keeps_the_custom_call() -> None:
    one = dataclasses.replace(case(), lengths=np.array([160, 7], np.int32))
    q, kv_pages, lengths, page_indices = one.operands

    def loss(q: jax.Array) -> jax.Array:
        out = jax_mla.decode(q, kv_pages, lengths, page_indices, scale=0.1, implementation="asm")
        return out.astype(jnp.float32).sum()

    lowered = jax.jit(jax.value_and_grad(loss)).trace(q).lower(lowering_platforms=("rocm",))
    only_call(lowered)
