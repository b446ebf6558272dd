# SPDX-License-Identifier: Apache-2.0
"""What a decode call comes to, without running it."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jax_mla import lowering
from jax_mla.asm import AsmPlan
from jax_mla.call import Call
from jax_mla.decode import prepare
from jax_mla.kernel_plan import KernelPlan
from jax_mla.metadata import make_metadata
from jax_mla.target import Target, resolve
from jax_mla.validation import out_dtype


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Result of `explain`; print it.

    Attributes:
      platform: "rocm", "cuda", "cpu" or another.
      target: the GPU that is lowered for; None on other platforms.
      implementation: "asm", "kernel" or "xla".
      mode: "split" or "persistent".
      asm: kernel, head plan, splits or works, launches and workspace of "asm"; None for the others.
      kernel: splits, launches and workspace of "kernel"; None for the others.
      bytes_needed: cache, table, q and results, each once, with all sequences at their capacity.
      bytes_moved: what the launches read and write of global memory then, without the metadata of
        "asm", which is made once a step; in persistent mode with as many works as there can be. A
        byte counts once for each part of a sequence that needs it: not every time that a wave reads
        a token index, nor what is read of the first row beyond a part's end, which caches answer.
        None for "xla".
      passed_over: the implementations that come before this one, and why they do not serve.
    """

    platform: str
    target: Target | None
    implementation: str
    mode: str
    asm: AsmPlan | None
    kernel: KernelPlan | None
    bytes_needed: int
    bytes_moved: int | None
    passed_over: Mapping[str, str]

    @property
    def bytes_ratio(self) -> float | None:
        """bytes_moved / bytes_needed."""
        return None if self.bytes_moved is None else self.bytes_moved / self.bytes_needed

    def __str__(self) -> str:
        where = self.platform
        if self.target is not None:
            where += f", {self.target.arch} with {self.target.compute_units} compute units"
        lines = [("implementation", f"{self.implementation} ({where})")]
        if self.asm is not None:
            lines += [
                ("kernel", f"AITER's {self.asm.kernel.file}"),
                ("heads", f"{self.asm.heads.heads}: {self.asm.heads.reason}"),
                (self.mode, self.asm.cuts),
                ("launches", f"{self.asm.launches} a call, and the metadata once a step"),
            ]
        if self.kernel is not None:
            lines += [
                ("rows", f"{self.kernel.row_tiles} x {self.kernel.tile_rows} (query, head) pairs"),
                ("split", self.kernel.cuts),
                ("launches", f"{self.kernel.launches} a call"),
            ]
        if (plan := self.asm or self.kernel) is not None:
            lines += [
                ("workspace", f"{plan.workspace_bytes:,} bytes"),
                ("bytes", f"{self.bytes_moved:,} moved at capacity, {self.bytes_needed:,} needed "
                          f"({self.bytes_ratio:.2f}x)"),
            ]  # fmt: skip
        lines += [(f"not {name}", reason) for name, reason in self.passed_over.items()]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def explain(
    q: Any,
    kv_pages: Any,
    lengths: Any,
    page_indices: Any,
    *,
    platform: str = "rocm",
    **options: Any,
) -> Explanation:
    """What `decode` with the same arguments is lowered to on a platform, and why.

    Nothing is run, and nothing of the platform has to be there. The device code that is chosen
    without an explicit implementation is what this installation can launch; with
    `implementation="asm"` the explanation is of AITER's kernels whether or not they are here.

    Args:
      q, kv_pages, lengths, page_indices: as for `decode`, or `jax.ShapeDtypeStruct` in their place.
      platform: "rocm", "cuda", "cpu" or "tpu".
      options: keywords of `decode`.

    Raises:
      TypeError, ValueError, NotImplementedError: what `decode` raises, when called or lowered.
    """
    options.pop("return_residuals", None)
    arrays = ("metadata", "q_scale", "kv_scale")
    traced = {name: options.pop(name) for name in arrays if options.get(name) is not None}
    seen: list[tuple[Call, dict[str, Any]]] = []

    def trace(q: Any, kv_pages: Any, lengths: Any, page_indices: Any, **traced: Any) -> None:
        q, params = prepare(q, kv_pages, lengths, page_indices, **traced, **options)
        call = lowering.make_call(q, kv_pages, page_indices, params["latent_dim"])
        seen.append((call, params))

    jax.eval_shape(trace, q, kv_pages, lengths, page_indices, **traced)
    ((call, params),) = seen
    target = params["target"]
    if platform in ("rocm", "cuda"):
        target = resolve(target, platform)
    choice = lowering.choose(
        params["implementation"],
        platform,
        target,
        call,
        mode=params["mode"],
        num_kv_splits=params["num_kv_splits"],
        head_plan=params["head_plan"],
    )
    return Explanation(
        platform=platform,
        target=target,
        implementation=choice.implementation,
        mode=params["mode"],
        asm=choice.asm,
        kernel=choice.kernel,
        bytes_needed=_bytes_needed(call),
        bytes_moved=_bytes_moved(call, choice),
        passed_over=choice.passed_over,
    )


