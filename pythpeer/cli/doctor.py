"""``pythpeer doctor``: the library's examination, shown as it goes on.

What is printed is the report's own, which is safe to paste anywhere.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..doctor import Finding, Report, Shape, Status, examine, write_samples
from . import ending
from .access import connected
from .options import Flag, Json, StorePath
from .show import make_console, write_json

__all__ = ["doctor"]

WARNINGS: Final = 4
"""The exit code where there are warnings, and no problem."""

CODES: Final = {Status.PROBLEM: ending.FAILED, Status.WARNING: WARNINGS}

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
    user: Annotated[str, Parameter(help="Whom to look up, by name or id.")] = "tiro",
    chat: Annotated[int, Parameter(help="Which chat to look up.")] = 220531305,
    no_mail: Annotated[
        bool,
        Flag,
        Parameter(help="Leave the mailbox alone: reading it may mark mail as read."),
    ] = False,
    capture: Annotated[
        Path | None, Parameter(help="Write redacted answers into this folder, as samples.")
    ] = None,
    store: StorePath = None,
    json: Json = False,
) -> int:
    """Compare both services, asked with your keys, with what this library expects.

    It only reads: nothing is posted, and no mail is sent. The mailbox is
    read with "readall"; no document says whether that marks mail as read.
    The report holds no key, no name and no text of anybody's, and can be
    pasted anywhere. It takes up to half a minute.

    Exit codes: 0 all is well, 1 there is a problem, 4 there are warnings only.
    """
    sheet = _ReportPrinter(json=json)
    if capture is not None:
        write_samples((), capture)  # says so before anything is asked if that cannot be
    async with connected(store) as session:
        report = await examine(
            session, user=user, chat_id=chat, mail=not no_mail, watch=sheet.show_finding
        )
    sheet.close(report)
    if capture is not None:
        many = len(write_samples(report.samples, capture))
        ending.print_error(f"{many} redacted samples are in {capture}")
    return CODES.get(report.status, 0)


class _ReportPrinter:
    """Prints findings as they come, and the rest of the report after them."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._screen = make_console()
        self._service = ""
        self._named_so_far: dict[Status, list[str]] = {status: [] for status in Status}

    def show_finding(self, finding: Finding) -> None:
        if self._json:
            fields = {"check": finding.check, "status": finding.status.value}
            write_json("finding", {**fields, "text": finding.text, "advice": finding.advice})
            return
        service, _, check = finding.check.partition(".")
        if service != self._service:
            self._print_heading(SERVICES[service])
            self._service = service
        self._named_so_far[finding.status].append(finding.check)
        self._print_row(Text(finding.status.value, STYLES[finding.status]), check, finding.text)
        if finding.advice is not None:
            arrow = "->" if self._screen.options.ascii_only else "→"
            self._print_row(Text(arrow, "dim", justify="right"), "", finding.advice)

    def close(self, report: Report) -> None:
        """What the answers looked like, and the sum of it all."""
        counts = Counter(finding.status for finding in report.findings)
        if self._json:
            for each in report.shapes:
                write_json("shape", {"name": each.name, "shape": each.shape})
            many = {status.value: counts[status] for status in Status}
            fields = {"version": report.version, "status": report.status.value, **many}
            write_json("report", fields)
            return
        self._print_heading("What the answers looked like (types and lengths only)")
        for each in report.shapes:
            self._print_shape(each)
        self._print(Text())
        many_in_words = ", ".join(f"{counts[status]} {status.value}" for status in Status)
        worst = "".join(map(self._named, (Status.PROBLEM, Status.WARNING)))
        self._print(Text(f"pythpeer {report.version}: {many_in_words}{worst}", "bold"))

    def _named(self, status: Status) -> str:
        """What is of this status, in the end once more: the rows may have scrolled away."""
        names = ", ".join(self._named_so_far[status])
        return f"; {status.value}: {names}" if names else ""

    def _print_heading(self, text: str) -> None:
        self._print(Text(f"\n{text}" if self._service else text, "bold"))

    def _print_shape(self, each: Shape) -> None:
        self._print(Text.assemble((f"  {each.name}: ", "dim"), each.shape))

    def _print_row(self, mark: Text, check: str, text: str) -> None:
        """A row of columns on a terminal; elsewhere a line, however long."""
        if not self._screen.is_terminal:
            self._print(Text(f"{mark.plain:>7}  {check}{': ' if check else ''}{text}"))
            return
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=8)
        if self._screen.width >= 80:
            grid.add_column(width=20)
            grid.add_column(ratio=1)
            grid.add_row(mark, Text(check, "dim"), text)
        else:
            grid.add_column(ratio=1)
            grid.add_row(mark, Text.assemble((f"{check}: " if check else "", "dim"), text))
        self._screen.print(grid)

    def _print(self, text: Text) -> None:
        _print_lines(self._screen, text)


def _print_lines(output: Console, text: Text) -> None:
    output.print(text, soft_wrap=not output.is_terminal)
