"""The findings of an examination, as values that can be published. Pure.

Every text is made of this package's own words, of numbers, of host names, and of what `redact`
allows. No key, name or message of a user must ever be in one.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from ..deprecation import warn_renamed
from ..wire.query import JsonObject

__all__ = ["Finding", "Report", "Sample", "Shape", "Status"]


class Status(enum.Enum):
    """What a finding means for the user of a program with this library."""

    OK = "ok"
    """As expected."""

    NOTE = "note"
    """Undocumented, or not as documented, and supported: there is nothing to do."""

    WARNING = "warning"
    """Something is missing, or will fail later."""

    PROBLEM = "problem"
    """Something does not work."""

    SKIPPED = "skipped"
    """Not checked; the text is the reason."""


SEVERITY: Final = (Status.SKIPPED, Status.OK, Status.NOTE, Status.WARNING, Status.PROBLEM)
"""Every status, in ascending order of severity."""


class Finding(msgspec.Struct, frozen=True):
    """The result of one check."""

    check: str
    """The name of the check, which is stable, such as ``"pythbots.mail.null"``."""

    status: Status
    """How severe it is."""

    text: str
    """The result in words."""

    advice: str | None = None
    """What to do about it; ``None`` if there is nothing to do."""


class Shape(msgspec.Struct, frozen=True):
    """The types, lengths and field names of one kind of response."""

    name: str
    """What was requested."""

    shape: str
    """The types, such as ``{status: integer, message_list: 50 x {...}}``."""


class Sample(msgspec.Struct, frozen=True):
    """One response in which all data of users is replaced."""

    endpoint: str
    """The name of the endpoint."""

    name: str
    """What was requested, as a part of a file's name."""

    body: bytes
    """The redacted JSON."""


class Report(msgspec.Struct, frozen=True):
    """All results of an examination."""

    version: str
    """The version of this library."""

    findings: tuple[Finding, ...]
    """The results of the checks, in their order."""

    shapes: tuple[Shape, ...] = ()
    """The shapes of the responses, in their order."""

    samples: tuple[Sample, ...] = ()
    """The redacted responses, for `write_samples`; `as_json` omits them."""

    @property
    def status(self) -> Status:
        """The status of the most severe finding; ``SKIPPED`` without findings."""
        statuses = (finding.status for finding in self.findings)
        return max(statuses, key=SEVERITY.index, default=Status.SKIPPED)

    def find(self, check: str) -> Finding | None:
        """Return the finding of the check with the name *check*, ``None`` if there is none."""
        return next((finding for finding in self.findings if finding.check == check), None)

    def of(self, check: str) -> Finding | None:
        """Deprecated name of `find`."""
        warn_renamed("Report.of()", "Report.find()")
        return self.find(check)

    def as_json(self) -> JsonObject:
        """Return the report as JSON values, without the samples."""
        fields: JsonObject = msgspec.to_builtins(
            {
                "version": self.version,
                "status": self.status,
                "findings": self.findings,
                "shapes": self.shapes,
            }
        )
        return fields
