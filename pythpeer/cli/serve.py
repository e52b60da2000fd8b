"""``pythpeer serve``: the fake services as a process, and a web page to chat in.

It listens on loopback and nowhere else. The keys that it prints are made up: they open nothing but
the fake services.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.text import Text

from .. import InvalidRequestError, Rate
from ..testing import DEFAULT_RATES, FakeServices
from . import ending
from .options import Flag, Json
from .plain import sanitize
from .show import make_console, write_json

if TYPE_CHECKING:
    from ..testing.page import Notice, Page

__all__ = ["serve"]

PEOPLE_PACE: Final = (2.0, 7.0)
"""The fewest and the most seconds between two things that people do: time to read along."""

Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))]


def serve(
    *,
    port: Annotated[Port, Parameter(help="Where the page is; 0 is a free port.")] = 8400,
    peerbet_port: Annotated[Port, Parameter(help="Where Peerbet is.")] = 8401,
    pythbots_port: Annotated[Port, Parameter(help="Where PythBots is.")] = 8402,
    people: Annotated[bool, Flag, Parameter(help="Have invented people talk.")] = False,
    pace: Annotated[
        float | None,
        Parameter(
            validator=Number(gte=0),
            help="The seconds between two requests to each endpoint, 0 for any pace; by default"
            " what the services document. Whoever is faster is served, and told of.",
        ),
    ] = None,
    seed: Annotated[
        int | None, Parameter(help="Have the same people say the same things again.")
    ] = None,
    json: Json = False,
) -> int:
    """Serve the fake services to your bot, with a page to chat in, until Ctrl-C.

    It prints the page's address, the environment that leads a bot here, and
    every rule of the services that a bot breaks.
    """
    from ..testing.page import Page  # late: no other command needs aiohttp's server

    fake = FakeServices(
        rates=None if pace is None else dict.fromkeys(DEFAULT_RATES, Rate(pace)),
        seed=random.randrange(2**32) if seed is None else seed,
        peerbet_port=peerbet_port,
        pythbots_port=pythbots_port,
    )
    if people:
        fake.people.live(pace=PEOPLE_PACE)
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    page = Page(fake, port=port, on_notice=notices.put_nowait)
    with contextlib.suppress(ending.Interrupted):  # that is how to stop it
        ending.run(_serve(fake, page, notices, json=json))
    return 0


async def _serve(
    fake: FakeServices, page: Page, notices: asyncio.Queue[Notice], *, json: bool
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(fake)
            await stack.enter_async_context(page)
        except OSError as error:
            hint = "--port, --peerbet-port and --pythbots-port choose others"
            raise InvalidRequestError(f"{error.strerror} ({hint})") from None
        if json:
            write_json("serving", {"page": page.url, "environment": fake.environment})
        else:
            _print_intro(page.url, fake.environment)
        with ending.stop_when_pipe_closes():
            while True:
                _show(await notices.get(), json=json)


def _show(notice: Notice, *, json: bool) -> None:
    if json:
        write_json(notice.kind, msgspec.to_builtins(notice))
    else:
        text = f"{notice.date} {notice.endpoint}: {notice.text} [{notice.rule}]"
        print(sanitize(text), flush=True)


def _print_intro(url: str, environment: dict[str, str]) -> None:
    """Say where everything is, so that it can be copied into a shell."""
    setting = "set" if sys.platform == "win32" else "export"
    lines = (
        ("pythpeer serve: Peerbet and PythBots, faked, for this machine alone", "bold"),
        ("", ""),
        (f"Chat with your bot:  {url}", ""),
        ("", ""),
        ("Lead your bot here, in the shell that you start it from:", ""),
        ("", ""),
        *((f"  {setting} {name}={value}", "") for name, value in environment.items()),
        ("", ""),
        ("Rules of the services that it breaks are shown here. Ctrl-C stops.", ""),
    )
    output = make_console()
    for text, style in lines:
        output.print(Text(text, style), soft_wrap=True)
