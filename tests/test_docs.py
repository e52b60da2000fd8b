"""Every program of the documentation runs against the fake services, and has the stated effect."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from helpers import CLEAR_SCREEN, coroutine_of

from pythpeer import Rate, Session
from pythpeer.cli import serve
from pythpeer.testing import FakeServices, Fault
from pythpeer.testing.web import Page
from pythpeer.testing.web.fault_panel import KINDS

pytestmark = pytest.mark.anyio

DOCS: Final = Path(__file__).parent.parent / "docs"
ASYNC: Final = re.compile(r"^(asyncio\.)?run\(", re.MULTILINE)
"""The call that runs an asynchronous program."""

BLOCK: Final = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS: Final = {
    f"{page.relative_to(DOCS).with_suffix('')} {number}": program
    for page in sorted(DOCS.rglob("*.md"))
    if page.name != "testing.md"  # its programs are tests, run by test_testing_page.py
    for number, program in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
    if "await session.aclose" not in program  # a cell of a notebook
}
"""The programs of all pages, without those in files, which test_examples.py runs."""


INCLUDED: Final = re.compile(r"^--8<--\n(docs/.+)\n--8<--$", re.MULTILINE)
"""A file that a page includes."""

LINK: Final = re.compile(r"\]\(([^)#]+)\)")
"""The target of a link to a file."""

PING: Final = (DOCS / "examples" / "ping.py").read_text(encoding="utf-8")
"""The bot of the page about ``pythpeer serve``."""


@pytest.fixture
async def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[FakeServices]:
    """Fake services whose addresses and keys are in the environment, and a separate folder."""
    monkeypatch.chdir(tmp_path)
    async with FakeServices() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PORT", "0")  # a free port, for programs that listen
        fake.chat.register("docs", "the key")  # the key that a page contains
        (tmp_path / "peerbet").write_text(fake.peerbet_key, encoding="utf-8")
        yield fake
        assert fake.violations == []


async def run(program: str, *actions: Callable[[], object], seconds: float = 4.0) -> None:
    """Run a program, call *actions* one after the other, and cancel it if it does not end."""
    task = asyncio.ensure_future(coroutine_of(program))
    for action in (lambda: None, *actions):
        action()
        await asyncio.wait([task], timeout=seconds)
    ended = task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert ended is ("async for" not in program and "while True" not in program)


def texts(fake: FakeServices) -> list[str]:
    return [message.text for message in fake.chat.messages]


@pytest.mark.parametrize(
    ("page", "included"),
    [
        (page, included)
        for page in sorted(DOCS.rglob("*.md"))
        for included in INCLUDED.findall(page.read_text(encoding="utf-8"))
    ],
    ids=lambda part: Path(part).name,
)
def test_each_included_file_has_a_link(page: Path, included: str) -> None:
    """Only the built site shows an included file; its link is right in the Markdown, too."""
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert (DOCS.parent / included).is_file()
    assert (DOCS.parent / included).resolve() in {(page.parent / link).resolve() for link in links}


@pytest.mark.parametrize("name", [name for name in PROGRAMS if ASYNC.search(PROGRAMS[name])])
async def test_every_program_runs(
    name: str,
    fake: FakeServices,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With new messages and mail the program keeps running, or ends without an error.

    It prints no control character of them.
    """
    await run(
        PROGRAMS[name],
        lambda: fake.chat.say("alice", "!ping"),
        lambda: fake.mail.deliver("bob", "hello"),
        lambda: fake.chat.say("bob", "good morning", to="pythpeer"),
        lambda: fake.chat.say(CLEAR_SCREEN, CLEAR_SCREEN),
        lambda: fake.mail.deliver(CLEAR_SCREEN, CLEAR_SCREEN),
    )
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert "\x1b" not in out + err + caplog.text


def request_of_the_serve_page(url: str, name: str) -> tuple[dict[str, str], str]:
    """Return headers and body of its curl command for *name*, which is sent to *url* instead."""
    page = (DOCS / "how-to" / "serve.md").read_text(encoding="utf-8")
    page = page.replace("\\\n", "")  # lines that continue
    [command] = re.findall(rf"^\$ curl (.+/api/{name})$", page, re.MULTILINE)
    words = shlex.split(command.replace("http://127.0.0.1:8400/", url))
    words = [word.replace("http://127.0.0.1:8400", url.rstrip("/")) for word in words]
    headers = [words[at + 1] for at, word in enumerate(words) if word == "-H"]
    assert words[-1] == f"{url}api/{name}"
    return dict(header.split(": ", 1) for header in headers), words[words.index("-d") + 1]


