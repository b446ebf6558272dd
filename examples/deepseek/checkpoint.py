# SPDX-License-Identifier: Apache-2.0
"""Loads the weights of a Hugging Face checkpoint folder under their published tensor names."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from deepseek.config import LATENT, ROPE, Config
from deepseek.model import Attention, Layer, Params
from deepseek.moe import Mlp, Moe

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_DTYPES = ("BF16", "F16", "F32")


def load(folder: Path, config: Config, dtype: str) -> Params:
    """The weights in `folder`, in `dtype`; those of norms and routers in float32."""
    tensors = _Tensors(folder, dtype)
    vocabulary = (config.vocab_size, config.hidden_size)
    embedding = tensors.take("model.embed_tokens.weight", vocabulary)
    layers = tuple(_layer(tensors, config, n) for n in range(config.num_hidden_layers))
    norm = tensors.take_f32("model.norm.weight", (config.hidden_size,))
    tied = config.tie_word_embeddings
    head = embedding if tied else tensors.take("lm_head.weight", vocabulary)
    tensors.expect_all_taken(config.num_hidden_layers)
    return Params(embedding, layers, norm, head)


class _Tensors:
    """Tensors by name, from one safetensors file or from several with an index."""

    def __init__(self, folder: Path, dtype: str):
        self._dtype = dtype
        self._files: dict[str, Any] = {}
        self._where = _locate(folder)
        self._left = set(self._where)

    def take(self, name: str, shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(self._read(name, shape), self._dtype)

    def take_f32(self, name: str, shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(self._read(name, shape), jnp.float32)

    def take_stack(self, names: list[str], shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(np.stack([self._read(name, shape) for name in names]), self._dtype)

    def expect_all_taken(self, layers: int) -> None:
        """Only tensors of layers past the last one (multi-token prediction) may be left."""
        numbers = {name: re.match(r"model\.layers\.(\d+)\.", name) for name in self._left}
        if unknown := sorted(n for n, m in numbers.items() if m is None or int(m[1]) < layers):
            raise ValueError(f"{len(unknown)} tensors have no place in the model: {unknown[:4]}")

    def _read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self._where:
            raise ValueError(f"the checkpoint has no tensor {name!r}")
        file = self._open(self._where[name])
        if name not in file.keys():  # noqa: SIM118 (it is not a dict)
            raise ValueError(f"{self._where[name]} has no tensor {name!r}, but {_INDEX} says so")
        stored = file.get_slice(name)
        if stored.get_dtype() not in _DTYPES:
            raise NotImplementedError(
                f"{name}: expected dtype {'/'.join(_DTYPES)}, got {stored.get_dtype()}"
            )
        if (got := tuple(stored.get_shape())) != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {got}")
        self._left.discard(name)
        tensor: np.ndarray = file.get_tensor(name)
        return tensor

    def _open(self, path: Path) -> Any:
        if path.name not in self._files:
            if not path.is_file():
                raise FileNotFoundError(f"{path} not found, but {_INDEX} names it")
            self._files[path.name] = _open(path)
        return self._files[path.name]


def _locate(folder: Path) -> dict[str, Path]:
    """The file of every tensor of the checkpoint."""
    if (index := folder / _INDEX).is_file():
        weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
        return {name: folder / file for name, file in weight_map.items()}
    if (single := folder / _SINGLE).is_file():
        return dict.fromkeys(_open(single).keys(), single)
    raise FileNotFoundError(f"neither {_INDEX} nor {_SINGLE} in {folder}")


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def _layer(tensors: _Tensors, config: Config, number: int) -> Layer:
    prefix = f"model.layers.{number}"
    hidden = (config.hidden_size,)
    moe = config.is_moe(number)
    return Layer(
        attention_norm=tensors.take_f32(f"{prefix}.input_layernorm.weight", hidden),
        attention=_attention(tensors, config, f"{prefix}.self_attn"),
        mlp_norm=tensors.take_f32(f"{prefix}.post_attention_layernorm.weight", hidden),
        mlp=_moe(tensors, config, f"{prefix}.mlp")
        if moe
        else _mlp(tensors, f"{prefix}.mlp", config.hidden_size, config.intermediate_size),
    )


def _attention(tensors: _Tensors, config: Config, prefix: str) -> Attention:
    hidden, heads, rank = config.hidden_size, config.num_attention_heads, config.q_lora_rank
    nope, v = config.qk_nope_head_dim, config.v_head_dim
    q_name, q_in = ("q_proj", hidden) if rank is None else ("q_b_proj", rank)
    q = tensors.take(f"{prefix}.{q_name}.weight", (heads * (nope + ROPE), q_in))
    kv_b = tensors.take(f"{prefix}.kv_b_proj.weight", (heads * (nope + v), LATENT))
    k_b, v_b = jnp.split(kv_b.reshape(heads, nope + v, LATENT), [nope], axis=1)
    o = tensors.take(f"{prefix}.o_proj.weight", (hidden, heads * v))
    return Attention(
        q_a=None if rank is None else tensors.take(f"{prefix}.q_a_proj.weight", (rank, hidden)),
        q_a_norm=None
        if rank is None
        else tensors.take_f32(f"{prefix}.q_a_layernorm.weight", (rank,)),
        q=q.reshape(heads, nope + ROPE, q_in),
        kv_a=tensors.take(f"{prefix}.kv_a_proj_with_mqa.weight", (LATENT + ROPE, hidden)),
        kv_a_norm=tensors.take_f32(f"{prefix}.kv_a_layernorm.weight", (LATENT,)),
        k_b=k_b,
        v_b=v_b,
        o=o.reshape(hidden, heads, v),
    )


def _mlp(tensors: _Tensors, prefix: str, hidden: int, intermediate: int) -> Mlp:
    return Mlp(
        gate=tensors.take(f"{prefix}.gate_proj.weight", (intermediate, hidden)),
        up=tensors.take(f"{prefix}.up_proj.weight", (intermediate, hidden)),
        down=tensors.take(f"{prefix}.down_proj.weight", (hidden, intermediate)),
    )


def _moe(tensors: _Tensors, config: Config, prefix: str) -> Moe:
    experts = config.experts
    assert experts is not None
    hidden, wide = config.hidden_size, experts.moe_intermediate_size

    def stack(matrix: str, shape: tuple[int, int]) -> jax.Array:
        names = [f"{prefix}.experts.{e}.{matrix}.weight" for e in range(experts.n_routed_experts)]
        return tensors.take_stack(names, shape)

    shared = experts.n_shared_experts
    biased = experts.topk_method == "noaux_tc"
    count = (experts.n_routed_experts,)
    return Moe(
        router=tensors.take_f32(f"{prefix}.gate.weight", (*count, hidden)),
        bias=tensors.take_f32(f"{prefix}.gate.e_score_correction_bias", count) if biased else None,
        routed=Mlp(
            gate=stack("gate_proj", (wide, hidden)),
            up=stack("up_proj", (wide, hidden)),
            down=stack("down_proj", (hidden, wide)),
        ),
        shared=_mlp(tensors, f"{prefix}.shared_experts", hidden, shared * wide) if shared else None,
    )
