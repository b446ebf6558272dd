# SPDX-License-Identifier: Apache-2.0
"""Generates text greedily from a DeepSeek-V2/V3 checkpoint folder, with jax_mla's paged decode.

python examples/generate.py CHECKPOINT --prompt "..." [--prompt "..."] --max-new-tokens 64 [--check]
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from deepseek import checkpoint
from deepseek import config as configs
from deepseek.check import BOUNDS, compare
from deepseek.config import Config
from deepseek.engine import Engine
from deepseek.model import Prediction
from tokenizers import Tokenizer


class Run(NamedTuple):
    """A finished batch, and the seconds it took."""

    predictions: list[Prediction]
    new_tokens: np.ndarray  # [batch, steps]
    prefill: float
    decode: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="folder with config.json and safetensors")
    parser.add_argument(
        "--prompt", action="append", required=True, help="give it several times for a batch"
    )
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N")
    parser.add_argument("--page-size", type=int, default=64, metavar="TOKENS")
    parser.add_argument(
        "--mode", choices=("split", "persistent"), default="split", help="of decode, on ROCm"
    )
    parser.add_argument("--dtype", choices=configs.DTYPES, help="default: the checkpoint's")
    parser.add_argument(
        "--check",
        action="store_true",
        help="recompute every decoded position without cache and absorption, in float32",
    )
    args = parser.parse_args()
    start = time.perf_counter()
    try:
        config = configs.read(args.checkpoint)
        tokenizer = load_tokenizer(args.checkpoint)
        prompts = encode(args.checkpoint, tokenizer, args.prompt)
        validate(config, prompts, args.max_new_tokens, args.page_size)
        dtype = args.dtype or config.dtype
        params = checkpoint.load(args.checkpoint, config, dtype)
        report("load", f"{dtype} weights in {time.perf_counter() - start:.2f} s")
        engine = Engine(
            config,
            params,
            batch=len(prompts),
            capacity=max(map(len, prompts)) + args.max_new_tokens,
            page_size=args.page_size,
            mode=args.mode,
        )
    except (OSError, ValueError, NotImplementedError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")

    printer = Printer(tokenizer, args.prompt)
    run = generate(engine, prompts, args.max_new_tokens, config.eos_token_ids, printer)
    printer.finish()
    report_speed(engine, run, prompts)
    if not args.check:
        return 0
    del engine, params  # before the float32 copy of the weights is made
    return check(args.checkpoint, config, dtype, prompts, run)


def load_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found")
    return Tokenizer.from_file(str(path))


def encode(folder: Path, tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids, with the token that begins a text where the checkpoint wants one."""
    encoded: list[list[int]] = [encoding.ids for encoding in tokenizer.encode_batch(list(prompts))]
    for number, (prompt, ids) in enumerate(zip(prompts, encoded, strict=True), start=1):
        if not prompt or not ids:
            raise ValueError(f"--prompt: expected text, got an empty prompt {number}")
    # DeepSeek's tokenizer.json leaves the first token to this second file.
    path = folder / "tokenizer_config.json"
    extra = json.loads(path.read_text()) if path.is_file() else {}
    if not extra.get("add_bos_token"):
        return encoded
    bos = extra["bos_token"]
    bos = bos["content"] if isinstance(bos, dict) else bos
    first = tokenizer.token_to_id(bos)
    if first is None:
        raise ValueError(f"tokenizer.json has no token {bos!r}, but tokenizer_config.json says so")
    return [ids if ids[0] == first else [first, *ids] for ids in encoded]


