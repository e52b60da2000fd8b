"""``pythpeer doctor``: the report of `pythpeer.doctor`, with what needs attention first.

Only texts of the report are printed, which can be published.
"""

from __future__ import annotations

import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..doctor import Finding, Report, Shape, Status, examine, write_samples
from . import runtime
from .connect import connected
from .options import Flag, Json, StorePath
from .output.console import make_console, write_json

__all__ = ["doctor"]

WARNINGS: Final = 4
"""The exit code where there are warnings, and no problem."""

CODES: Final = {Status.PROBLEM: runtime.FAILED, Status.WARNING: WARNINGS}

STYLES: Final = {
    Status.OK: "green",
    Status.NOTE: "cyan",
    Status.WARNING: "bold yellow",
    Status.PROBLEM: "bold red",
    Status.SKIPPED: "dim",
}

SERVICES: Final = {"peerbet": "Peerbet chat", "pythbots": "PythBots"}


async def doctor(
    *,
    user: Annotated[str, Parameter(help="The user to look up, by name or id.")] = "tiro",
    chat: Annotated[int, Parameter(help="The chat to look up.")] = 220531305,
    no_mail: Annotated[
        bool,
        Flag,
        Parameter(help="Do not read the mailbox, because that may mark mail as read."),
    ] = False,
    capture: Annotated[
        Path | None, Parameter(help="Write redacted responses into this folder, as samples.")
    ] = None,
    store: StorePath = None,
    json: Json = False,
) -> int:
    """Compare both services, with your keys, with what this library expects.

    It only reads: nothing is posted, and no mail is sent. The mailbox is
    read with "readall"; whether that marks mail as read is undocumented.
    The report contains no key, no name and no text of any user, and can be
    published. It takes up to half a minute.

    Exit codes: 0 no problem, 1 a problem, 4 warnings only.
    """
    printer = _ReportPrinter(json=json)
    if capture is not None:
        write_samples((), capture)  # raises before any request if the folder is not writable
    async with connected(store) as session:
        try:
            report = await examine(
                session, user=user, chat_id=chat, mail=not no_mail, watch=printer.add
            )
        except BaseException:
            printer.print_findings()  # Ctrl-C: what was found so far
            raise
    printer.print_report(report)
    if capture is not None:
        count = len(write_samples(report.samples, capture))
        runtime.print_error(f"{count} redacted samples are in {capture}")
    return CODES.get(report.status, 0)


class _ReportPrinter:
    """Collects the findings, and prints the report: first what needs attention.

    JSON is printed as it is found, in the order of the checks.
    """

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._screen = make_console()
        self._findings: list[Finding] = []
        """All findings so far, in the order of the checks."""
        self._has_printed = False
        """Whether anything was printed, so that a heading has an empty line above it."""

    def add(self, finding: Finding) -> None:
        """Print *finding* as JSON, or keep it; a terminal shows which service is examined."""
        if self._json:
            fields = {"check": finding.check, "status": finding.status.value}
            write_json("finding", {**fields, "text": finding.text, "advice": finding.advice})
            return
        service = _service(finding)
        if sys.stderr.isatty() and service not in map(_service, self._findings):
            runtime.print_error(f"checking {SERVICES[service]}")
        self._findings.append(finding)

    def print_findings(self) -> None:
        """Print what needs attention, and then every finding under its service."""
        attention = self._attention()
        if attention:
            self._print_heading("What needs attention")
        for finding in attention:
            self._print_finding(finding, finding.check)
        for service, findings in groupby(self._findings, _service):
            self._print_heading(SERVICES[service])
            for finding in findings:
                self._print_finding(finding, finding.check.removeprefix(f"{service}."))

    def print_report(self, report: Report) -> None:
        """Print the findings, the shapes of the responses, and the summary."""
        counts = Counter(finding.status for finding in report.findings)
        if self._json:
            for shape in report.shapes:
                write_json("shape", {"name": shape.name, "shape": shape.shape})
            by_status = {status.value: counts[status] for status in Status}
            fields = {"version": report.version, "status": report.status.value, **by_status}
            write_json("report", fields)
            return
        self.print_findings()
        self._print_heading("Shapes of the responses (types and lengths only)")
        for shape in report.shapes:
            self._print_shape(shape)
        self._print(Text())
        summary = ", ".join(f"{counts[status]} {status.value}" for status in Status)
        self._print(Text(f"pythpeer {report.version}: {summary}", "bold"))
        checks = ", ".join(finding.check for finding in self._attention())
        if checks:
            self._print(Text(f"see the first lines: {checks}", "bold"))

    def _attention(self) -> list[Finding]:
        """Return the problems, and then the warnings."""
        statuses = (Status.PROBLEM, Status.WARNING)
        return [found for status in statuses for found in self._findings if found.status is status]

    def _print_finding(self, finding: Finding, check: str) -> None:
        self._print_row(Text(finding.status.value, STYLES[finding.status]), check, finding.text)
        if finding.advice is not None:
            arrow = "->" if self._screen.options.ascii_only else "→"
            self._print_row(Text(arrow, "dim", justify="right"), "", finding.advice)

    def _print_heading(self, text: str) -> None:
        self._print(Text(f"\n{text}" if self._has_printed else text, "bold"))
        self._has_printed = True

    def _print_shape(self, shape: Shape) -> None:
        self._print(Text.assemble((f"  {shape.name}: ", "dim"), shape.shape))

    def _print_row(self, label: Text, check: str, text: str) -> None:
        """Print columns on a terminal, else one line of any length."""
        if not self._screen.is_terminal:
            self._print(Text(f"{label.plain:>7}  {check}{': ' if check else ''}{text}"))
            return
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=8)
        if self._screen.width >= 80:
            grid.add_column(width=max(20, len(check)))
            grid.add_column(ratio=1)
            grid.add_row(label, Text(check, "dim"), text)
        else:
            grid.add_column(ratio=1)
            grid.add_row(label, Text.assemble((f"{check}: " if check else "", "dim"), text))
        self._screen.print(grid)

    def _print(self, text: Text) -> None:
        _print_lines(self._screen, text)


def _service(finding: Finding) -> str:
    return finding.check.partition(".")[0]


def _print_lines(output: Console, text: Text) -> None:
    output.print(text, soft_wrap=not output.is_terminal)
