# SPDX-License-Identifier: Apache-2.0
"""Finding AITER's code objects and trusting them: what is read, what is refused and how."""

import dataclasses
import hashlib
import importlib.util
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from made_elf import MACHINES, SYMBOL, MadeElf

from jax_mla import aiter, kernels
from jax_mla.call import Unserved
from jax_mla.kernels import Kernel

FILE = "mla_made_up"
VARIABLES = ("JAX_MLA_AITER_DIR", "AITER_ASM_DIR", "JAX_MLA_AITER_UNKNOWN")
AITER = os.environ.get("JAX_MLA_AITER_DIR")
needs_aiter = pytest.mark.skipif(
    AITER is None, reason="no AITER: JAX_MLA_AITER_DIR names no hsa folder"
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[None]:
    """What was discovered before is forgotten; no variable is set, no real AITER is installed."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    find_spec = importlib.util.find_spec

    def find_ours(name: str) -> Any:
        spec = find_spec(name)
        ours = spec is not None and tmp_path in pathlib.Path(str(spec.origin)).parents
        return spec if ours else None

    monkeypatch.setattr(importlib.util, "find_spec", find_ours)
    aiter.discover.cache_clear()
    yield
    aiter.discover.cache_clear()


def write(hsa: pathlib.Path, content: bytes, arch: str = "gfx942", file: str = FILE) -> None:
    """An hsa folder with one code object, which nobody else can write."""
    folder = hsa / arch / "mla"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{file}.co").write_bytes(content)
    (folder / "mla_asm.csv").write_text(f"qType,knl_name,co_name,new\nbf16,{SYMBOL},{file}.co,1\n")
    for path in (hsa, *hsa.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o022)


def row(content: bytes, arch: str = "gfx942", **changes: Any) -> Kernel:
    sha256 = hashlib.sha256(content).hexdigest()
    kernel = dataclasses.replace(kernels.TABLE[0], arch=arch, file=FILE, sha256=sha256)
    return dataclasses.replace(kernel, **changes)


GOOD = MadeElf().build()


@pytest.fixture
def hsa(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An hsa folder that the environment names, with the one kernel of the table."""
    folder = tmp_path / "hsa"
    write(folder, GOOD)
    monkeypatch.setattr(kernels, "TABLE", (row(GOOD),))
    monkeypatch.setenv("JAX_MLA_AITER_DIR", str(folder))
    return folder


def refusal(match: str) -> None:
    """The kernel of the table is refused with this reason."""
    aiter.discover.cache_clear()
    with pytest.raises(Unserved, match=match):
        aiter.find(kernels.TABLE[0])


def test_found_and_trusted(hsa: pathlib.Path) -> None:
    found = aiter.find(kernels.TABLE[0])
    sha256 = hashlib.sha256(GOOD).hexdigest()
    assert found == aiter.CodeObject("gfx942", FILE, sha256, True, SYMBOL, GOOD)
    installation = aiter.discover("gfx942")
    assert (installation.folder, installation.source) == (hsa, "JAX_MLA_AITER_DIR")
    assert installation.absent is None and installation.refused == {}
    assert "content" not in repr(found)


def test_read_once(hsa: pathlib.Path) -> None:
    first = aiter.find(kernels.TABLE[0])
    (hsa / "gfx942/mla" / f"{FILE}.co").unlink()
    assert aiter.find(kernels.TABLE[0]) is first


def test_nothing_is_read_by_an_import() -> None:
    program = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import jax_mla
from jax_mla import aiter
print([path for path in opened if path.startswith("/no/such")], len(opened) > 10)
aiter.discover("gfx942")
print("aiter" in sys.modules, aiter.discover("gfx942").absent)
"""
    environment = os.environ | {"JAX_MLA_AITER_DIR": "/no/such/folder"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    first, second = result.stdout.splitlines()
    assert first == "[] True"
    assert second.startswith("False AITER (JAX_MLA_AITER_DIR): ")


# --- Where ----------------------------------------------------------------------------------------


def install(root: pathlib.Path, package: str) -> None:
    """A package that must not be imported."""
    (root / package).mkdir(parents=True)
    (root / package / "__init__.py").write_text("raise SystemExit('imported')\n")


def test_the_first_place_counts(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place that comes earlier takes over, while the later ones are still there."""
    monkeypatch.setattr(kernels, "TABLE", (row(GOOD),))

    def found() -> tuple[str, pathlib.Path | None]:
        aiter.discover.cache_clear()
        installation = aiter.discover("gfx942")
        assert (FILE in installation.objects) == (installation.absent is None)
        return installation.source, installation.folder

    assert found() == ("nowhere", None)
    refusal(r"AITER was not found: install it .* or set JAX_MLA_AITER_DIR to the hsa folder")

    install(tmp_path / "develop", "aiter")
    monkeypatch.syspath_prepend(tmp_path / "develop")
    assert found() == ("nowhere", None)  # another package of that name
    write(tmp_path / "develop/hsa", GOOD)
    assert found() == ("package aiter", tmp_path / "develop/hsa")

    install(tmp_path / "site", "aiter_meta")
    monkeypatch.syspath_prepend(tmp_path / "site")
    write(tmp_path / "site/aiter_meta/hsa", GOOD)
    assert found() == ("package aiter_meta", tmp_path / "site/aiter_meta/hsa")

    write(tmp_path / "asm", GOOD)
    monkeypatch.setenv("AITER_ASM_DIR", f"{tmp_path}/asm/")
    assert found() == ("AITER_ASM_DIR", tmp_path / "asm")

    write(tmp_path / "own", GOOD)
    monkeypatch.setenv("JAX_MLA_AITER_DIR", str(tmp_path / "own"))
    assert found() == ("JAX_MLA_AITER_DIR", tmp_path / "own")
    assert not {"aiter", "aiter_meta"} & sys.modules.keys()


def test_a_variable_is_taken_at_its_word(
    hsa: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AITER_ASM_DIR", str(hsa))
    monkeypatch.setenv("JAX_MLA_AITER_DIR", str(hsa / "elsewhere"))
    refusal(r"AITER \(JAX_MLA_AITER_DIR\): .*No such file.*elsewhere")
    monkeypatch.setenv("JAX_MLA_AITER_DIR", "")
    aiter.discover.cache_clear()
    assert aiter.discover("gfx942").source == "AITER_ASM_DIR"


def test_a_folder_for_another_arch_only(hsa: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "TABLE", (row(GOOD, "gfx950"),))
    refusal(r"AITER \(JAX_MLA_AITER_DIR\): .*No such file.*gfx950")


# --- AITER's table --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"knl_name,co_name\n{SYMBOL},{FILE}.co\n",
        f"\ufeffco_name,knl_name\r\n{FILE}.co,{SYMBOL}\r\n",
        f"a,co_name,b,knl_name,c\n,{FILE}.co,,{SYMBOL}\n",
        f"co_name,knl_name\n{FILE}.co,{SYMBOL},more,and,more\n\nshort\n",
        f'co_name,knl_name\n"{FILE}.co","{SYMBOL}"\n../../secret.co,x\n',
    ],
    ids=["few columns", "byte order mark", "unknown columns", "ragged", "a bad row"],
)
def test_a_table_of_any_version(hsa: pathlib.Path, text: str) -> None:
    (hsa / "gfx942/mla/mla_asm.csv").write_bytes(text.encode())
    assert aiter.find(kernels.TABLE[0]).content == GOOD


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "mla_asm.csv: expected columns co_name and knl_name"),
        (b"co_name,knl_name\n", "expected columns co_name and knl_name, and rows"),
        (b"co_name,symbol\nx.co,y\n", "expected columns co_name and knl_name"),
        (b"co_name,knl_name\nother.co,y\n", f"mla_asm.csv does not list {FILE}.co"),
        (b"co_name,knl_name\n\xff\xfe,y\n", "mla_asm.csv: .*utf-8"),
        (b"x" * (2**20 + 1), "mla_asm.csv: expected at most 1048576 bytes"),
        (b'co_name,knl_name\n"' + b"x" * 200000, "mla_asm.csv: field larger than field limit"),
        (f"co_name,knl_name\n{FILE}.co,_Z1x\n".encode(), f"its kernel is {SYMBOL}, _Z1x in AITER"),
    ],
)
def test_a_table_that_is_none(hsa: pathlib.Path, text: bytes, message: str) -> None:
    (hsa / "gfx942/mla/mla_asm.csv").write_bytes(text)
    refusal(message)


