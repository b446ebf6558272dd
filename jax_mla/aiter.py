# SPDX-License-Identifier: Apache-2.0
"""Finds AITER's code objects on this machine, and decides which of them are trusted.

AITER is looked for by path and never imported. Its `hsa` folder is, in this order:

1. the environment's JAX_MLA_AITER_DIR,
2. the environment's AITER_ASM_DIR (which `import aiter` sets),
3. `hsa` in the installed package `aiter_meta`,
4. `hsa` beside the package `aiter`, as in a development install.

A variable that is set is taken at its word: if it names no such folder, AITER is absent.

A code object is used if AITER's table `<hsa>/<arch>/mla/mla_asm.csv` lists it, its SHA-256 is that
of a selectable row of `jax_mla.kernels`, and the file says of itself what it should. One whose hash
is unknown is refused, unless the environment has JAX_MLA_AITER_UNKNOWN=allow: then it stands for
the row with its name. What others can write is refused: it is code.
"""

import csv
import dataclasses
import functools
import grp
import hashlib
import importlib.util
import os
import pwd
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from jax_mla import code_object, kernels
from jax_mla.call import Unserved
from jax_mla.kernels import Kernel

TABLE = "mla_asm.csv"
#: Of one workgroup, in bytes.
LDS_LIMITS = {"gfx942": 65536, "gfx950": 163840}

_MAX_TABLE_BYTES = 2**20
_MAX_FILE_BYTES = 2**22
_KERNARG_BYTES = range(208, 385)
_NOT_FOUND = (
    "AITER was not found: install it (distribution amd-aiter), or set JAX_MLA_AITER_DIR to the hsa "
    "folder of a checkout"
)


@dataclasses.dataclass(frozen=True)
class CodeObject:
    """A trusted code object.

    Attributes:
      arch: what it was compiled for.
      file: of the row of `jax_mla.kernels` that it stands for, a name without ".co".
      sha256: of the content, in hexadecimal.
      known: whether that is the row's; if not, its use was allowed by the environment.
      symbol: of its one kernel.
      content: the file.
    """

    arch: str
    file: str
    sha256: str
    known: bool
    symbol: str
    content: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Installation:
    """AITER's code objects for one arch.

    Attributes:
      arch: the arch.
      folder: the hsa folder, None if there is none.
      source: what names that folder, in words.
      absent: why nothing of it can be used; None if its table was read.
      objects: the trusted code objects, by the file of their row in `jax_mla.kernels`.
      refused: why not the others that AITER's table or `jax_mla.kernels` lists, by file.
    """

    arch: str
    folder: Path | None
    source: str
    absent: str | None = None
    objects: Mapping[str, CodeObject] = dataclasses.field(default_factory=dict)
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)


class _Refused(Exception):
    """A file or folder that is not used; the message says why."""


def find(kernel: Kernel) -> CodeObject:
    """The code object of a kernel.

    Raises:
      Unserved: it is not here, or not trusted; the message says why and what to do.
    """
    installation = discover(kernel.arch)
    if installation.absent is not None:
        raise Unserved(installation.absent)
    if kernel.file not in installation.objects:
        raise Unserved(installation.refused.get(kernel.file, f"{kernel.file}: not known"))
    return installation.objects[kernel.file]


@functools.cache
def discover(arch: str) -> Installation:
    """AITER's code objects for an arch, read once in a process."""
    source, folder = _locate()
    if folder is None:
        return Installation(arch, None, source, _NOT_FOUND)
    try:
        folder = folder.resolve(strict=True)
        listed = _read_table(folder, arch)
    except (_Refused, OSError) as error:
        return Installation(arch, folder, source, f"AITER ({source}): {error}")

    allow_unknown = os.environ.get("JAX_MLA_AITER_UNKNOWN") == "allow"
    objects: dict[str, CodeObject] = {}
    refused = {
        k.file: f"{folder}/{arch}/mla/{TABLE} does not list {k.file}.co" for k in _rows(arch)
    }
    for file, symbol in listed.items():
        try:
            found = _judge(folder, arch, file, symbol, allow_unknown=allow_unknown)
        except (_Refused, OSError) as error:
            refused[file] = str(error)
        else:
            if found.known or found.file not in objects:
                objects[found.file] = found
    refused = {file: why for file, why in refused.items() if file not in objects}
    return Installation(arch, folder, source, None, objects, refused)


# --- Where ----------------------------------------------------------------------------------------


def _locate() -> tuple[str, Path | None]:
    """What names the hsa folder, and the folder."""
    for variable in ("JAX_MLA_AITER_DIR", "AITER_ASM_DIR"):
        if value := os.environ.get(variable):
            return variable, Path(value)
    for package, inside in (("aiter_meta", "hsa"), ("aiter", "../hsa")):
        for folder in _package_folders(package):
            hsa = Path(os.path.normpath(folder / inside))
            if hsa.is_dir():
                return f"package {package}", hsa
    return "nowhere", None


