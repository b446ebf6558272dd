# SPDX-License-Identifier: Apache-2.0
"""Makes code objects as AITER's are laid out, without code, and with any part of them wrong."""

import dataclasses
import struct
from typing import Any

SYMBOL = "_ZN5aiter4testE"
MACHINES = {"gfx942": 0x54C, "gfx950": 0x54F}
# Where the file is loaded, so that addresses are not offsets.
_BASE = 0x2000


@dataclasses.dataclass
class MadeElf:
    """A code object; the defaults are a good one.

    Attributes:
      header: fields of the ELF header, by name.
      kernel: entries of the kernel's metadata; None takes one out.
      kernels: number of copies of the kernel in the metadata.
      metadata: in place of all metadata, encoded.
      note: owner and type of the metadata's note.
      notes: number of copies of the note.
      note_segments: number of copies of the segment of notes.
      symbols: the dynamic symbols, name to fields.
      descriptor: fields of the kernel descriptor.
      loaded: what the loadable segment holds; None is everything.
      symbol_tables: number of copies of the section of dynamic symbols.
      names_section: which section has their names.
    """

    header: dict[str, int] = dataclasses.field(default_factory=dict)
    kernel: dict[str, Any] = dataclasses.field(default_factory=dict)
    kernels: int = 1
    metadata: bytes | None = None
    note: tuple[bytes, int] = (b"AMDGPU\0", 32)
    notes: int = 1
    note_segments: int = 1
    symbols: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    descriptor: dict[str, int] = dataclasses.field(default_factory=dict)
    loaded: int | None = None
    symbol_tables: int = 1
    names_section: int = 2

    def build(self) -> bytes:
        kernel = {
            ".name": SYMBOL,
            ".symbol": SYMBOL + ".kd",
            ".kernarg_segment_size": 288,
            ".group_segment_fixed_size": 65536,
            ".private_segment_fixed_size": 0,
            ".wavefront_size": 64,
            ".args": [{".name": "R", ".offset": 0, ".size": 8}] * 20,
        }
        kernel = {key: value for key, value in (kernel | self.kernel).items() if value is not None}
        metadata = self.metadata
        if metadata is None:
            metadata = pack({"amdhsa.kernels": [kernel] * self.kernels, "amdhsa.version": [1, 2]})
        notes = self._note(metadata) * self.notes

        notes_at = 64 + 56 * (1 + self.note_segments)
        symbols_at = notes_at + len(notes) + -len(notes) % 8
        descriptor_at = symbols_at + 3 * 24
        text_at = descriptor_at + 64
        names_at = text_at + 16
        symbols, names = self._symbols(text_at, descriptor_at)
        sections_at = names_at + len(names) + -len(names) % 8
        table = (0, 11, 0, 0, symbols_at, len(symbols), self.names_section, 1, 8, 24)
        strings = (0, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
        sections = [(0,) * 10, table, strings, *[table] * (self.symbol_tables - 1)]
        if self.symbol_tables == 0:
            sections = [(0,) * 10, (0,) * 10, strings]

        size = sections_at if self.loaded is None else self.loaded
        segments = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)
        note_span = (notes_at, _BASE + notes_at, _BASE + notes_at, len(notes), len(notes), 4)
        segments += struct.pack("<IIQQQQQQ", 4, 4, *note_span) * self.note_segments
        descriptor = {"lds": 65536, "private": 0, "entry": text_at - descriptor_at}
        descriptor |= self.descriptor
        content = self._header(1 + self.note_segments, sections_at, len(sections)) + segments
        for offset, part in (
            (notes_at, notes),
            (symbols_at, symbols),
            (descriptor_at, struct.pack("<II8xq40x", *descriptor.values())),
            (text_at, b"\x00\x00\x81\xbf" * 4),
            (names_at, names),
            (sections_at, b"".join(struct.pack("<IIQQQQIIQQ", *s) for s in sections)),
        ):
            content += b"\0" * (offset - len(content)) + part
        return content

    def _header(self, segments: int, sections_at: int, sections: int) -> bytes:
        fields = {
            "magic": 0x464C457F,
            "class": 2,
            "data": 1,
            "version": 1,
            "osabi": 64,
            "abiversion": 4,
            "type": 3,
            "machine": 224,
            "version2": 1,
            "entry": 0,
            "phoff": 64,
            "shoff": sections_at,
            "flags": MACHINES["gfx942"],
            "ehsize": 64,
            "phentsize": 56,
            "phnum": segments,
            "shentsize": 64,
            "shnum": sections,
            "shstrndx": 0,
        }
        return struct.pack("<I5B7xHHIQQQI6H", *(fields | self.header).values())

    def _note(self, text: bytes) -> bytes:
        name, kind = self.note
        padded = [part + b"\0" * (-len(part) % 4) for part in (name, text)]
        return struct.pack("<III", len(name), len(text), kind) + b"".join(padded)

    def _symbols(self, text_at: int, descriptor_at: int) -> tuple[bytes, bytes]:
        """The table, with its first empty entry, and the names."""
        entries = {
            SYMBOL: {"section": 1, "value": _BASE + text_at, "size": 16},
            SYMBOL + ".kd": {"section": 1, "value": _BASE + descriptor_at, "size": 64},
        }
        table, names = b"\0" * 24, b"\0"
        for name, fields in entries.items():
            changed = self.symbols.get(name, {})
            table += struct.pack("<IBBHQQ", len(names), 0x11, 0, *(fields | changed).values())
            names += name.encode() + b"\0"
        return table, names


def pack(value: Any) -> bytes:
    """MessagePack, in the shortest encodings, as LLVM writes it."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            for limit, tag, layout in (
                (1 << 8, 0xCC, "B"),
                (1 << 16, 0xCD, "H"),
                (1 << 32, 0xCE, "I"),
            ):
                if 0 <= value < 128:
                    return bytes([value])
                if 0 <= value < limit:
                    return struct.pack(">B" + layout, tag, value)
            return struct.pack(">Bq", 0xD3, value)
        case float():
            return struct.pack(">Bd", 0xCB, value)
        case bytes():
            return struct.pack(">BH", 0xC5, len(value)) + value
        case str():
            text = value.encode()
            short = bytes([0xA0 + len(text)]) if len(text) < 32 else None
            return (short or struct.pack(">BH", 0xDA, len(text))) + text
        case list():
            items = b"".join(map(pack, value))
            short = bytes([0x90 + len(value)]) if len(value) < 16 else None
            return (short or struct.pack(">BH", 0xDC, len(value))) + items
        case dict():
            items = b"".join(pack(key) + pack(item) for key, item in value.items())
            short = bytes([0x80 + len(value)]) if len(value) < 16 else None
            return (short or struct.pack(">BH", 0xDE, len(value))) + items
    raise TypeError(value)
