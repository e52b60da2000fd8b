"""Read-only checks of the real services: whether they are what the models expect.

`examine` makes a few requests, of reads only, with the keys of a session. It returns a `Report`
that can be published: it contains no key, no name, no id and no text of any user. `write_samples`
writes its samples, redacted in the same way, to files.

Nothing in this package may post, send mail, or request ``readnew``.
"""

from __future__ import annotations

from .capture import write_samples
from .checkup import examine
from .report import Finding, Report, Sample, Shape, Status

__all__ = ["Finding", "Report", "Sample", "Shape", "Status", "examine", "write_samples"]
