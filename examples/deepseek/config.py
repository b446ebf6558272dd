# SPDX-License-Identifier: Apache-2.0
"""config.json of a DeepSeek-V2/V3 checkpoint: what this example serves, and what it refuses."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LATENT = 512  # kv_lora_rank
ROPE = 64  # qk_rope_head_dim
DTYPES = ("bfloat16", "float16", "float32")

# How each published model type scores its experts and may choose among them.
_SCORING = {"deepseek_v2": "softmax", "deepseek_v3": "sigmoid"}
_TOPK_METHODS = {
    "deepseek_v2": ("greedy", "group_limited_greedy"),
    "deepseek_v3": ("noaux_tc",),
}
# Keys that change the computation, with the only value that is served. Absent or null is fine.
_ONLY = {
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
    "quantization_config": None,
}


@dataclasses.dataclass(frozen=True)
class Yarn:
    """Yarn context extension, with the defaults of DeepSeek's published code."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0

    def magnitude(self, mscale: float) -> float:
        """The growth of attention logits that a `factor` times longer context asks for."""
        return 1.0 + 0.1 * mscale * math.log(self.factor) if self.factor > 1 else 1.0


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary embedding of the last 64 dimensions of a head."""

    theta: float
    interleaved: bool
    yarn: Yarn | None


@dataclasses.dataclass(frozen=True)
class Experts:
    """Mixture-of-experts layers; the fields are named as in config.json."""

    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    routed_scaling_factor: float
    norm_topk_prob: bool
    topk_method: str
    n_group: int
    topk_group: int
    first_k_dense_replace: int
    moe_layer_freq: int


@dataclasses.dataclass(frozen=True)
class Config:
    """The model; the fields are named as in config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    q_lora_rank: int | None
    qk_nope_head_dim: int
    v_head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    dtype: str
    eos_token_ids: tuple[int, ...]
    rope: Rope
    experts: Experts | None

    def is_moe(self, layer: int) -> bool:
        """Whether `layer` routes its tokens to experts."""
        moe = self.experts
        return (
            moe is not None
            and layer >= moe.first_k_dense_replace
            and layer % moe.moe_layer_freq == 0
        )

    @property
    def softmax_scale(self) -> float:
        """What q.k is multiplied by: 1/sqrt(head_dim), times yarn's logit growth."""
        scale = 1.0 / math.sqrt(self.qk_nope_head_dim + ROPE)
        yarn = self.rope.yarn
        return scale * yarn.magnitude(yarn.mscale_all_dim) ** 2 if yarn else scale


