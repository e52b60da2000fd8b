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
from io import FileIO
from pathlib import Path
from typing import Final

__all__ = ["AckFile"]

_RECORD: Final = struct.Struct("<IqI")
"""A reader's epoch, its place, and a sum of both and its slot, which tells half a record."""

_HEADER: Final = b"pyth-ack"

PAGE: Final = 16_384
"""By how many bytes the file grows: room for 1,024 readers."""


class AckFile:
    """The open file. One thread of each process writes it; whoever reads it opens it anew.

    Opening it is for one process at a time, and nobody writes an epoch that the database has not.
    """

    def __init__(self, path: Path, owner: bytes, epochs: Mapping[int, int]) -> None:
        """Open or make the file. If it does not belong to the database *owner* it starts empty.

        *epochs* are those of the database's slots. A record from a later one is of another life of
        the database, from which it was put back since, and is taken out: the database will get to
        that epoch again, for somebody else.
        """
        self._path = path
        self._header = (_HEADER + owner)[: _RECORD.size]
        self._file = _open(path)
        try:
            self._claim_file()
            self._map = self._map_for(self._file.seek(0, os.SEEK_END) // _RECORD.size - 1)
            self._drop_future_epochs(epochs)
        except BaseException:
            self._file.close()
            raise

    def _claim_file(self) -> None:
        found = self._file.read(len(self._header))
        if found == self._header:
            return
        if found:
            # Not emptied: a process that has it mapped would be killed for looking into it.
            self._file.close()
            self._path.unlink()
            self._file = _open(self._path)
        self._write_all(self._header)

    def _drop_future_epochs(self, epochs: Mapping[int, int]) -> None:
        for slot, (epoch, _) in self.read().items():
            if epoch > epochs.get(slot, 0):
                self._map[slot * _RECORD.size : (slot + 1) * _RECORD.size] = bytes(_RECORD.size)

    def _map_for(self, slot: int) -> mmap.mmap:
        """Map the file, with room for *slot*. Bytes that are written can be mapped without fear.

        For a hole in a file the disk may turn out to be full only when it is touched.
        """
        size = self._file.seek(0, os.SEEK_END)
        wanted = ((slot * _RECORD.size) // PAGE + 1) * PAGE
        if size < wanted:
            self._write_all(bytes(wanted - size))
        return mmap.mmap(self._file.fileno(), wanted)

    def _write_all(self, data: bytes) -> None:
        """Write all of *data*: a disk may take a part, and refuse the rest when asked again."""
        while data:
            data = data[self._file.write(data) :]

    def write(self, slot: int, epoch: int, place: int) -> None:
        """Note that the reader in *slot* has acknowledged everything up to *place*.

        Raises ``OSError`` where there is no room for one more slot.
        """
        at = slot * _RECORD.size  # slot 0 is the header
        if at + _RECORD.size > len(self._map):
            self._map = self._map_for(slot)
        known = _RECORD.unpack_from(self._map, at)
        # Another process may be further with the same name, or have sent it elsewhere.
        if known[:2] < (epoch, place) or not _is_valid(slot, known):
            _RECORD.pack_into(self._map, at, epoch, place, _checksum(slot, epoch, place))

    def read(self) -> Mapping[int, tuple[int, int]]:
        """The epoch and place of each slot, from whichever process."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            data = b""
        if not data.startswith(self._header):
            return {}  # somebody deleted it, and perhaps the database too, while it is in use here
        records = (
            (slot, _RECORD.unpack_from(data, slot * _RECORD.size))
            for slot in range(1, len(data) // _RECORD.size)
        )
        return {slot: record[:2] for slot, record in records if _is_valid(slot, record)}

    def close(self) -> None:
        """Close the file."""
        self._map.close()
        self._file.close()


def _open(path: Path) -> FileIO:
    return FileIO(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600), "r+")


def _is_valid(slot: int, record: tuple[int, int, int]) -> bool:
    epoch, place, found = record
    return found == _checksum(slot, epoch, place)


def _checksum(slot: int, epoch: int, place: int) -> int:
    return (((place ^ place >> 32) * 31 + epoch) * 31 + slot) & 0xFFFFFFFF
