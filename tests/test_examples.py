# SPDX-License-Identifier: Apache-2.0
"""The DeepSeek example: its refusals, its parts, and paged decode against plain attention."""

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jax_mla

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import demo_checkpoint
import generate
from deepseek import checkpoint
from deepseek import config as configs
from deepseek import engine as engines
from deepseek.check import BOUNDS, Comparison, compare
from deepseek.config import Config, Experts, Rope, Yarn
from deepseek.model import step
from deepseek.moe import choose, mixture
from deepseek.rope import inverse_frequencies, rotate, rotation

YARN = Yarn(factor=4.0, original_max_position_embeddings=256, mscale=1.0, mscale_all_dim=0.8)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("demo")
    demo_checkpoint.write(folder)
    return folder


def parse(**changes: Any) -> Config:
    return configs.parse(demo_checkpoint.CONFIG | changes)


# config.json


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type: expected one of .*deepseek_v3.*, got 'llama'"),
        ({"kv_lora_rank": 256}, "kv_lora_rank: expected 512, got 256"),
        ({"qk_rope_head_dim": 32}, "qk_rope_head_dim: expected 64, got 32"),
        ({"num_key_value_heads": 1}, "num_key_value_heads: expected 4, got 1"),
        ({"attention_bias": True}, "attention_bias: expected False, got True"),
        ({"hidden_act": "gelu"}, "hidden_act: expected 'silu', got 'gelu'"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config: .*fp8"),
        ({"torch_dtype": "float8_e4m3fn"}, "dtype: .*float8_e4m3fn"),
        ({"scoring_func": "softmax"}, "scoring_func: expected 'sigmoid', got 'softmax'"),
        ({"topk_method": "greedy"}, "topk_method: .*noaux_tc.*, got 'greedy'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope type: .*linear"),
        ({"rope_scaling": {"factor": 2.0}}, "rope parameters: .*factor"),
        (
            {"rope_scaling": dataclasses.asdict(YARN) | {"type": "yarn", "attention_factor": 1.0}},
            "rope parameters: .*attention_factor",
        ),
        (
            {
                "model_type": "deepseek_v2",
                "scoring_func": "softmax",
                "topk_method": "greedy",
                "norm_topk_prob": True,
            },
            "norm_topk_prob: expected False",
        ),
    ],
)
def test_refuses_what_it_does_not_serve(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        parse(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "config.json has no 'hidden_size'"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "original_max_position_embeddings"),
        ({"rope_parameters": {"rope_type": "default"}}, "both 'rope_parameters' and"),
        ({"n_group": 3}, "n_group: expected 8 experts in equal groups"),
        ({"topk_group": 5}, "topk_group: expected 1..4, got 5"),
        ({"num_experts_per_tok": 5}, "num_experts_per_tok: expected 1..4, got 5"),
    ],
)
def test_refuses_what_makes_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(**changes)


def test_reads_both_forms_of_rope() -> None:
    yarn = demo_checkpoint.CONFIG["rope_scaling"]
    renamed = {("rope_type" if key == "type" else key): yarn[key] for key in yarn}
    new = {"rope_scaling": None, "rope_theta": None}
    assert parse(**new, rope_parameters=renamed | {"rope_theta": 10000.0}) == parse()
    assert parse().rope == Rope(10000.0, True, YARN)
    assert parse(rope_scaling=None).rope == Rope(10000.0, True, None)


def test_which_layers_are_moe() -> None:
    config = parse(num_hidden_layers=6, first_k_dense_replace=1, moe_layer_freq=2)
    assert [config.is_moe(n) for n in range(6)] == [False, False, True, False, True, False]
    assert not any(parse(n_routed_experts=None).is_moe(n) for n in range(2))


# Rope