@pytest.mark.parametrize("name", ["../mla/{}", "/{}", "sub/{}", "{}\0", " {}", "..", "a\\{}", ""])
def test_names_that_lead_elsewhere(hsa: pathlib.Path, name: str) -> None:
    """Also where the file that they lead to is the right one."""
    name = name.format(FILE)
    (hsa / "gfx942/mla/mla_asm.csv").write_text(f'co_name,knl_name\n"{name}.co",{SYMBOL}\n')
    with pytest.raises(Unserved, match="does not list"):
        aiter.find(kernels.TABLE[0])
    reason = aiter.discover("gfx942").refused[name]
    assert reason.startswith("expected the plain name of a file in AITER's table, got") or (
        name == ".." and "No such file" in reason
    )


# --- Trust ----------------------------------------------------------------------------------------


def test_another_build_is_refused_unless_allowed(
    hsa: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = MadeElf(kernel={".kernarg_segment_size": 304}).build()
    write(hsa, other)
    refusal(f"{FILE}: another build .*JAX_MLA_AITER_UNKNOWN=allow uses it untested")
    monkeypatch.setenv("JAX_MLA_AITER_UNKNOWN", "yes")
    refusal("another build")
    monkeypatch.setenv("JAX_MLA_AITER_UNKNOWN", "allow")
    aiter.discover.cache_clear()
    found = aiter.find(kernels.TABLE[0])
    assert (found.content, found.known) == (other, False)
    assert found.sha256 == hashlib.sha256(other).hexdigest() != kernels.TABLE[0].sha256


@pytest.mark.parametrize("allow", ["", "allow"])
def test_never(hsa: pathlib.Path, monkeypatch: pytest.MonkeyPatch, allow: str) -> None:
    """Denied, not shown to be right, or of no known name: whatever the environment says."""
    monkeypatch.setenv("JAX_MLA_AITER_UNKNOWN", allow)
    sha256 = kernels.TABLE[0].sha256
    denied = kernels.Denied("gfx942", "no causal mask", "renamed", sha256)
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "DENIED", (denied,))
        refusal(f"{FILE}: never used: no causal mask")
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "TABLE", (row(GOOD, evidence="doubtful"),))
        refusal(f"{FILE}: not used, as it has not been shown to be right")
        write(hsa, MadeElf(kernel={".kernarg_segment_size": 304}).build())
        refusal("not been shown to be right")
    write(hsa, MadeElf(kernel={".kernarg_segment_size": 304}).build(), file="unheard_of")
    refusal("does not list")
    reason = aiter.discover("gfx942").refused["unheard_of"]
    assert reason.startswith("unheard_of: jax_mla knows neither its SHA-256")