def read(folder: Path) -> Config:
    """The configuration of the checkpoint in `folder`."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: expected a Hugging Face checkpoint folder")
    return parse(json.loads(path.read_text()))


def parse(raw: Mapping[str, Any]) -> Config:
    """The configuration in `raw`, the content of config.json."""
    # A null stands for the default, as everywhere in config.json.
    raw = {key: value for key, value in raw.items() if value is not None}
    model_type = _need(raw, "model_type")
    if model_type not in _SCORING:
        raise NotImplementedError(
            f"model_type: expected one of {list(_SCORING)}, got {model_type!r}"
        )
    for key, value in {
        **_ONLY,
        "kv_lora_rank": LATENT,
        "qk_rope_head_dim": ROPE,
        "num_key_value_heads": _need(raw, "num_attention_heads"),
        "scoring_func": _SCORING[model_type],
    }.items():
        if raw.get(key, value) != value:
            raise NotImplementedError(f"{key}: expected {value!r}, got {raw[key]!r}")
    eos = raw.get("eos_token_id", [])
    return Config(
        vocab_size=_need(raw, "vocab_size"),
        hidden_size=_need(raw, "hidden_size"),
        intermediate_size=_need(raw, "intermediate_size"),
        num_hidden_layers=_need(raw, "num_hidden_layers"),
        num_attention_heads=_need(raw, "num_attention_heads"),
        q_lora_rank=raw.get("q_lora_rank"),
        qk_nope_head_dim=_need(raw, "qk_nope_head_dim"),
        v_head_dim=_need(raw, "v_head_dim"),
        rms_norm_eps=_need(raw, "rms_norm_eps"),
        max_position_embeddings=_need(raw, "max_position_embeddings"),
        tie_word_embeddings=raw.get("tie_word_embeddings", False),
        dtype=_dtype(raw),
        eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos,),
        rope=_rope(raw),
        experts=_experts(raw, model_type) if "n_routed_experts" in raw else None,
    )


def _need(raw: Mapping[str, Any], key: str) -> Any:
    if key not in raw:
        raise ValueError(f"config.json has no {key!r}")
    return raw[key]


def _dtype(raw: Mapping[str, Any]) -> str:
    name: str = raw.get("dtype", raw.get("torch_dtype", "bfloat16"))
    if name not in DTYPES:
        raise NotImplementedError(f"dtype: expected one of {list(DTYPES)}, got {name!r}")
    return name


def _rope(raw: Mapping[str, Any]) -> Rope:
    if "rope_parameters" in raw and "rope_scaling" in raw:
        raise ValueError("config.json has both 'rope_parameters' and 'rope_scaling': expected one")
    given = raw.get("rope_parameters", raw.get("rope_scaling", {}))
    options = {key: value for key, value in given.items() if value is not None}
    # Older files say "type"; files that were written anew often hold both.
    kinds = {options.pop(key, None) for key in ("type", "rope_type")} - {None}
    theta = float(options.pop("rope_theta", raw.get("rope_theta", 10000.0)))
    if not kinds <= {"default"} and kinds != {"yarn"}:
        raise NotImplementedError(f"rope type: expected 'default' or 'yarn', got {sorted(kinds)}")
    served = {field.name for field in dataclasses.fields(Yarn)} if kinds == {"yarn"} else set()
    if unknown := sorted(options.keys() - served):
        raise NotImplementedError(f"rope parameters: expected {sorted(served)}, got {unknown} too")
    yarn = None
    if kinds == {"yarn"}:
        for key in ("factor", "original_max_position_embeddings"):
            _need(options, key)
        yarn = Yarn(**options)
    return Rope(theta, raw.get("rope_interleave", True), yarn)


def _experts(raw: Mapping[str, Any], model_type: str) -> Experts:
    methods = _TOPK_METHODS[model_type]
    method = raw.get("topk_method", methods[0])
    if method not in methods:
        raise NotImplementedError(f"topk_method: expected one of {list(methods)}, got {method!r}")
    moe = Experts(
        n_routed_experts=_need(raw, "n_routed_experts"),
        n_shared_experts=raw.get("n_shared_experts", 0),
        num_experts_per_tok=_need(raw, "num_experts_per_tok"),
        moe_intermediate_size=_need(raw, "moe_intermediate_size"),
        routed_scaling_factor=_need(raw, "routed_scaling_factor"),
        norm_topk_prob=_need(raw, "norm_topk_prob"),
        topk_method=method,
        n_group=1 if method == "greedy" else _need(raw, "n_group"),
        topk_group=1 if method == "greedy" else _need(raw, "topk_group"),
        first_k_dense_replace=_need(raw, "first_k_dense_replace"),
        moe_layer_freq=raw.get("moe_layer_freq", 1),
    )
    if model_type == "deepseek_v2" and moe.norm_topk_prob:
        # DeepSeek's code and transformers disagree here, and no published checkpoint asks for it.
        raise NotImplementedError("norm_topk_prob: expected False for deepseek_v2, got True")
    _check_groups(moe)
    return moe


def _check_groups(moe: Experts) -> None:
    per_group, rest = divmod(moe.n_routed_experts, moe.n_group)
    if rest or (moe.topk_method == "noaux_tc" and per_group < 2):
        raise ValueError(
            f"n_group: expected {moe.n_routed_experts} experts in equal groups of two or more,"
            f" got {moe.n_group} groups"
        )
    if not 1 <= moe.topk_group <= moe.n_group:
        raise ValueError(f"topk_group: expected 1..{moe.n_group}, got {moe.topk_group}")
    if not 1 <= moe.num_experts_per_tok <= moe.topk_group * per_group:
        raise ValueError(
            f"num_experts_per_tok: expected 1..{moe.topk_group * per_group},"
            f" got {moe.num_experts_per_tok}"
        )