def test_yarn_frequencies_against_the_formula() -> None:
    rope = Rope(10000.0, True, dataclasses.replace(YARN, factor=40.0, beta_fast=32, beta_slow=1))

    def turns(pair: float) -> float:
        """Full turns of a pair within the original context."""
        return 256 / (2 * math.pi) * math.exp(-pair / 32 * math.log(10000.0))

    # The last pair that turns 32 times or more, the first that turns once or less.
    first = max(pair for pair in range(-32, 32) if turns(pair) >= 32)
    last = min(pair for pair in range(32) if turns(pair) <= 1)
    expected = []
    for pair in range(32):
        frequency = 10000.0 ** (-pair / 32)
        slow = min(max((pair - max(first, 0)) / (last - max(first, 0)), 0.0), 1.0)
        expected.append(frequency * (1 - slow) + frequency / 40.0 * slow)
    np.testing.assert_allclose(inverse_frequencies(rope), expected, rtol=1e-6)


def test_yarn_magnitudes() -> None:
    rope = Rope(10000.0, True, YARN)
    cos, sin = rotation(rope, jnp.arange(3))
    size = (1 + 0.1 * math.log(4.0)) / (1 + 0.08 * math.log(4.0))
    np.testing.assert_allclose(cos**2 + sin**2, np.full((3, 32), size**2), rtol=1e-6)
    scale = 128**-0.5 * (1 + 0.08 * math.log(4.0)) ** 2
    assert parse().softmax_scale == pytest.approx(scale, rel=1e-12)
    assert parse(rope_scaling=None).softmax_scale == pytest.approx(128**-0.5, rel=1e-12)


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotation_depends_on_the_distance_alone(interleaved: bool) -> None:
    rng = np.random.default_rng(0)
    q, k = jnp.asarray(rng.normal(size=(2, 64)), jnp.float32)
    rope = Rope(10000.0, interleaved, None)

    def score(at_q: int, at_k: int) -> float:
        turned = [
            rotate(x, *rotation(rope, jnp.array(at)), interleaved=interleaved)
            for x, at in ((q, at_q), (k, at_k))
        ]
        return float(turned[0] @ turned[1])

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert score(0, 0) == pytest.approx(float(q @ k), abs=1e-5)
    # One pair of neighbours, or of places 32 apart, turned by one radian at position 1.
    x = jnp.zeros(64).at[0].set(1.0)
    turned = np.asarray(rotate(x, *rotation(rope, jnp.array(1)), interleaved=interleaved))
    assert turned[[0, 32]] == pytest.approx([math.cos(1), math.sin(1)], abs=1e-6)


# Routing


def loop_routing(moe: Experts, scores: np.ndarray, bias: np.ndarray) -> dict[int, float]:
    """The experts and weights of one token, step by step."""
    merit = scores + bias if moe.topk_method == "noaux_tc" else scores
    candidates = set(range(moe.n_routed_experts))
    if moe.topk_method != "greedy":
        groups = np.split(np.arange(moe.n_routed_experts), moe.n_group)
        best = 2 if moe.topk_method == "noaux_tc" else 1
        worth = [sum(sorted(merit[group])[-best:]) for group in groups]
        kept = np.argsort(worth)[-moe.topk_group :]
        candidates = {int(expert) for group in kept for expert in groups[group]}
    chosen = sorted(candidates, key=lambda expert: -merit[expert])[: moe.num_experts_per_tok]
    total = sum(scores[expert] for expert in chosen) if moe.norm_topk_prob else 1.0
    return {expert: scores[expert] / total * moe.routed_scaling_factor for expert in chosen}


@pytest.mark.parametrize(
    ("method", "norm"),
    [("noaux_tc", True), ("noaux_tc", False), ("greedy", False), ("group_limited_greedy", False)],
)
def test_routing_against_a_loop(method: str, norm: bool) -> None:
    moe = Experts(
        n_routed_experts=24,
        n_shared_experts=0,
        num_experts_per_tok=5,
        moe_intermediate_size=1,
        routed_scaling_factor=2.5,
        norm_topk_prob=norm,
        topk_method=method,
        n_group=6,
        topk_group=3,
        first_k_dense_replace=0,
        moe_layer_freq=1,
    )
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=(50, 24)).astype(np.float32)
    # Below -1 for some: a group that is out must stay out even against negative merits.
    bias = rng.normal(-0.5, 0.5, 24).astype(np.float32)
    chosen = choose(moe, jnp.asarray(scores), jnp.asarray(bias) if method == "noaux_tc" else None)
    weights = mixture(moe, jnp.asarray(scores), chosen)
    for token in range(50):
        expected = loop_routing(moe, scores[token], bias)
        got = dict(zip(np.asarray(chosen[token]).tolist(), weights[token].tolist(), strict=True))
        assert got == pytest.approx(expected, rel=1e-5)


