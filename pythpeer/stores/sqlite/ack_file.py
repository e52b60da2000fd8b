"""`AckFile`: the acknowledged positions of readers, in a file that is mapped into memory.

An acknowledgement must be so cheap that it can be made for each message, and must survive if the
process is killed immediately after it. It is therefore not a transaction, but sixteen bytes in a
file next to the database. The file is mapped into memory, and the operating system keeps what was
written to it when the process ends, however it ends. The database is the authority: a record in
this file only moves a position forwards, and is ignored if it does not belong to the database.
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
"""The epoch and the position of a reader, and a checksum of both and of the slot, which detects a
record that was written in part."""

_HEADER: Final = b"pyth-ack"
"""The first bytes of the file, followed by the id of the database: as long as a record."""

GROWTH_SIZE: Final = 16_384
"""The bytes by which the file grows: records for 1,024 readers."""


class AckFile:
    """The open file. One thread of each process writes it; for reading it is opened each time.

    Invariants: it may only be opened by one process at a time; a record never has an epoch that the
    database has not reached; slot 0 is the header.
    """

    def __init__(self, path: Path, owner: bytes, epochs: Mapping[int, int]) -> None:
        """Open or create the file. If it does not belong to the database *owner* it is replaced.

        *epochs* are those of the slots in the database. A record with a later epoch was written
        before the database was restored from a copy, and is deleted: the database will reach that
        epoch again, with another position.
        """
        self._path = path
        self._header = (_HEADER + owner)[: _RECORD.size]
        self._file = _open(path)
        """The open file. Replaced once, by `_claim_file`, if it belongs to another database."""
        try:
            self._claim_file()
            self._map = self._map_for(self._file.seek(0, os.SEEK_END) // _RECORD.size - 1)
            """The mapped content. Replaced by a larger one if `write` needs more slots."""
            self._drop_future_epochs(epochs)
        except BaseException:
            self._file.close()
            raise

    def _claim_file(self) -> None:
        header = self._file.read(len(self._header))
        if header == self._header:
            return
        if header:
            # Not truncated: a process that has it mapped would be killed when it accesses it.
            self._file.close()
            self._path.unlink()
            self._file = _open(self._path)
        self._write_all(self._header)

    def _drop_future_epochs(self, epochs: Mapping[int, int]) -> None:
        for slot, (epoch, _) in self.read().items():
            if epoch > epochs.get(slot, 0):
                self._map[slot * _RECORD.size : (slot + 1) * _RECORD.size] = bytes(_RECORD.size)

    def _map_for(self, slot: int) -> mmap.mmap:
        """Map the file, large enough for *slot*. Grows it by writing zeros.

        If the file were only extended, the disk could be full when the memory is accessed, which
        kills the process.
        """
        size = self._file.seek(0, os.SEEK_END)
        wanted = ((slot * _RECORD.size) // GROWTH_SIZE + 1) * GROWTH_SIZE
        if size < wanted:
            self._write_all(bytes(wanted - size))
        return mmap.mmap(self._file.fileno(), wanted)

    def _write_all(self, data: bytes) -> None:
        """Write all of *data*: a full disk may accept a part, and raise an error for the rest."""
        while data:
            data = data[self._file.write(data) :]

    def write(self, slot: int, epoch: int, position: int) -> None:
        """Record that the reader in *slot* has acknowledged all items up to *position*.

        Raises ``OSError`` if the file cannot grow for one more slot.
        """
        offset = slot * _RECORD.size
        if offset + _RECORD.size > len(self._map):
            self._map = self._map_for(slot)
        record = _RECORD.unpack_from(self._map, offset)
        # Another process may have acknowledged more under the same name, or have moved it by seek.
        if record[:2] < (epoch, position) or not _is_valid(slot, record):
            _RECORD.pack_into(self._map, offset, epoch, position, _checksum(slot, epoch, position))

    def read(self) -> Mapping[int, tuple[int, int]]:
        """Return the epoch and the position of each slot, written by any process."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            data = b""
        if not data.startswith(self._header):
            return {}  # the file was deleted, perhaps with the database, while it is open here
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
    epoch, position, checksum = record
    return checksum == _checksum(slot, epoch, position)


def _checksum(slot: int, epoch: int, position: int) -> int:
    return (((position ^ position >> 32) * 31 + epoch) * 31 + slot) & 0xFFFFFFFF