def explain_sizes(
    heads: int,
    *,
    target: Target,
    dtypes: str = "bf16",
    q_len: int = 1,
    mode: str = "split",
    batch: int = 32,
    tokens: int = 8192,
    page_size: int = 64,
    platform: str = "rocm",
    **options: Any,
) -> Explanation:
    """`explain` for sizes in place of arrays, on a cache that holds the batch at full length.

    Args:
      heads: query heads.
      target: the GPU.
      dtypes: "bf16", "fp8" or "bf16-fp8" (bfloat16 q on a float8 cache), with the target's float8.
      q_len: query tokens per sequence.
      mode: "split" or "persistent".
      batch: sequences.
      tokens: of each, rounded up to pages.
      page_size: tokens of a page.
      platform: "rocm", "cuda", "cpu" or "tpu".
      options: further keywords of `decode`.
    """
    bf16, fp8 = jnp.dtype(jnp.bfloat16), target.fp8_dtype
    q_dtype, kv_dtype = {"bf16": (bf16, bf16), "fp8": (fp8, fp8), "bf16-fp8": (bf16, fp8)}[dtypes]
    pages_per_seq = -(-tokens // page_size)
    num_pages = batch * pages_per_seq
    struct: Any = jax.ShapeDtypeStruct
    lengths = struct((batch,), jnp.int32)
    page_indices = struct((batch, pages_per_seq), jnp.int32)
    if mode == "persistent":
        make = functools.partial(
            make_metadata,
            page_size=page_size,
            num_pages=num_pages,
            heads=heads,
            q_len=q_len,
            q_dtype=q_dtype,
            kv_dtype=kv_dtype,
            mode=mode,
            num_kv_splits=options.get("num_kv_splits"),
            target=target,
        )
        options["metadata"] = jax.eval_shape(make, lengths, page_indices)
    for name, dtype in (("q_scale", q_dtype), ("kv_scale", kv_dtype)):
        if dtype == fp8:
            options[name] = struct((), jnp.float32)
    return explain(
        struct((batch, q_len, heads, 576), q_dtype),
        struct((num_pages, page_size, 576), kv_dtype),
        lengths,
        page_indices,
        platform=platform,
        scale=1.0,
        target=target,
        **options,
    )


def _bytes_needed(call: Call) -> int:
    tokens = call.batch * call.capacity
    rows = call.batch * call.q_len * call.heads
    total: int = (
        tokens * call.token_bytes
        + 4 * call.batch * call.pages_per_seq
        + rows * call.width * call.q_dtype.itemsize
        + rows * (call.latent_dim * out_dtype(call.q_dtype).itemsize + 4)
    )
    return total


def _bytes_moved(call: Call, choice: lowering.Choice) -> int | None:
    if choice.asm is not None:
        return _bytes_moved_asm(call, choice.asm)
    return None if choice.kernel is None else _bytes_moved_kernel(call, choice.kernel)


def _bytes_moved_asm(call: Call, plan: AsmPlan) -> int:
    """Each group reads every token and its index; every part its queries; then the merge."""
    heads, tokens = plan.heads, call.batch * call.capacity
    q_row = call.width * call.q_dtype.itemsize
    rows = call.batch * call.q_len * call.heads
    parts = _parts(call, plan)
    cache = heads.groups * tokens * (call.token_bytes + 4)
    padding = 0
    if heads.padded_heads > call.heads or heads.groups > 1:
        padding = (rows + call.batch * call.q_len * heads.padded_heads) * q_row
    queries = parts * heads.groups * heads.group_heads * call.q_len * q_row
    partials = parts * (heads.padded_heads + call.heads) * call.partial_bytes
    results = rows * (call.latent_dim * out_dtype(call.q_dtype).itemsize + 4)
    return int(cache + padding + queries + partials + results)


def _parts(call: Call, plan: AsmPlan) -> float:
    """Parts with keys, per group of heads, of all sequences at their capacity."""
    if plan.works is not None:
        return float(plan.works.max_works(call.batch) / plan.heads.groups)
    return float(_splits_with_keys(call, plan.num_kv_splits, plan.kernel.kv_block))


def _bytes_moved_kernel(call: Call, plan: KernelPlan) -> int:
    """Each tile of rows reads every token and its page; every part its queries; then the merge."""
    whole, cut = (count / plan.row_tiles for count in _count_parts(call, plan))
    rows = call.batch * call.q_len * call.heads
    cache = plan.row_tiles * call.batch * call.capacity * (call.token_bytes + 4)
    queries = (whole + cut) * call.q_len * call.heads * call.width * call.q_dtype.itemsize
    row_bytes = (call.latent_dim + plan.weights) * 4
    partials = 2 * cut * call.heads * call.q_len * row_bytes
    results = rows * (call.latent_dim * out_dtype(call.q_dtype).itemsize + 4)
    return int(cache + queries + partials + results)


def _count_parts(call: Call, plan: KernelPlan) -> tuple[int, int]:
    """Jobs, of sequences at their capacity, that are whole, and parts of those that are not."""
    jobs, blocks = call.batch * plan.row_tiles, -(-call.capacity // plan.kv_block)
    if plan.num_kv_splits:
        parts = min(plan.num_kv_splits, blocks)
        return (jobs, 0) if parts == 1 else (0, jobs * parts)
    most = max(jobs * blocks // plan.part_blocks, 32)
    workers = max(min(plan.workers, most, jobs * blocks), 1)
    begins = [worker * jobs * blocks // workers for worker in range(workers)]
    inside = [begin // blocks for begin in begins if begin % blocks]
    return jobs - len(set(inside)), len(inside) + len(set(inside))


def _splits_with_keys(call: Call, num_kv_splits: int, kv_block: int) -> Any:
    """Of all sequences at their capacity."""
    return call.batch * min(num_kv_splits, -(-call.capacity // kv_block))
