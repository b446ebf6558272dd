# SPDX-License-Identifier: Apache-2.0
"""Writes a small checkpoint with random weights, in the layout of DeepSeek-V3's.

python examples/demo_checkpoint.py FOLDER
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

SPECIAL = ("<bos>", "<eos>")
CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "torch_dtype": "bfloat16",
    "vocab_size": 256 + len(SPECIAL),
    "bos_token_id": 256,
    "eos_token_id": 257,
    "hidden_size": 256,
    "intermediate_size": 512,
    "moe_intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 128,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 64,
    "v_head_dim": 64,
    "attention_bias": False,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "max_position_embeddings": 1024,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 256,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 0.8,
    },
    "tie_word_embeddings": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    write(folder)
    print(f"wrote {folder}: random weights: the text is noise; the check is what counts")


def write(folder: Path) -> None:
    """Writes the same bytes at every call."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    write_shards(folder, random_tensors(CONFIG, seed=0))


def byte_tokenizer() -> Tokenizer:
    """A token for every byte, and no merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    bos = SPECIAL[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def random_tensors(config: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Every tensor of the published layout, large enough for attention and routing to matter."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        if name.endswith("norm.weight"):
            tensor = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("bias"):
            tensor = rng.normal(0.0, 0.1, shape)
        else:
            tensor = rng.normal(0.0, 1.0 if "embed" in name else 1.5 * shape[-1] ** -0.5, shape)
        tensors[name] = tensor.astype(np.float32 if name.endswith("bias") else ml_dtypes.bfloat16)
    return tensors


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Published names and shapes, in the order of the model."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(config["num_hidden_layers"]):
        parts = attention_shapes(config)
        if layer < config["first_k_dense_replace"]:
            parts |= mlp_shapes("mlp", hidden, config["intermediate_size"])
        else:
            parts |= moe_shapes(config)
        parts |= {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in parts.items()}
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}


def attention_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, heads, rank = (
        config[key] for key in ("hidden_size", "num_attention_heads", "q_lora_rank")
    )
    latent, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    nope, v = config["qk_nope_head_dim"], config["v_head_dim"]
    shapes = {
        "q_a_proj": (rank, hidden),
        "q_a_layernorm": (rank,),
        "q_b_proj": (heads * (nope + rope), rank),
        "kv_a_proj_with_mqa": (latent + rope, hidden),
        "kv_a_layernorm": (latent,),
        "kv_b_proj": (heads * (nope + v), latent),
        "o_proj": (hidden, heads * v),
    }
    return {f"self_attn.{name}.weight": shape for name, shape in shapes.items()}


def mlp_shapes(prefix: str, hidden: int, intermediate: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.gate_proj.weight": (intermediate, hidden),
        f"{prefix}.up_proj.weight": (intermediate, hidden),
        f"{prefix}.down_proj.weight": (hidden, intermediate),
    }


def moe_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, wide = config["hidden_size"], config["moe_intermediate_size"]
    experts = config["n_routed_experts"]
    shapes: dict[str, tuple[int, ...]] = {
        "mlp.gate.weight": (experts, hidden),
        "mlp.gate.e_score_correction_bias": (experts,),
    }
    for expert in range(experts):
        shapes |= mlp_shapes(f"mlp.experts.{expert}", hidden, wide)
    return shapes | mlp_shapes("mlp.shared_experts", hidden, config["n_shared_experts"] * wide)


def write_shards(folder: Path, tensors: dict[str, np.ndarray], shards: int = 2) -> None:
    """Splits the tensors over `shards` files of about the same size, with their index."""
    total = sum(tensor.nbytes for tensor in tensors.values())
    parts: list[dict[str, np.ndarray]] = [{} for _ in range(shards)]
    written = 0
    for name, tensor in tensors.items():
        parts[written * shards // total][name] = tensor
        written += tensor.nbytes
    weight_map: dict[str, str] = {}
    for number, part in enumerate(parts, start=1):
        file = f"model-{number:05}-of-{shards:05}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main()
