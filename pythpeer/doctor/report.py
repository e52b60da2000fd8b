"""What an examination found, as values that can be pasted anywhere. Pure.

Every text in here is made of this package's own words, of numbers, of host names, and of what
`redact` lets through. No key, name or message of anybody's must ever get into one.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from ..wire import JsonObject

__all__ = ["Finding", "Report", "Sample", "Shape", "Status"]


class Status(enum.Enum):
    """What a finding means for whoever runs a program with this library."""

    OK = "ok"
    """As it should be."""

    NOTE = "note"
    """Not documented, or otherwise than documented, and taken as it comes: nothing to do."""

    WARNING = "warning"
    """Something is missing, or will go wrong some day."""

    PROBLEM = "problem"
    """Something does not work."""

    SKIPPED = "skipped"
    """Not looked at; the text says why."""


SEVERITY: Final = (Status.SKIPPED, Status.OK, Status.NOTE, Status.WARNING, Status.PROBLEM)


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    check: str
    """What was looked at: a name that stays the same, such as ``"pythbots.mail.null"``."""

    status: Status

    text: str
    """What was found."""

    advice: str | None = None
    """What to do about it, where there is something to do."""


class Shape(msgspec.Struct, frozen=True):
    """What one kind of answer looked like: types, lengths and the names of fields."""

    name: str
    shape: str


class Sample(msgspec.Struct, frozen=True):
    """One answer with everything in it replaced that is anybody's."""

    endpoint: str
    name: str
    body: bytes


class Report(msgspec.Struct, frozen=True):
    """All that an examination found, in the order in which it was found."""

    version: str
    """The version of this library."""

    findings: tuple[Finding, ...]
    shapes: tuple[Shape, ...] = ()
    samples: tuple[Sample, ...] = ()
    """For `write_samples`; not part of what `as_json` gives."""

    @property
    def status(self) -> Status:
        """The gravest of all findings."""
        found = (finding.status for finding in self.findings)
        return max(found, key=SEVERITY.index, default=Status.SKIPPED)

    def find(self, check: str) -> Finding | None:
        """The finding of this name, or ``None`` where it was not looked at."""
        return next((each for each in self.findings if each.check == check), None)

    def as_json(self) -> JsonObject:
        """The report as what JSON can hold, without the samples."""
        fields: JsonObject = msgspec.to_builtins(
            {
                "version": self.version,
                "status": self.status,
                "findings": self.findings,
                "shapes": self.shapes,
            }
        )
        return fields