def validate(
    config: Config, prompts: Sequence[Sequence[int]], max_new_tokens: int, page_size: int
) -> None:
    for name, value in (("--max-new-tokens", max_new_tokens), ("--page-size", page_size)):
        if value < 1:
            raise ValueError(f"{name}: expected 1 or more, got {value}")
    for number, prompt in enumerate(prompts, start=1):
        total = len(prompt) + max_new_tokens
        if total > config.max_position_embeddings:
            raise ValueError(
                f"prompt {number} has {len(prompt)} tokens, with {max_new_tokens} new ones {total}:"
                f" expected at most max_position_embeddings {config.max_position_embeddings}"
            )
        if max(prompt) >= config.vocab_size:
            raise ValueError(
                f"tokenizer.json: expected ids below vocab_size {config.vocab_size},"
                f" got {max(prompt)}"
            )


class Printer:
    """Shows one sequence as it comes; several with a count, and at the end."""

    def __init__(self, tokenizer: Tokenizer, prompts: Sequence[str]):
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._pending: list[int] = []
        self._rows: list[list[int]] = [[] for _ in prompts]
        if len(prompts) == 1:
            print(prompts[0], end="", flush=True)

    def push(self, row: int, token: int) -> None:
        self._rows[row].append(token)
        if len(self._rows) > 1:
            count = sum(map(len, self._rows))
            print(f"\r{count} tokens", end="", file=sys.stderr, flush=True)
            return
        self._pending.append(token)
        text = self._tokenizer.decode(self._pending)
        # A character can be spread over up to four tokens; until it is whole it reads as U+FFFD.
        if not text.endswith("\ufffd") or len(self._pending) == 4:
            print(printable(text), end="", flush=True)
            self._pending.clear()

    def finish(self) -> None:
        if len(self._rows) == 1:
            print(printable(self._tokenizer.decode(self._pending)))
            return
        print(file=sys.stderr)
        for prompt, row in zip(self._prompts, self._rows, strict=True):
            print(f"- {prompt}{printable(self._tokenizer.decode(row))}")


def printable(text: str) -> str:
    """No control characters: a model's output must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def generate(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    eos: Sequence[int],
    printer: Printer,
) -> Run:
    """Greedy decoding, until every sequence has ended or has `max_new_tokens` new tokens."""
    start = time.perf_counter()
    predictions = engine.prefill(prompts)
    tokens = [np.asarray(predictions[-1].token)]
    prefilled = time.perf_counter()
    ended = np.zeros(len(prompts), bool)
    while True:
        for row in np.flatnonzero(~ended).tolist():
            printer.push(row, int(tokens[-1][row]))
        ended |= np.isin(tokens[-1], eos)
        if ended.all() or len(tokens) == max_new_tokens:
            break
        predictions.append(engine.decode(predictions[-1].token))
        tokens.append(np.asarray(predictions[-1].token))
    done = time.perf_counter()
    return Run(predictions, np.stack(tokens, axis=1), prefilled - start, done - prefilled)


def report(what: str, text: str) -> None:
    print(f"{what:8} {text}", file=sys.stderr)


def report_speed(engine: Engine, run: Run, prompts: Sequence[Sequence[int]]) -> None:
    report("compile", f"{engine.compile_seconds:.2f} s, not counted below")
    count = sum(map(len, prompts))
    report("prefill", f"{count} tokens in {run.prefill:.3f} s: {count / run.prefill:.1f} tokens/s")
    batch, steps = run.new_tokens.shape
    if count := batch * (steps - 1):
        report("decode", f"{count} tokens in {run.decode:.3f} s: {count / run.decode:.1f} tokens/s")


def check(
    folder: Path, config: Config, dtype: str, prompts: Sequence[Sequence[int]], run: Run
) -> int:
    params = checkpoint.load(folder, config, "float32")
    result = compare(config, params, prompts, run.predictions)
    bound = BOUNDS[dtype] * result.largest
    good = result.error <= bound
    report(
        "check",
        f"{run.new_tokens.size} positions: largest error of a logit {result.error:.2e},"
        f" bound {bound:.2e} ({BOUNDS[dtype]:.0e} of the largest logit, {result.largest:.2f}):"
        f" {'ok' if good else 'FAILED'}",
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
