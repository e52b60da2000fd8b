"""A file of places: how far each reader has acknowledged, written at the moment it says so.

To acknowledge must be cheap enough to be done for each message, and must hold if the process is
killed right behind it. So it is no transaction but sixteen bytes in a file beside the database,
which the operating system keeps whatever becomes of the process. What is in the database is what
counts; a record here only moves a place further, and is left out of account where it does not fit.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

__all__ = ["Places"]

_RECORD: Final = struct.Struct("<IqI")
"""A reader's epoch, its place, and a sum of both and its slot, which tells half a record."""

_HEADER: Final = b"pyth-ack"


class Places:
    """The open file. One thread writes it; whoever wants to read it opens it anew."""

    def __init__(self, path: Path, owner: bytes) -> None:
        """Open or make the file. If it does not belong to the database *owner* it starts empty."""
        self._path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        # At once, where the system can: each acknowledgement is one of these.
        positioned = hasattr(os, "pwrite")
        self._put: Callable[[bytes, int], object] = (
            partial(os.pwrite, descriptor) if positioned else self._write_at
        )
        header = (_HEADER + owner)[: _RECORD.size]
        if self._file.read(len(header)) != header:
            self._file.truncate(0)
            self._file.seek(0)
            self._file.write(header)

    def write(self, slot: int, epoch: int, place: int) -> None:
        """Note that the reader in *slot* has acknowledged everything up to *place*."""
        self._put(_packed(slot, epoch, place), slot * _RECORD.size)  # slot 0 is the header

    def read(self) -> Mapping[int, tuple[int, int]]:
        """The epoch and place of each slot, from whichever process."""
        data = self._path.read_bytes()
        found: dict[int, tuple[int, int]] = {}
        for slot in range(1, len(data) // _RECORD.size):
            epoch, place, _ = _RECORD.unpack_from(data, slot * _RECORD.size)
            if data.startswith(_packed(slot, epoch, place), slot * _RECORD.size):
                found[slot] = (epoch, place)
        return found

    def _write_at(self, data: bytes, at: int) -> None:
        self._file.seek(at)
        self._file.write(data)

    def close(self) -> None:
        """Close the file."""
        self._put = self._write_at  # its descriptor is going to be another file's
        self._file.close()


def _packed(slot: int, epoch: int, place: int) -> bytes:
    return _RECORD.pack(epoch, place, ((place * 31 + epoch) * 31 + slot) & 0xFFFFFFFF)
