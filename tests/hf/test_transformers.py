# SPDX-License-Identifier: Apache-2.0
"""The example against transformers' DeepSeek-V2 and V3, on tiny models with random weights.

Runs in an environment of its own: torch and transformers are no dependencies of this project.

Where transformers 5 departs from DeepSeek's published code, the example follows the latter:
* cos/sin factor of yarn: m(mscale) / m(mscale_all_dim) with defaults 1 and 0, where transformers
  takes m(1) unless both are given and not 0. `test_yarn_without_mscale_all_dim` shows both.
* norm_topk_prob: not applied to a single chosen expert (V3). transformers ignores it for V2, where
  the example refuses it.
* moe_layer_freq: transformers ignores it.
Not visible in any result: V2's rope leaves the rotated pairs interleaved, V3's in halves.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    PreTrainedModel,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from deepseek import checkpoint
from deepseek import config as configs
from deepseek.engine import Engine
from deepseek.model import forward

VOCAB = 97
STEPS = 32
TOLERANCE = 1e-4
# Longer than a prefill chunk, and not a multiple of one.
PROMPT = np.random.default_rng(0).integers(0, VOCAB, 37)

TINY = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 512,
    "q_lora_rank": 48,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 64,
    "v_head_dim": 24,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 256,
    "eos_token_id": None,
    "attn_implementation": "eager",
}
V3 = {"n_group": 4, "topk_group": 2, "n_shared_experts": 1, "routed_scaling_factor": 2.5}
V2 = {"n_shared_experts": 2, "topk_method": "greedy"}
GROUPED = {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 0.7,
}

VARIANTS = {
    "v3": V3,
    "v3-no-q-lora": V3 | {"q_lora_rank": None},
    "v3-yarn": V3 | {"rope_parameters": YARN},
    "v3-yarn-published-form": V3
    | {"rope_scaling": {"type": "yarn", **{k: v for k, v in YARN.items() if k[:4] != "rope"}}},
    "v3-tied": V3 | {"tie_word_embeddings": True},
    "v3-rope-in-halves": V3 | {"rope_interleave": False},
    "v3-no-norm": V3 | {"norm_topk_prob": False},
    "v3-one-head": V3 | {"num_attention_heads": 1, "num_key_value_heads": 1},
    "v3-all-dense": V3 | {"first_k_dense_replace": 3},
    "v2-greedy": V2 | {"q_lora_rank": None},
    "v2-greedy-yarn": V2 | {"rope_parameters": YARN, "routed_scaling_factor": 4.0},
    "v2-grouped": V2 | GROUPED | {"routed_scaling_factor": 16.0},
    "v2-grouped-yarn-tied": V2
    | GROUPED
    | {"rope_parameters": YARN, "tie_word_embeddings": True, "q_lora_rank": None},
}


def build(variant: dict[str, Any], version: str) -> PreTrainedModel:
    """A float32 model whose attention, routing and logits are far from degenerate."""
    torch.manual_seed(0)
    if version == "v3":
        model = DeepseekV3ForCausalLM(DeepseekV3Config(**TINY | variant))
    else:
        model = DeepseekV2ForCausalLM(DeepseekV2Config(**TINY | variant))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("norm.weight"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("e_score_correction_bias"):
                tensor.normal_(0.0, 0.2)
            elif name.endswith("embed_tokens.weight"):
                tensor.normal_(0.0, 0.3)
            elif name != "lm_head.weight" or not model.config.tie_word_embeddings:
                tensor.normal_(0.0, 1.5 * tensor.shape[-1] ** -0.5)
    return model.float().eval()


def torch_generate(model: PreTrainedModel) -> tuple[np.ndarray, np.ndarray]:
    """Greedy tokens `[STEPS]` and the logits `[STEPS, VOCAB]` they were taken from."""
    prompt = torch.from_numpy(PROMPT)[None]
    result = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        min_new_tokens=STEPS,
        max_new_tokens=STEPS,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=0,
    )
    return result.sequences[0, len(PROMPT) :].numpy(), torch.cat(result.logits).numpy()


def paged_generate(config: configs.Config, params: Any) -> tuple[np.ndarray, np.ndarray]:
    """The same from the example's engine."""
    engine = Engine(config, params, batch=1, capacity=len(PROMPT) + STEPS, page_size=16)
    predictions = engine.prefill([PROMPT.tolist()])[-1:]
    while len(predictions) < STEPS:
        predictions.append(engine.decode(predictions[-1].token))
    tokens = np.concatenate([np.asarray(p.token) for p in predictions])
    return tokens, np.concatenate([np.asarray(p.logits) for p in predictions])