async def test_the_bot_of_the_serve_page_answers_its_visitor(
    fake: FakeServices,
) -> None:
    """A message posted as on the page of ``pythpeer serve`` is answered by name."""
    async with Page(fake) as page, aiohttp.ClientSession() as http:
        headers, body = request_of_the_serve_page(page.url, "say")

        async def post_message() -> None:
            async with http.post(f"{page.url}api/say", data=body, headers=headers) as answer:
                assert answer.status == 200

        await run(PING, lambda: asyncio.ensure_future(post_message()))
    assert texts(fake) == ["!ping", "pong, alice"]


def test_the_page_about_pacing_has_the_rate_of_each_endpoint() -> None:
    """A row for each, in the form in which it is written in a program."""
    page = (DOCS / "pacing.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| `([\w.]+)` \| .* \| `(Rate\(.*\))` \|$", page, re.MULTILINE))
    rates = {name: limiter.rate for name, limiter in Session().limiters.items()}
    assert {name: eval(rate, {"Rate": Rate}) for name, rate in shown.items()} == rates


async def measured_rate(fake: FakeServices, rate: Rate, seconds: float) -> float:
    """Return the rate of waiting calls, as the fake receives them, with responses after *seconds*.

    It is relative to the documented rate.
    """
    fake.requests.clear()
    fake.faults.always("peerbet.chat.get", Fault.slow(seconds))
    async with fake.session(rates={"peerbet.chat.get": rate}) as session:
        await asyncio.gather(*(session.peerbet.messages(last=1) for _ in range(3)))
    first, *_, last = fake.requests
    await asyncio.sleep(rate.interval)
    return 2 * rate.interval / (last.at - first.at)


async def test_the_page_about_pacing_has_the_rate_that_each_guard_leaves(
    fake: FakeServices,
) -> None:
    """Each cell of the table is measured on virtual time."""
    page = (DOCS / "pacing.md").read_text(encoding="utf-8")
    (heading,) = re.findall(r"^\| guard \| response .*$", page, re.MULTILINE)
    response_times = [float(seconds) for seconds in re.findall(r"[\d.]+(?= s)", heading)]
    rows = re.findall(r"^\| ([\d.]+) \| (\d.* %) \|$", page, re.MULTILINE)
    for guard, cells in rows:
        rate = Rate(1.0, guard=float(guard))
        rates = [await measured_rate(fake, rate, seconds) for seconds in response_times]
        assert " | ".join(f"{100 * rate:.0f} %" for rate in rates) == cells
    assert (len(rows), len(response_times)) == (4, 3)


async def test_the_command_of_the_serve_page_sets_a_fault(fake: FakeServices) -> None:
    """And the page names every kind and target of a fault, and the events it can be seen by."""
    async with Page(fake) as page, aiohttp.ClientSession() as http:
        headers, body = request_of_the_serve_page(page.url, "faults")
        async with http.post(f"{page.url}api/faults", data=body, headers=headers) as answer:
            assert answer.status == 200
        assert fake.faults.constant == {"peerbet.chat.set": Fault.drop()}
        async with http.post(f"{page.url}api/normal", data="{}", headers=headers) as answer:
            assert answer.status == 200
        assert fake.faults.constant == {}
        async with http.get(f"{page.url}api/events") as answer:
            assert answer.content_type == "text/event-stream"
    text = (DOCS / "how-to" / "serve.md").read_text(encoding="utf-8")
    assert all(f"`{kind}`" in text for kind in KINDS)
    assert all(f"| {label}" in text for kind, label in KINDS.items() if kind != "normal")


def test_the_page_shows_the_output_of_serve(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The output is quoted exactly, with the default ports and keys."""
    defaults = serve.serve.__kwdefaults__ or {}
    environment = {
        "PYTHPEER_PEERBET_URL": f"http://127.0.0.1:{defaults['peerbet_port']}",
        "PYTHPEER_PYTHBOTS_URL": f"http://127.0.0.1:{defaults['pythbots_port']}",
    }
    fake = FakeServices()
    environment |= {
        "PYTHPEER_PEERBET_KEY": fake.peerbet_key,
        "PYTHPEER_PERSONAL_KEY": fake.personal_key,
    }
    serve._print_intro(Page(fake, port=defaults["port"]).url, environment)
    page_text = (DOCS / "how-to" / "serve.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out in page_text


async def test_user_defined_endpoints_run_on_their_own_fake(
    fake: FakeServices, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page declares two endpoints and a fake of both; a wrong password is an API error."""
    await run(PROGRAMS["how-to/own-endpoints 0"], seconds=10.0)
    assert capsys.readouterr().out == "rejected: Wrong password\nseed: 777777777\n"
    assert fake.requests == []


async def test_the_roll_of_the_page_is_made_once(
    fake: FakeServices, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the result, and its money is that of the fake services."""
    await run(PROGRAMS["how-to/dice 0"])
    (bet,) = fake.dice.rolls
    assert str(bet.bet) == "0.00010000"
    assert f"{bet.balance:.8f} left" in capsys.readouterr().out
