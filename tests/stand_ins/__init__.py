# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for AITER's decode kernels, which this repository does not hold, in a folder like its.

    os.environ["JAX_MLA_AITER_DIR"] = str(stand_ins.folder())
    os.environ["JAX_MLA_AITER_UNKNOWN"] = "allow"  # their hashes are not those of AITER's

Compiled from decode.hip with the geometry of jax_mla's table of kernels. That they do what AITER's
do, the bad with the good, is what test_conformance.py shows.
"""

import csv
import fcntl
import hashlib
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import conformance
from emulator import compiler

from jax_mla import kernels
from jax_mla.kernels import Kernel

SOURCE = Path(__file__).with_name("decode.hip")
HEADERS = Path(__file__).parents[2] / "csrc" / "kernels"
CACHE = Path(__file__).parents[2] / "build" / "stand_ins"

_COLUMNS = ("qType", "kvType", "Gqa", "ps", "qSeqLen", "prefill", "causal", "lse", "knl_name")


def folder(archs: Sequence[str] = kernels.ARCHES) -> Path:
    """Like AITER's `hsa`: `<arch>/mla/<file>.co` for each of AITER's that jax_mla would use."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # many tests may ask at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        files = conformance.files().items()
        return _folder([rows[0] for (arch, _), rows in files if arch in archs])


def _folder(wanted: Sequence[Kernel]) -> Path:
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(code_object, wanted))
    # Their names hold hashes of all that went into them.
    names = "\n".join((Path(__file__).read_text(), *(path.name for path in objects)))
    made = CACHE / hashlib.sha256(names.encode()).hexdigest()[:16]
    if made.exists():
        return made
    rough = CACHE / "rough"
    shutil.rmtree(rough, ignore_errors=True)
    for kernel, path in zip(wanted, objects, strict=True):
        place = rough / kernel.arch / "mla" / f"{kernel.file}.co"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    for arch in {kernel.arch for kernel in wanted}:
        _write_table(rough / arch / "mla" / "mla_asm.csv", arch)
    for path in (rough, *rough.rglob("*")):  # nobody else may write them: they are code
        path.chmod(0o755 if path.is_dir() else 0o644)
    return rough.rename(made)


def _write_table(path: Path, arch: str) -> None:
    """As AITER has it; only the two names mean something to a reader that is no dispatcher."""
    columns = (*_COLUMNS, *(["cprr"] if arch == "gfx950" else []), "co_name")
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, restval=0)
        table.writeheader()
        for k in kernels.TABLE:
            if k.arch == arch and k.selectable:
                table.writerow(
                    {"qType": k.q_dtype, "kvType": k.kv_dtype, "Gqa": k.heads, "causal": 1,
                     "ps": int(k.mode == "persistent"), "qSeqLen": max(k.q_lens),
                     "lse": int(k.mode == "persistent" and k.whole_lse),
                     "knl_name": symbol(k), "co_name": f"{k.file}.co"}
                )  # fmt: skip


def symbol(kernel: Kernel) -> str:
    """Name of the kernel in its code object."""
    return f"stand_in_{kernel.file}"


def code_object(kernel: Kernel, source: Path = SOURCE, **changes: int) -> Path:
    """The stand-in for the code object that a row of the table names.

    With `changes` of macros, or another source, it is one with a fault, for tests of the tests.
    """
    macros = _geometry(kernel) | _arguments(kernel) | _habits(kernel) | changes
    flags = [f"-DNAME={symbol(kernel)}", *(f"-D{k}={int(v)}" for k, v in macros.items())]
    return compiler.device_code(source, kernel.arch, flags=flags, headers=HEADERS)


def _geometry(kernel: Kernel) -> dict[str, int]:
    """From the table."""
    split = kernel.mode == "split"
    return {
        "Q_FP8": kernel.q_dtype == "fp8",
        "KV_FP8": kernel.kv_dtype == "fp8",
        "PERSISTENT": not split,
        "HEADS": 0 if kernel.takes_rows or kernel.row_argument == "heads" else kernel.heads,
        "ROWS": kernel.rows,
        "KV_BLOCK": kernel.kv_block,
        "WIDE": kernel.address_bits == 64,
        "WHOLE_BF16": split and kernel.whole_out != "f32",
        "SCALED": kernel.kv_scale != "scores",
    }


def _arguments(kernel: Kernel) -> dict[str, int]:
    """Which arguments say what, by those that were seen to matter."""
    matter = conformance.load(kernel.arch, kernel.file)["arguments"]["matter"].split()
    split, fixed = kernel.mode == "split", not (kernel.takes_rows or kernel.row_argument == "heads")
    return {
        "CLIPS_ROWS": fixed and "0x80" in matter,
        "Q_LEN": kernel.q_lens[0] if split and "0xd0" not in matter else 0,
        "Q_BY_BYTES": "0xa0" in matter,
        "PAGED": "0xc0" in matter,
        "LAST_QUERY_BY_INDPTR": not split and "0xd0" in matter,
        "SPLITS_BY_PLAN": split and "0xe0" in matter,
    }


def _habits(kernel: Kernel) -> dict[str, int]:
    """What only a run shows."""
    split, file = kernel.mode == "split", kernel.file
    return {
        "WHOLE_LSE": not split and kernel.whole_lse,
        "WHOLE_ELSEWHERE": kernel.whole_out == "fault",
        "HIDES_NAN": not split and "a16w16_qh64" in file,
        "SIGNED_MASK": "qh32_qseqlen4" in file,
        "TRIMMED": split and "a8w8_qh128" in file,
        "UNSEEN_IS_NAN": "a8w8_qh16_qseqlen2" in file or "16mx4_32nx1" in file,
    }