def _package_folders(package: str) -> Iterator[Path]:
    """Where a top-level package lies. Finding it runs nothing of it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # ValueError: something that calls itself so, without a spec
        return
    if spec is not None:
        yield from map(Path, spec.submodule_search_locations or ())


# --- What AITER lists -----------------------------------------------------------------------------


def _read_table(hsa: Path, arch: str) -> dict[str, str]:
    """File, without ".co", to symbol, as AITER's table of any version has them."""
    folder = hsa / arch / "mla"
    for part in (hsa, hsa / arch, folder):
        _check_ours(part, hsa, folder=True)
    try:
        text = _read(folder / TABLE, hsa, _MAX_TABLE_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(text.splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _Refused(f"{folder / TABLE}: {error}") from None
    listed = [(row.get("co_name"), row.get("knl_name")) for row in rows]
    if not any(file and symbol for file, symbol in listed):
        raise _Refused(f"{folder / TABLE}: expected columns co_name and knl_name, and rows")
    return {file.removesuffix(".co"): symbol for file, symbol in listed if file and symbol}


# --- What is trusted ------------------------------------------------------------------------------


def _rows(arch: str) -> list[Kernel]:
    return [kernel for kernel in kernels.TABLE if kernel.arch == arch]


def _judge(hsa: Path, arch: str, file: str, symbol: str, *, allow_unknown: bool) -> CodeObject:
    """The code object of one line of AITER's table."""
    if not re.fullmatch(r"[\w.+-]+", file, re.ASCII):
        raise _Refused(f"expected the plain name of a file in AITER's table, got {file!r:.200}")
    path = hsa / arch / "mla" / f"{file}.co"
    content = _read(path, hsa, _MAX_FILE_BYTES)
    sha256 = hashlib.sha256(content).hexdigest()
    row, known = _row_of(arch, file, sha256, allow_unknown=allow_unknown)
    try:
        image = code_object.read(content)
    except code_object.Malformed as error:
        raise _Refused(f"{path}: {error}") from None
    _check_image(path, image, arch, symbol)
    return CodeObject(arch, row.file, sha256, known, image.symbol, content)


def _row_of(arch: str, file: str, sha256: str, *, allow_unknown: bool) -> tuple[Kernel, bool]:
    """The row that a code object stands for, and whether it has the row's hash."""
    for denied in kernels.DENIED:
        if denied.sha256 == sha256:
            raise _Refused(f"{file}: never used: {denied.reason}")
    same = [kernel for kernel in _rows(arch) if kernel.sha256 == sha256]
    named = same or [kernel for kernel in _rows(arch) if kernel.file == file]
    if not named:
        raise _Refused(f"{file}: jax_mla knows neither its SHA-256 ({sha256}) nor its name")
    if not any(kernel.selectable for kernel in named):
        raise _Refused(f"{file}: not used, as it has not been shown to be right")
    if not same and not allow_unknown:
        raise _Refused(
            f"{file}: another build (SHA-256 {sha256}) than the one that jax_mla was tested with "
            f"({named[0].sha256}); JAX_MLA_AITER_UNKNOWN=allow uses it untested"
        )
    return named[0], bool(same)


def _check_image(path: Path, image: code_object.KernelImage, arch: str, symbol: str) -> None:
    """The kernel is the one that AITER's table names, and can be launched as those are."""
    problems = [
        (image.arch != arch, f"compiled for {image.arch}"),
        (image.symbol != symbol, f"its kernel is {image.symbol}, {symbol} in AITER's table"),
        (image.kernarg_bytes not in _KERNARG_BYTES, f"takes {image.kernarg_bytes} argument bytes"),
        (image.wavefront != 64, f"waves of {image.wavefront}"),
        (image.lds_bytes > LDS_LIMITS[arch], f"needs {image.lds_bytes} bytes of LDS"),
        (image.private_bytes != 0, f"needs {image.private_bytes} bytes of private memory"),
    ]
    for wrong, what in problems:
        if wrong:
            raise _Refused(f"{path}: not one of AITER's decode kernels for {arch}: {what}")


# --- What is read ---------------------------------------------------------------------------------


def _read(path: Path, hsa: Path, most: int) -> bytes:
    _check_ours(path, hsa)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise _Refused(f"{path}: expected at most {most} bytes")
    return content


def _check_ours(path: Path, hsa: Path, *, folder: bool = False) -> None:
    """Nobody but the user and root can change it.

    From the hsa folder down, each folder is checked before what is in it, so that nobody else can
    exchange a thing after it was checked.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise _Refused(f"{path}: a symbolic link, which could lead anywhere: copy the file there")
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(status.st_mode):
        raise _Refused(f"{path}: expected a {'folder' if folder else 'plain file'}")
    if status.st_uid not in (0, os.geteuid()):
        raise _Refused(
            f"{path}: belongs to user {status.st_uid}, and it is code: expected yours or root's "
            f"(chown -R {os.geteuid()} {hsa})"
        )
    by_group = status.st_mode & stat.S_IWGRP and not _private_group(status)
    if status.st_mode & stat.S_IWOTH or by_group:
        raise _Refused(f"{path}: others can write it, and it is code: chmod -R go-w {hsa}")


def _private_group(status: os.stat_result) -> bool:
    """Whether the group is its owner's own, as distributions make one for each user."""
    try:
        owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return group.gr_name == owner and set(group.gr_mem) <= {owner}
