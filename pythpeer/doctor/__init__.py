"""Whether the services are what the models expect: read-only checks, for somebody with real keys.

`examine` asks both services a little, by reading only, and returns a `Report` that can be pasted
anywhere: it holds no key, no name, no id and no text of anybody's. Its samples, redacted likewise,
go to files with `write_samples`.

Nothing in here posts, sends mail, or asks with ``readnew``.
"""

from __future__ import annotations

from .examination import examine
from .report import Finding, Report, Sample, Shape, Status
from .samples import write_samples

__all__ = ["Finding", "Report", "Sample", "Shape", "Status", "examine", "write_samples"]
