# SPDX-License-Identifier: Apache-2.0
"""Reads what an AMD GPU code object says of itself: an ELF file with the metadata of its kernel.

The file may be anything: every offset and count in it is held against its size before it is used,
and whatever does not fit ends in `Malformed`.
"""

import dataclasses
import struct
from collections.abc import Iterator
from typing import Any

# Numbers of the ELF and AMDGPU ABIs.
_AMD_HSA, _AMDGPU, _SHARED_OBJECT = 64, 224, 3
_ARCHES = {0x4C: "gfx942", 0x4F: "gfx950"}
_LOAD, _NOTE = 1, 4
_DYNAMIC_SYMBOLS = 11
_METADATA = (b"AMDGPU\0", 32)

_MAX_NAME = 1024
_MAX_DEPTH = 16


class Malformed(ValueError):
    """Not a code object, or not one with a single complete kernel; the message says why."""


@dataclasses.dataclass(frozen=True)
class KernelImage:
    """The one kernel of a code object.

    Attributes:
      arch: instruction set, "gfx942" or "gfx950".
      symbol: name to look it up by, mangled as the file has it.
      kernarg_bytes: of its argument block. From the metadata: AITER's descriptors say 0.
      lds_bytes: of shared memory that it was compiled with.
      private_bytes: of scratch memory per work-item.
      wavefront: work-items of a wave.
    """

    arch: str
    symbol: str
    kernarg_bytes: int
    lds_bytes: int
    private_bytes: int
    wavefront: int


def read(content: bytes) -> KernelImage:
    """The kernel of a code object.

    Raises:
      Malformed: it is not an ELF file for an AMD GPU known here, or does not hold exactly one
        kernel whose metadata, symbol and descriptor are there and agree.
    """
    header = _unpack("<4sBBBBB7xHHI3QI", content, 0, "the ELF header")
    magic, bits, order, _, system, _, kind, machine, _, _, _, _, flags = header
    if (magic, bits, order) != (b"\x7fELF", 2, 1):
        raise Malformed("expected a 64-bit little-endian ELF file")
    if (system, kind, machine) != (_AMD_HSA, _SHARED_OBJECT, _AMDGPU):
        raise Malformed(
            "expected a linked code object for AMD GPUs (OS ABI, type, machine = "
            f"{_AMD_HSA}, {_SHARED_OBJECT}, {_AMDGPU}), got {system}, {kind}, {machine}"
        )
    if flags & 0xFF not in _ARCHES:
        raise Malformed(f"compiled for an unknown GPU (ELF machine flag {flags & 0xFF:#x})")

    segments = list(_table(content, 32, 54, "<IIQQQQQQ", "program headers"))
    kernel = _only_kernel(_metadata(content, segments))
    image = KernelImage(
        arch=_ARCHES[flags & 0xFF],
        symbol=_field(kernel, ".name", str),
        kernarg_bytes=_field(kernel, ".kernarg_segment_size", int),
        lds_bytes=_field(kernel, ".group_segment_fixed_size", int),
        private_bytes=_field(kernel, ".private_segment_fixed_size", int),
        wavefront=_field(kernel, ".wavefront_size", int),
    )
    if not 0 < len(image.symbol) <= _MAX_NAME or not image.symbol.isprintable():
        raise Malformed(f"metadata: .name has {len(image.symbol)} characters or unprintable ones")
    if _field(kernel, ".symbol", str) != image.symbol + ".kd":
        raise Malformed(f"metadata: .symbol is not {image.symbol}.kd")
    _check_descriptor(content, segments, image)
    return image


# --- ELF ------------------------------------------------------------------------------------------


def _unpack(layout: str, content: bytes, offset: int, what: str) -> tuple[Any, ...]:
    if offset + struct.calcsize(layout) > len(content):
        raise Malformed(f"{what}: beyond the end of the file ({len(content)} bytes)")
    return struct.unpack_from(layout, content, offset)


def _slice(content: bytes, offset: int, size: int, what: str) -> bytes:
    if offset + size > len(content):
        raise Malformed(f"{what}: beyond the end of the file ({len(content)} bytes)")
    return content[offset : offset + size]


def _table(
    content: bytes, start_at: int, count_at: int, layout: str, what: str
) -> Iterator[tuple[Any, ...]]:
    """The program or section headers, which the ELF header says the place, size and number of."""
    (start,) = _unpack("<Q", content, start_at, "the ELF header")
    size, count = _unpack("<HH", content, count_at, "the ELF header")
    if count and size != struct.calcsize(layout):
        raise Malformed(f"{what}: expected {struct.calcsize(layout)} bytes each, got {size}")
    for i in range(count):
        yield _unpack(layout, content, start + i * size, what)


def _metadata(content: bytes, segments: list[tuple[Any, ...]]) -> Any:
    """The AMDGPU metadata, from the file's one segment of notes."""
    spans = [(offset, size) for kind, _, offset, _, _, size, *_ in segments if kind == _NOTE]
    if len(spans) != 1:
        raise Malformed(f"expected one segment of notes, got {len(spans)}")
    found = [text for key, text in _notes(_slice(content, *spans[0], "notes")) if key == _METADATA]
    if len(found) != 1:
        raise Malformed(f"expected one note of AMDGPU metadata, got {len(found)}")
    reader = _MessagePack(found[0])
    value = reader.value()
    if reader.position != len(found[0]):
        raise Malformed("metadata: more bytes than it should have")
    return value