def load(folder: Path) -> tuple[configs.Config, Any]:
    config = configs.read(folder)
    return config, checkpoint.load(folder, config, "float32")


def full_logits(config: configs.Config, params: Any, tokens: np.ndarray) -> np.ndarray:
    lengths = jnp.array([len(tokens)], jnp.int32)
    run = jax.jit(forward, static_argnums=0)
    return np.asarray(run(config, params, jnp.asarray(tokens)[None], lengths)[0])


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_and_greedy_tokens(name: str, tmp_path: Path) -> None:
    model = build(VARIANTS[name], name[:2])
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    config, params = load(tmp_path)

    expected_tokens, expected_logits = torch_generate(model)
    top = np.sort(expected_logits, axis=-1)
    # No error within the tolerance can turn a token, and the tokens are not all the same.
    assert (top[:, -1] - top[:, -2]).min() > 2 * TOLERANCE
    assert len(set(expected_tokens.tolist())) > STEPS // 4

    sequence = np.concatenate([PROMPT, expected_tokens[:-1]])
    with torch.no_grad():
        whole = model(torch.from_numpy(sequence)[None]).logits[0].numpy()
    full = np.abs(full_logits(config, params, sequence) - whole).max()
    tokens, logits = paged_generate(config, params)
    paged = np.abs(logits - expected_logits).max()
    print(f"{name}: full {full:.1e}, paged {paged:.1e}, largest logit {np.abs(whole).max():.1f}")
    assert full < TOLERANCE
    assert tokens.tolist() == expected_tokens.tolist()
    assert paged < TOLERANCE


def test_the_routing_bias_is_exercised(tmp_path: Path) -> None:
    model = build(V3, "v3")
    model.save_pretrained(tmp_path)
    config, params = load(tmp_path)
    layers = [
        layer._replace(mlp=layer.mlp._replace(bias=0 * layer.mlp.bias))
        if config.is_moe(number)
        else layer
        for number, layer in enumerate(params.layers)
    ]
    unbiased = params._replace(layers=tuple(layers))
    with torch.no_grad():
        expected = model(torch.from_numpy(PROMPT)[None]).logits[0].numpy()
    assert np.abs(full_logits(config, unbiased, PROMPT) - expected).max() > 1000 * TOLERANCE


def test_yarn_without_mscale_all_dim(tmp_path: Path) -> None:
    """transformers agrees when told DeepSeek's factor, as attention_factor, and not otherwise."""
    rope = {key: value for key, value in YARN.items() if key != "mscale_all_dim"} | {"mscale": 0.7}
    published = 1.0 + 0.1 * 0.7 * np.log(rope["factor"])
    told = build(V3 | {"rope_parameters": rope | {"attention_factor": float(published)}}, "v3")
    told.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    del raw["rope_parameters"]["attention_factor"]
    path.write_text(json.dumps(raw))
    logits = full_logits(*load(tmp_path), PROMPT)
    with torch.no_grad():
        agreed = told(torch.from_numpy(PROMPT)[None]).logits[0].numpy()
        alone = build(V3 | {"rope_parameters": rope}, "v3")(torch.from_numpy(PROMPT)[None])
    assert np.abs(logits - agreed).max() < TOLERANCE
    assert np.abs(logits - alone.logits[0].numpy()).max() > 100 * TOLERANCE
