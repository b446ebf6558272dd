# SPDX-License-Identifier: Apache-2.0
"""The README's programs run, and the pages say what they are relied on to say."""

import dataclasses
import inspect
import pathlib
import re
from typing import Any

import cases
import compare
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jax_mla
from jax_mla import kernel_page

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_usage_example_runs() -> None:
    (program,) = re.findall(r"## Usage\n\n```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in program.splitlines() if line.strip()]) <= 15
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["out"].shape == (2, 4, 512)
    # Row 0 reads one written row among 129 zero ones; row 1 likewise among 16.
    weight = np.exp(576 * 192**-0.5)
    expected = np.array([weight / (weight + 129), weight / (weight + 16)])
    np.testing.assert_allclose(names["out"][:, 0, 0].astype(np.float32), expected, rtol=1e-2)


def paged() -> tuple[cases.Case, dict[str, Any]]:
    """A case, and the names that the snippets use for parts of it."""
    case = cases.make(4, page_size=16, lengths=(40, 1, 48, 17), capacity=48, finite=True)
    _, kv_pages, lengths, page_indices = case.operands
    used = [-(-n // 16) for n in case.lengths.tolist()]
    rows = [case.page_indices[i, :n] for i, n in enumerate(used)]
    return case, {
        "jax_mla": jax_mla,
        "jnp": jnp,
        "q": jnp.asarray(case.q[:, 0]),
        "lengths": lengths,
        "page_indices": page_indices,
        "page_size": 16,
        "pages_per_seq": 3,
        "sm_scale": case.scale,
        "scale": case.scale,
        "kv_indptr": jnp.asarray(np.concatenate([[0], np.cumsum(used)]), jnp.int32),
        "kv_indices": jnp.asarray(np.concatenate(rows)),
        "kv_last_page_lens": (lengths - 1) % 16 + 1,
        "kv_len_arr": lengths,
        "kv_buffer": kv_pages[:, :, None],
        "kv_cache": kv_pages,
        "seq_lens": lengths,
        "block_table": page_indices,
        "q_nope": jnp.asarray(case.q[:, 0, :, :512]),
        "q_pe": jnp.asarray(case.q[:, 0, :, 512:]),
        "ckv_cache": kv_pages[..., :512],
        "kpe_cache": kv_pages[..., 512:],
    }


@pytest.mark.parametrize("origin", ["aiter", "vllm", "flashinfer", "pallas"])
def test_coming_from(origin: str) -> None:
    (program,) = re.findall(rf"<!-- from: {origin} -->.*?```python\n(.*?)```", README, re.DOTALL)
    case, names = paged()
    if origin == "pallas":  # one KV head in front, and q scaled by the caller
        names |= {"k_pages": names["kv_cache"][None], "q": names["q"].astype(jnp.float32)}
        names["q"] = (names["q"] * case.scale).astype(jnp.bfloat16)
        case = dataclasses.replace(case, q=np.asarray(names["q"])[:, None], scale=1.0)
    exec(program, names)
    expected_out, expected_lse = oracle.decode(case)
    out = np.asarray(names["o"])[:, None]
    compare.assert_close(out, expected_lse.astype(np.float32), expected_out, expected_lse)


def test_stacked_caches_are_named_as_the_thing_not_to_do() -> None:
    page = (ROOT / "docs/sharp-bits.md").read_text()
    assert "## Do not scan over stacked caches" in page
    assert "sharp-bits.md" in README
    assert "scanning over stacked caches copies" in (inspect.getdoc(jax_mla.init_cache) or "")


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_page_of_kernels_is_in_step() -> None:
    written = (ROOT / "docs/kernels.md").read_text()
    assert written == kernel_page.page(), "python -m jax_mla explain --page > docs/kernels.md"


def test_every_public_name_is_documented() -> None:
    for name in jax_mla.__all__:
        assert inspect.getdoc(getattr(jax_mla, name)), name