def _notes(notes: bytes) -> Iterator[tuple[tuple[bytes, int], bytes]]:
    """(name, type) and text of every note; each part is padded to 4 bytes."""
    position = 0
    while position < len(notes):
        name_size, text_size, kind = _unpack("<III", notes, position, "notes")
        name_at = position + 12
        text_at = name_at + name_size + -name_size % 4
        name = _slice(notes, name_at, name_size, "notes")
        yield (name, kind), _slice(notes, text_at, text_size, "notes")
        position = text_at + text_size + -text_size % 4


def _check_descriptor(content: bytes, segments: list[tuple[Any, ...]], image: KernelImage) -> None:
    """The kernel and its descriptor are defined, and the descriptor says what the metadata says."""
    entry, _ = _defined(content, image.symbol)
    descriptor, size = _defined(content, image.symbol + ".kd")
    if size != 64:
        raise Malformed(f"{image.symbol}.kd: expected 64 bytes, got {size}")
    for kind, _, offset, address, _, in_file, *_ in segments:
        if kind == _LOAD and address <= descriptor and descriptor + size <= address + in_file:
            at = offset + descriptor - address
            break
    else:
        raise Malformed(f"{image.symbol}.kd: lies in no loaded part of the file")
    lds, private, to_entry = _unpack("<II8xq", content, at, f"{image.symbol}.kd")
    if (lds, private) != (image.lds_bytes, image.private_bytes):
        raise Malformed(
            f"descriptor and metadata differ: {lds} and {image.lds_bytes} bytes of LDS, "
            f"{private} and {image.private_bytes} bytes of private memory"
        )
    if descriptor + to_entry != entry:
        raise Malformed(f"{image.symbol}.kd: does not point to {image.symbol}")


def _defined(content: bytes, name: str) -> tuple[int, int]:
    """(address, size) of a defined dynamic symbol."""
    sections = list(_table(content, 40, 58, "<IIQQQQIIQQ", "section headers"))
    tables = [section for section in sections if section[1] == _DYNAMIC_SYMBOLS]
    if len(tables) != 1:
        raise Malformed(f"expected one table of dynamic symbols, got {len(tables)}")
    (_, _, _, _, offset, size, link, _, _, _) = tables[0]
    if link >= len(sections):
        raise Malformed("dynamic symbols: their names are in a section that is not there")
    symbols = _slice(content, offset, size - size % 24, "dynamic symbols")
    names_at, names_size = sections[link][4:6]
    names = _slice(content, names_at, names_size, "names of dynamic symbols")
    wanted = name.encode() + b"\0"
    for at, _, _, section, address, length in struct.iter_unpack("<IBBHQQ", symbols):
        if section and names[at : at + len(wanted)] == wanted:
            return address, length
    raise Malformed(f"{name}: not a symbol of the file")


# --- Metadata -------------------------------------------------------------------------------------


def _only_kernel(metadata: Any) -> dict[str, Any]:
    kernels = _field(metadata, "amdhsa.kernels", list)
    if len(kernels) != 1:
        raise Malformed(f"metadata: expected one kernel, got {len(kernels)}")
    kernel: dict[str, Any] = kernels[0]
    return kernel


def _field(values: Any, name: str, kind: type) -> Any:
    if not isinstance(values, dict) or type(values.get(name)) is not kind:
        raise Malformed(f"metadata: no {name} of type {kind.__name__}")
    return values[name]


class _MessagePack:
    """Reads MessagePack, all of it but extension types, which AMDGPU metadata has none of."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0

    def value(self, depth: int = 0) -> Any:
        """The value at the current position, which moves past it."""
        if depth > _MAX_DEPTH:
            raise Malformed(f"metadata: nested deeper than {_MAX_DEPTH}")
        (tag,) = self._number("B")
        if tag < 0x80:
            return tag
        if tag >= 0xE0:
            return tag - 0x100
        if tag < 0x90:
            return self._map(tag & 0x0F, depth)
        if tag < 0xA0:
            return self._list(tag & 0x0F, depth)
        if tag < 0xC0:
            return self._text(tag & 0x1F)
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in _NUMBERS:
            return self._number(_NUMBERS[tag])[0]
        if tag in _SIZED:
            kind, layout = _SIZED[tag]
            (size,) = self._number(layout)
            if kind == "map":
                return self._map(size, depth)
            if kind == "list":
                return self._list(size, depth)
            return self._text(size) if kind == "text" else self._take(size)
        raise Malformed(f"metadata: unexpected MessagePack byte {tag:#x}")

    def _take(self, size: int) -> bytes:
        taken = _slice(self.content, self.position, size, "metadata")
        self.position += size
        return taken

    def _number(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(">" + layout, self._take(struct.calcsize(">" + layout)))

    def _text(self, size: int) -> str:
        try:
            return self._take(size).decode()
        except UnicodeDecodeError:
            raise Malformed("metadata: a text is not UTF-8") from None

    # Every item takes at least a byte, so a huge count ends at the end of the content.
    def _list(self, size: int, depth: int) -> list[Any]:
        return [self.value(depth + 1) for _ in range(size)]

    def _map(self, size: int, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        for _ in range(size):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in items:
                raise Malformed(f"metadata: expected texts as keys, each once, got {key!r:.80}")
            items[key] = self.value(depth + 1)
        return items


_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = dict(zip((0xCA, 0xCB, *range(0xCC, 0xD4)), "fdBHIQbhiq", strict=True))
_SIZED = {
    **dict(zip((0xC4, 0xC5, 0xC6), (("bytes", n) for n in "BHI"), strict=True)),
    **dict(zip((0xD9, 0xDA, 0xDB), (("text", n) for n in "BHI"), strict=True)),
    **dict(zip((0xDC, 0xDD), (("list", n) for n in "HI"), strict=True)),
    **dict(zip((0xDE, 0xDF), (("map", n) for n in "HI"), strict=True)),
}