# Checkpoints


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    return {
        name: tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def write_single(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(demo_checkpoint.CONFIG))
    return folder


def load(folder: Path, dtype: str) -> Any:
    return checkpoint.load(folder, configs.read(folder), dtype)


def test_demo_checkpoint_is_reproducible(demo: Path, tmp_path: Path) -> None:
    demo_checkpoint.write(tmp_path)
    names = sorted(path.name for path in demo.iterdir())
    assert [name.split(".")[-1] for name in names].count("safetensors") == 2
    for name in names:
        assert (tmp_path / name).read_bytes() == (demo / name).read_bytes(), name


def test_one_file_or_several_are_the_same(demo: Path, tmp_path: Path) -> None:
    tensors = tensors_of(demo)
    # A multi-token prediction layer, as the published checkpoints have one.
    tensors["model.layers.2.eh_proj.weight"] = np.ones((2, 2), np.float32)
    sharded = load(demo, "bfloat16")
    single = load(write_single(tmp_path, tensors), "bfloat16")
    assert jax.tree.all(jax.tree.map(np.array_equal, sharded, single))
    assert sharded.layers[0].attention.k_b.shape == (4, 64, 512)
    assert sharded.layers[1].mlp.routed.gate.shape == (8, 128, 256)
    assert sharded.layers[1].mlp.routed.gate.dtype == ml_dtypes.bfloat16
    assert sharded.layers[1].mlp.router.dtype == np.float32


def drop(tensors: dict[str, Any]) -> None:
    del tensors["model.layers.1.mlp.experts.3.up_proj.weight"]


def reshape(tensors: dict[str, Any]) -> None:
    tensors["model.layers.0.self_attn.o_proj.weight"] = np.ones((256, 8), np.float32)


def quantise(tensors: dict[str, Any]) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].astype(ml_dtypes.float8_e4m3fn)


def add(tensors: dict[str, Any]) -> None:
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.ones(8, np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (drop, ValueError, r"no tensor 'model.layers.1.mlp.experts.3.up_proj.weight'"),
        (reshape, ValueError, r"o_proj.weight: expected shape \(256, 256\), got \(256, 8\)"),
        (quantise, NotImplementedError, "up_proj.weight: expected dtype BF16/F16/F32, got F8"),
        (add, ValueError, "1 tensors have no place .*q_proj.bias"),
    ],
)
def test_refuses_tensors_by_name(
    demo: Path, tmp_path: Path, change: Callable[..., None], error: type[Exception], message: str
) -> None:
    tensors = tensors_of(demo)
    change(tensors)
    with pytest.raises(error, match=message):
        load(write_single(tmp_path, tensors), "float32")


def test_refuses_broken_folders(demo: Path, tmp_path: Path) -> None:
    config = configs.read(demo)
    with pytest.raises(FileNotFoundError, match=r"config\.json not found"):
        configs.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither model"):
        checkpoint.load(tmp_path, config, "float32")
    index = "model.safetensors.index.json"
    (tmp_path / index).write_text((demo / index).read_text())
    with pytest.raises(FileNotFoundError, match=r"model-00001-of-00002\S+ not found"):
        checkpoint.load(tmp_path, config, "float32")
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"12345678 not a header")
    with pytest.raises(ValueError, match=r"00001-of-00002\S+ is not a whole"):
        checkpoint.load(tmp_path, config, "float32")


# Decoding

PROMPTS = [np.random.default_rng(n).integers(0, 256, n).tolist() for n in (1, 33, 16)]


def test_page_table_uses_every_page_but_the_first_once() -> None:
    table = engines.page_table(3, 5)
    assert sorted(table.ravel().tolist()) == list(range(1, 16))
    assert (np.diff(table) != 1).any()