def test_the_tested_build_under_another_name(
    hsa: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands for its row, before an unknown build that has the row's name."""
    monkeypatch.setenv("JAX_MLA_AITER_UNKNOWN", "allow")
    folder = hsa / "gfx942/mla"
    (folder / "renamed.co").write_bytes(GOOD)
    (folder / f"{FILE}.co").write_bytes(MadeElf(kernel={".kernarg_segment_size": 304}).build())
    for order in ("renamed", FILE), (FILE, "renamed"):
        lines = "".join(f"{file}.co,{SYMBOL}\n" for file in order)
        (folder / "mla_asm.csv").write_text("co_name,knl_name\n" + lines)
        aiter.discover.cache_clear()
        found = aiter.find(kernels.TABLE[0])
        assert (found.content, found.file, found.known) == (GOOD, FILE, True)


@pytest.mark.parametrize(
    ("arch", "kernel", "message"),
    [
        ("gfx942", {".kernarg_segment_size": 207}, "takes 207 argument bytes"),
        ("gfx942", {".kernarg_segment_size": 385}, "takes 385 argument bytes"),
        ("gfx942", {".kernarg_segment_size": -8}, "takes -8 argument bytes"),
        ("gfx942", {".wavefront_size": 32}, "waves of 32"),
        ("gfx942", {".group_segment_fixed_size": 65537}, "needs 65537 bytes of LDS"),
        ("gfx950", {".group_segment_fixed_size": 163841}, "needs 163841 bytes of LDS"),
        ("gfx942", {".private_segment_fixed_size": 8}, "needs 8 bytes of private memory"),
    ],
)
@pytest.mark.parametrize("known", [True, False], ids=["known", "allowed"])
def test_what_a_code_object_must_say_of_itself(
    hsa: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    arch: str,
    kernel: dict[str, int],
    message: str,
    known: bool,
) -> None:
    descriptor = {
        "lds": kernel.get(".group_segment_fixed_size", 65536),
        "private": kernel.get(".private_segment_fixed_size", 0),
    }
    elf = MadeElf(header={"flags": MACHINES[arch]}, kernel=kernel, descriptor=descriptor)
    content = elf.build()
    write(hsa, content, arch)
    monkeypatch.setattr(kernels, "TABLE", (row(content if known else GOOD, arch),))
    monkeypatch.setenv("JAX_MLA_AITER_UNKNOWN", "allow")
    refusal(f"not one of AITER's decode kernels for {arch}: {message}")


@pytest.mark.parametrize(
    ("arch", "kernarg", "lds"),
    [("gfx942", 208, 65536), ("gfx942", 384, 0), ("gfx950", 384, 163840)],
)
def test_the_limits_themselves(
    hsa: pathlib.Path, monkeypatch: pytest.MonkeyPatch, arch: str, kernarg: int, lds: int
) -> None:
    kernel = {".kernarg_segment_size": kernarg, ".group_segment_fixed_size": lds}
    header = {"flags": MACHINES[arch]}
    content = MadeElf(header=header, kernel=kernel, descriptor={"lds": lds}).build()
    write(hsa, content, arch)
    monkeypatch.setattr(kernels, "TABLE", (row(content, arch),))
    assert aiter.find(kernels.TABLE[0]).content == content


def test_a_foreign_file(hsa: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_MLA_AITER_UNKNOWN", "allow")
    write(hsa, MadeElf(header={"flags": MACHINES["gfx950"]}).build())
    refusal("not one of AITER's decode kernels for gfx942: compiled for gfx950")
    write(hsa, b"version https://git-lfs.github.com/spec/v1\n" * 3)
    refusal(f"{FILE}.co: expected a 64-bit little-endian ELF file")
    write(hsa, GOOD[:-1])
    refusal(f"{FILE}.co: section headers: beyond the end of the file")
    write(hsa, GOOD + b"\0" * 2**22)
    refusal(f"{FILE}.co: expected at most 4194304 bytes")


# --- Who can write it -----------------------------------------------------------------------------

PARTS = ("", "gfx942", "gfx942/mla", "gfx942/mla/mla_asm.csv", f"gfx942/mla/{FILE}.co")


@pytest.mark.parametrize("part", PARTS)
def test_writable_by_others(hsa: pathlib.Path, part: str) -> None:
    path = hsa / part
    path.chmod(path.stat().st_mode | 0o002)
    refusal(f"{path}: others can write it, and it is code: chmod -R go-w {hsa}")
    subprocess.run(["chmod", "-R", "go-w", str(hsa)], check=True)
    aiter.discover.cache_clear()
    assert aiter.find(kernels.TABLE[0]).content == GOOD


@pytest.mark.parametrize("part", PARTS)
def test_writable_by_a_group(hsa: pathlib.Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Only the owner's own group may, which distributions make for each user."""
    path = hsa / part
    path.chmod(path.stat().st_mode | 0o020)
    monkeypatch.setattr(aiter.pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="ada"))

    def group(name: str, *members: str) -> None:
        entry = SimpleNamespace(gr_name=name, gr_mem=list(members))
        monkeypatch.setattr(aiter.grp, "getgrgid", lambda gid: entry)

    for shared in (("users",), ("ada", "bob"), ("users", "ada")):
        group(*shared)
        refusal(f"{path}: others can write it")
    monkeypatch.setattr(aiter.grp, "getgrgid", {}.__getitem__)  # a group without a name
    refusal(f"{path}: others can write it")
    for own in (("ada",), ("ada", "ada")):
        group(*own)
        aiter.discover.cache_clear()
        assert aiter.find(kernels.TABLE[0]).content == GOOD


@pytest.mark.parametrize("part", PARTS)
def test_owned_by_somebody_else(
    hsa: pathlib.Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    path, real_lstat = hsa / part, pathlib.Path.lstat

    def lstat(self: pathlib.Path) -> Any:
        status = real_lstat(self)
        uid = 4321 if self == path else status.st_uid
        return SimpleNamespace(st_mode=status.st_mode, st_uid=uid, st_gid=status.st_gid)

    monkeypatch.setattr(pathlib.Path, "lstat", lstat)
    refusal(rf"{path}: belongs to user 4321, and it is code: .*\(chown -R \d+ {hsa}\)")


@pytest.mark.parametrize("part", PARTS[1:])
@pytest.mark.parametrize("inside", [True, False])
def test_symbolic_links(hsa: pathlib.Path, part: str, inside: bool) -> None:
    path = hsa / part
    target = (hsa if inside else hsa.parent) / "moved"
    path.rename(target)
    path.symlink_to(target)
    refusal(f"{path}: a symbolic link")


def test_the_hsa_folder_itself_may_be_a_link(
    hsa: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the user who names it; what counts is where it leads."""
    link = hsa.parent / "link"
    link.symlink_to(hsa)
    monkeypatch.setenv("JAX_MLA_AITER_DIR", str(link))
    assert aiter.find(kernels.TABLE[0]).content == GOOD
    hsa.chmod(0o777)
    refusal(f"{hsa}: others can write it")


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/zero")],
    ids=["pipe", "folder", "device"],
)
def test_not_a_plain_file(hsa: pathlib.Path, make: Callable[[pathlib.Path], None]) -> None:
    """None of which is opened: reading a pipe would wait for ever."""
    path = hsa / f"gfx942/mla/{FILE}.co"
    path.unlink()
    make(path)
    refusal(f"{path}: (expected a plain file|a symbolic link)")


# --- AITER itself ---------------------------------------------------------------------------------


@needs_aiter
@pytest.mark.parametrize("arch", kernels.ARCHES)
def test_every_selectable_kernel_of_a_checkout(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of AITER e4048607a5 (2026-08-22), which the table was made from."""
    monkeypatch.setenv("JAX_MLA_AITER_DIR", str(AITER))
    installation = aiter.discover(arch)
    rows = {k.file: k.sha256 for k in kernels.TABLE if k.arch == arch and k.selectable}
    assert {file: found.sha256 for file, found in installation.objects.items()} == rows
    assert all(found.known for found in installation.objects.values())
    denied = {d.file for d in kernels.DENIED if d.arch == arch}
    for file, reason in installation.refused.items():
        assert ("never used" in reason) == (file in denied), reason

    listed = (pathlib.Path(str(AITER)) / arch / "mla/mla_asm.csv").read_text()
    for found in installation.objects.values():
        assert f"{found.symbol},{found.file}.co" in listed
        assert hashlib.sha256(found.content).hexdigest() == found.sha256
    assert not installation.objects.keys() & installation.refused.keys()
