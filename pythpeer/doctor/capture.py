"""Writes redacted samples to files, for `tests/samples`. No file is ever overwritten."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..errors import InvalidRequestError
from .report import Sample

__all__ = ["write_samples"]

MAX_SAMPLES: Final = 1000
"""The most samples of one name in a folder."""


def write_samples(samples: Iterable[Sample], folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write *samples* to ``<folder>/<endpoint>/captured_<name>.json``, and return the paths.

    The folder is created if necessary. If there is a file of that name, a number is appended. Files
    are readable by their owner only. Raises `InvalidRequestError` if *folder* is not writable.
    """
    reason: str | None
    try:
        Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        return tuple(_write(sample, Path(folder)) for sample in samples)
    except OSError as error:
        reason = error.strerror
    raise InvalidRequestError(f"the samples cannot be written: {reason or 'no such folder'}")


def _write(sample: Sample, folder: Path) -> Path:
    directory = folder / sample.endpoint
    directory.mkdir(exist_ok=True, mode=0o700)
    for number in range(1, MAX_SAMPLES):
        suffix = f"_{number}" if number > 1 else ""
        path = directory / f"captured_{sample.name}{suffix}.json"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        with os.fdopen(descriptor, "wb") as file:
            file.write(sample.body)
        return path
    raise FileExistsError(None, "there are too many samples of that name")
