"""A file of places: how far each reader has acknowledged, written at the moment it says so.

To acknowledge must be cheap enough to be done for each message, and must hold if the process is
killed right behind it. So it is no transaction but sixteen bytes in a file beside the database,
mapped into memory, which the operating system keeps whatever becomes of the process. What is in the
database is what counts; a record here only moves a place further, and is left out of account where
it does not fit.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["Places"]

_RECORD: Final = struct.Struct("<IqI")
"""A reader's epoch, its place, and a sum of both and its slot, which tells half a record."""

_HEADER: Final = b"pyth-ack"

PAGE: Final = 16_384
"""By how many bytes the file grows: room for 1,024 readers."""


class Places:
    """The open file. One thread of each process writes it; whoever reads it opens it anew."""

    def __init__(self, path: Path, owner: bytes) -> None:
        """Open or make the file. If it does not belong to the database *owner* it starts empty."""
        self._path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        header = (_HEADER + owner)[: _RECORD.size]
        if self._file.read(len(header)) != header:
            self._file.truncate(0)
            self._file.seek(0)
            self._file.write(header)
        self._map = self._mapped(0)

    def _mapped(self, slot: int) -> mmap.mmap:
        """Map the file, with room for *slot*. Bytes that are written can be mapped without fear.

        For a hole in a file the disk may turn out to be full only when it is touched.
        """
        size = self._file.seek(0, os.SEEK_END)
        wanted = ((slot + 1) * _RECORD.size // PAGE + 1) * PAGE
        if size < wanted:
            self._file.write(bytes(wanted - size))
        return mmap.mmap(self._file.fileno(), wanted)

    def write(self, slot: int, epoch: int, place: int) -> None:
        """Note that the reader in *slot* has acknowledged everything up to *place*.

        Raises ``OSError`` where there is no room for one more slot.
        """
        at = slot * _RECORD.size  # slot 0 is the header
        if at + _RECORD.size > len(self._map):
            self._map = self._mapped(slot)
        known = _RECORD.unpack_from(self._map, at)
        # Another process may be further with the same name, or have sent it elsewhere.
        if known[:2] < (epoch, place) or not _holds(slot, known):
            _RECORD.pack_into(self._map, at, epoch, place, _sum(slot, epoch, place))

    def read(self) -> Mapping[int, tuple[int, int]]:
        """The epoch and place of each slot, from whichever process."""
        data = self._path.read_bytes()
        records = (
            (slot, _RECORD.unpack_from(data, slot * _RECORD.size))
            for slot in range(1, len(data) // _RECORD.size)
        )
        return {slot: record[:2] for slot, record in records if _holds(slot, record)}

    def close(self) -> None:
        """Close the file."""
        self._map.close()
        self._file.close()


def _holds(slot: int, record: tuple[int, int, int]) -> bool:
    epoch, place, found = record
    return found == _sum(slot, epoch, place)


def _sum(slot: int, epoch: int, place: int) -> int:
    return ((place * 31 + epoch) * 31 + slot) & 0xFFFFFFFF