def decode_and_compare(folder: Path, dtype: str) -> Comparison:
    """A ragged batch, paged and absorbed, against plain attention in float32."""
    config = configs.read(folder)
    engine = engines.Engine(config, load(folder, dtype), batch=3, capacity=33 + 20, page_size=8)
    predictions = engine.prefill(PROMPTS)
    for _ in range(19):
        predictions.append(engine.decode(predictions[-1].token))
    return compare(config, load(folder, "float32"), PROMPTS, predictions)


def test_a_ragged_batch_against_plain_attention(demo: Path) -> None:
    assert decode_and_compare(demo, "float32").relative < 1e-5


def shared_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator hands out one page twice."""
    table = engines.page_table(3, 7)
    table[1, 1] = table[2, 1]
    monkeypatch.setattr(engines, "page_table", lambda *_: table)


def lost_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """One slot of every page reads as zero."""
    decode = jax_mla.decode

    def forgetful(q: jax.Array, pages: jax.Array, *args: Any, **kwargs: Any) -> Any:
        return decode(q, pages.at[:, 3].set(0), *args, **kwargs)

    monkeypatch.setattr(jax_mla, "decode", forgetful)
    # JAX keeps what it traced of a function, so a fault inside of it needs another function.
    monkeypatch.setattr(engines, "step", lambda *args: step(*args))


@pytest.mark.parametrize("fault", [shared_page, lost_key])
def test_the_check_finds_planted_faults(
    demo: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    fault(monkeypatch)
    assert decode_and_compare(demo, "bfloat16").relative > 2 * BOUNDS["bfloat16"]


# The command


def run_generate(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["generate.py", *args])
    return generate.main()


@pytest.mark.parametrize(
    ("prompts", "dtype", "mode"),
    [
        (["A row a token."], "float32", "split"),
        (["Short.", "A longer one."], "bfloat16", "persistent"),
    ],
)
def test_generate_checks_itself(
    demo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    prompts: list[str],
    dtype: str,
    mode: str,
) -> None:
    args = [word for prompt in prompts for word in ("--prompt", prompt)]
    args += ["--max-new-tokens", "8", "--dtype", dtype, "--mode", mode, "--check"]
    assert run_generate(monkeypatch, str(demo), *args) == 0
    out, err = capsys.readouterr()
    for prompt in prompts:
        assert prompt in out
    for word in ("load", "compile", "prefill", "decode", f"{8 * len(prompts)} positions", "ok"):
        assert word in err


@pytest.mark.parametrize("error", [0.2, math.nan])
def test_generate_fails_beyond_the_bound(
    demo: Path, monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    monkeypatch.setattr(generate, "compare", lambda *_: Comparison(error, 1.0))
    run = generate.Run([], np.zeros((1, 8)), 1.0, 1.0)
    assert generate.check(demo, configs.read(demo), "bfloat16", [[1]], run) == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--prompt", ""], "expected text, got an empty prompt 1"),
        (["--prompt", "a" * 1000], "expected at most max_position_embeddings 1024"),
        (["--prompt", "a", "--max-new-tokens", "0"], "--max-new-tokens: expected 1 or more"),
        (["--prompt", "a", "--page-size", "-1"], "--page-size: expected 1 or more"),
        (
            ["--prompt", "a", "--mode", "persistent", "--dtype", "float32"],
            "mode='persistent': expected a bfloat16 or float8 q, got float32",
        ),
    ],
)
def test_generate_refuses(
    demo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_generate(monkeypatch, str(demo), *args)
    assert message in capsys.readouterr().err


def test_generate_names_missing_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_generate(monkeypatch, str(tmp_path), "--prompt", "a")
    assert "config.json not found" in capsys.readouterr().err


def test_the_first_token_comes_from_tokenizer_config(demo: Path, tmp_path: Path) -> None:
    tokenizer = generate.load_tokenizer(demo)
    plain = generate.encode(tmp_path, tokenizer, ["ab"])[0]
    assert plain[0] == demo_checkpoint.CONFIG["bos_token_id"]
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"add_bos_token": True, "bos_token": {"content": "<bos>"}})
    )
    assert generate.encode(tmp_path, tokenizer, ["ab"])[0] == plain
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"add_bos_token": True, "bos_token": "<eos>"})
    )
    assert generate.encode(tmp_path, tokenizer, ["ab"])[0] == [257, *plain]
