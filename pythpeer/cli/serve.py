"""``pythpeer serve``: the fake services as a process, with a web page for their chat.

It listens on loopback only. The keys that it prints are invented, and valid for the fake services
only.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.text import Text

from .. import InvalidRequestError, Rate
from ..testing import DEFAULT_RATES, FakeServices
from . import runner, runtime
from .options import Flag, Json
from .output.console import make_console, print_line, write_json

if TYPE_CHECKING:
    from ..testing.web import Notice, Page

__all__ = ["serve"]

FIRST_SECOND: Final = 1_577_836_800
"""The beginning of 2020, in seconds after 1970. Counted from there, ids are Int32 until 2088."""

PEOPLE_PACE: Final = (2.0, 7.0)
"""The minimum and maximum of seconds between two actions of people, slow enough to read."""

Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))]


def serve(
    *,
    port: Annotated[Port, Parameter(help="The port of the page; 0 is a free one.")] = 8400,
    peerbet_port: Annotated[Port, Parameter(help="The port of Peerbet.")] = 8401,
    pythbots_port: Annotated[Port, Parameter(help="The port of PythBots.")] = 8402,
    people: Annotated[bool, Flag, Parameter(help="Let invented people talk.")] = False,
    pace: Annotated[
        float | None,
        Parameter(
            validator=Number(gte=0),
            help="Seconds between two requests to each endpoint, 0 for no limit; by default the"
            " documented ones. A request that is too early is served, and is a violation.",
        ),
    ] = None,
    seed: Annotated[
        int | None, Parameter(help="The same number gives the same conversation.")
    ] = None,
    json: Json = False,
) -> int:
    """Serve the fake services to your bot, with a page to chat in, until Ctrl-C.

    It prints the page's URL, the environment with which a bot uses it, and
    every violation of the services' rules by a bot.
    """
    from ..testing.web import Page  # no other command needs aiohttp's server

    fake = FakeServices(
        rates=None if pace is None else dict.fromkeys(DEFAULT_RATES, Rate(pace)),
        seed=random.randrange(2**32) if seed is None else seed,
        peerbet_port=peerbet_port,
        pythbots_port=pythbots_port,
    )
    fake.chat.skip_to(_first_id(time.time()))
    if people:
        fake.people.live(pace=PEOPLE_PACE)
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    page = Page(fake, port=port, on_notice=notices.put_nowait)
    with contextlib.suppress(runtime.Interrupted):  # the usual end
        runner.run(_serve(fake, page, notices, json=json))
    return 0


def _first_id(seconds: float) -> int:
    """Return the id of the first message of a run that begins *seconds* after 1970.

    It is above those of earlier runs, so that a bot whose store outlives them continues: a run has
    fewer messages than it lasts seconds.
    """
    return int(seconds) - FIRST_SECOND


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
        with runner.stop_when_pipe_closes():
            while True:
                _show(await notices.get(), json=json)


def _show(notice: Notice, *, json: bool) -> None:
    if json:
        write_json(notice.kind, msgspec.to_builtins(notice))
    else:
        rule = f" [{notice.rule}]" if notice.kind == "violation" else ""
        print_line(f"{notice.date} {notice.kind}: {notice.endpoint}: {notice.text}{rule}")


def _print_intro(url: str, environment: dict[str, str]) -> None:
    """Print the page's URL and the environment, to be copied into a shell."""
    setting = "set" if sys.platform == "win32" else "export"
    lines = (
        ("pythpeer serve: fake Peerbet and PythBots, for this machine only", "bold"),
        ("", ""),
        (f"Chat with your bot:  {url}", ""),
        ("", ""),
        ("Connect your bot, in the shell from which you start it:", ""),
        ("", ""),
        *((f"  {setting} {name}={value}", "") for name, value in environment.items()),
        ("", ""),
        ("Violations of the services' rules, and gaps, are printed here. Ctrl-C stops.", ""),
    )
    output = make_console()
    for text, style in lines:
        output.print(Text(text, style), soft_wrap=True)
