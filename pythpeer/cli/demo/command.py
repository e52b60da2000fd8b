"""``pythpeer demo``: a real session with the fake services, in which invented people talk.

Everything uses HTTP on this machine, and the fake services check each request for the documented
rate and encoding. On a terminal, a dashboard under the rows shows when each endpoint was requested,
and the state of its limiter.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Annotated, Final

from cyclopts import Parameter
from rich.text import Text

from ... import ChatMessage, Mail, MergedStream, Session, merge
from ...testing import FakeServices
from .. import runner, runtime
from ..options import Json, MessagesAndMails
from ..output.console import make_console
from ..output.rows import Rows
from .dashboard import WIDE, Dashboard
from .row_order import RowOrder

__all__ = ["Demo", "demo"]

MAX_SHOWN: Final = 5
"""How many violations are printed; the summary counts all of them."""


def demo(
    *,
    messages: MessagesAndMails = None,
    json: Json = False,
    seed: Annotated[
        int | None, Parameter(help="The same number gives the same conversation.")
    ] = None,
) -> int:
    """Follow a chat and a mailbox, with fake services on this machine."""
    return Demo(Rows(json=json), messages, seed).run()


class Demo:
    """One run of the demonstration: shows rows until there are *limit* or it is interrupted."""

    def __init__(self, rows: Rows, limit: int | None, seed: int | None) -> None:
        self._rows = rows
        """Prints messages and mails."""
        self._limit = limit
        """How many rows are shown at most; ``None`` for no limit."""
        self._seed = random.randrange(2**32) if seed is None else seed
        """Makes the conversation repeatable."""
        self._messages = self._mails = self._pongs = 0
        """How many of each were shown."""
        self._text_screen = rows.screen if self._terminal else make_console(stderr=True)
        """Prints what is not a row."""
        self._order = RowOrder()
        """The items that are not shown yet."""
        self._violations: list[str] = []
        """Violations of the services' rules by the session, set when it ends."""

    def run(self) -> int:
        """Run it, and return the exit code: 1 if the session broke a rule of the services."""
        with contextlib.suppress(runtime.Interrupted):  # the usual end
            runner.run(self._play())
        if not self._rows.json:
            self._print_summary()
        for violation in self._violations[:MAX_SHOWN]:
            runtime.print_error(violation)
        return runtime.FAILED if self._violations else 0

    async def _play(self) -> None:
        self._print_intro()
        async with FakeServices(seed=self._seed) as fake:
            fake.people.live()
            try:
                async with fake.session() as session:
                    await self._watch(session, fake)
            finally:
                self._violations = [str(violation) for violation in fake.violations]

    async def _watch(self, session: Session, fake: FakeServices) -> None:
        """Run the program that is demonstrated, and show its rows in the order of their times."""
        stream = merge(session.peerbet.chat_stream(after=0), session.pythbots.mail_stream())
        async with stream:
            with runner.stop_when_pipe_closes(), self._board(session, fake) as board:
                while True:
                    for item in self._order.pop_due(await self._hold_next(stream)):
                        self._count(item)  # first: the dashboard is drawn again with the row
                        board.adapt()
                        self._rows.show(item)
                        if self._shown == self._limit:
                            return
                        if isinstance(item, ChatMessage) and item.text == "!ping":
                            await session.peerbet.post("pong", bot=True)
                            self._pongs += 1

    async def _hold_next(self, stream: MergedStream[ChatMessage | Mail]) -> float:
        """Wait until there is another item, or a row is due, and return the time of the loop."""
        due = self._order.next_due
        limit = asyncio.timeout_at(due)
        try:
            async with limit:
                item = await anext(stream)
        except TimeoutError:
            if due is None or not limit.expired():
                raise
            return due  # the timer may be early, by the resolution of the clock
        now = asyncio.get_running_loop().time()
        self._order.add(now, item)
        return now

    # -- output -------------------------------------------------------------------------------

    def _print_intro(self) -> None:
        if self._rows.json:
            return
        end = f"It ends after {self._limit} of them." if self._limit else "Ctrl-C stops it."
        self._print("pythpeer demo: a fake chat and a fake mailbox on this machine", "bold")
        self._print(
            "Invented people talk. A real client reads both once a second, over HTTP, shows new"
            f" messages and mails, and replies to !ping. {end}"
        )
        self._print("")

    def _print_summary(self) -> None:
        self._print(f"{self._counts()}, violations: ", "bold", end="")
        self._print(str(len(self._violations)), "bold red" if self._violations else "bold green")
        if self._terminal:
            self._print('"pythpeer serve" runs the same services for a bot of your own.')

    def _print(self, text: str, style: str = "", end: str = "\n") -> None:
        """Print on the terminal, else on stderr, so that a pipe receives only rows."""
        self._text_screen.print(Text(text, style), end=end, soft_wrap=not self._terminal)

    @property
    def _terminal(self) -> bool:
        return self._rows.screen.is_terminal

    def _board(self, session: Session, fake: FakeServices) -> Dashboard:
        def status() -> str:
            wide = self._rows.screen.width >= WIDE
            counts = self._counts() if wide else f"shown: {self._shown}"
            return f"{counts}, violations: {len(fake.violations)}"

        return Dashboard(self._rows.screen, session, fake, status, visible=not self._rows.json)

    @property
    def _shown(self) -> int:
        return self._messages + self._mails

    def _counts(self) -> str:
        return f"messages: {self._messages}, mails: {self._mails}, replies to !ping: {self._pongs}"

    def _count(self, item: ChatMessage | Mail) -> None:
        if isinstance(item, Mail):
            self._mails += 1
        else:
            self._messages += 1
