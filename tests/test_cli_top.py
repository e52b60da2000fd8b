"""``pythpeer top``: its screen, its JSON, that it changes nothing in a store, and its end."""

from __future__ import annotations

import asyncio
import io
import re
from pathlib import Path

import msgspec
import pytest
from cli_runner import OnTerminal, Run, needs_signals, one_line
from rich.console import Console, ConsoleDimensions

from pythpeer import ChatMessage, Mail, SqliteStore
from pythpeer.cli.output.colours import THEME_256
from pythpeer.cli.output.console import make_console
from pythpeer.cli.top.rates import Label, Rates, items, parse_key
from pythpeer.cli.top.screen import TopScreen
from pythpeer.sanitize import sanitize
from pythpeer.secret import account_of
from pythpeer.stores import EndpointSnapshot, LatestItem, LogSnapshot, ReaderSnapshot, StoreSnapshot
from pythpeer.testing import FakeServices, VirtualTimeLoop

pytest_plugins = ("cli_runner",)
pytestmark = pytest.mark.usefixtures("environment")

CHAT = "peerbet.chat https://peerbet.org 0123456789abcdef"
MAIL = "pythbots.mail https://pythbots.org 0123456789abcdef"
GET = "peerbet.chat.get https://peerbet.org/api/chat/get 0123456789abcdef"


def log(topic: str = CHAT, head: int = 0, **fields: object) -> LogSnapshot:
    """Return the snapshot of a log with these *fields* and defaults."""
    whole = {
        "length": head,
        "has_leader": True,
        "pending_fetches": 0,
        "readers": (),
        "latest": (),
        **fields,
    }
    return LogSnapshot(topic=topic, head=head, **whole)  # type: ignore[arg-type]


def asked(requests: int, *, paused: float = 0.0) -> EndpointSnapshot:
    return EndpointSnapshot(GET, requests, 0, 0, paused)


def stored(text: str) -> str:
    """Return a message as stores keep it."""
    message = ChatMessage(
        id=1, sender="ann", text=text, to="", date="", is_bot=False, is_mine=False, is_private=False
    )
    return msgspec.json.encode(message).decode()


def screen_after(*snapshots: StoreSnapshot, width: int, height: int) -> str:
    """Return the screen after snapshots at intervals of one second."""
    screen = TopScreen("bot.sqlite")
    for at, snapshot in enumerate(snapshots):
        screen.add(float(at), snapshot)
    console = Console(
        file=io.StringIO(), width=width, height=height, theme=THEME_256, color_system=None
    )
    with console.capture() as capture:
        console.print(screen.render(ConsoleDimensions(width, height)))
    return capture.get()


def render(*snapshots: StoreSnapshot, width: int = 100, height: int = 30) -> list[str]:
    """Return its lines, of which no more are returned than fit."""
    lines = screen_after(*snapshots, width=width, height=height).splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    return [line.rstrip() for line in lines]


def words_of(lines: list[str], beginning: str) -> list[str]:
    """Return the words of the only line that begins with *start*."""
    (line,) = [line for line in lines if line.startswith(beginning)]
    return line.split()


# -- screens of snapshots ------------------------------------------------------------------------


def test_keys_are_parsed() -> None:
    """Name, host and account; the digest of an account is shortened, and may be missing."""
    assert parse_key(GET) == Label("peerbet.chat.get", "peerbet.org", "key 0123")
    assert parse_key("own http://127.0.0.1:80/a ") == Label("own", "127.0.0.1:80", "no key")
    anonymous = account_of(None)
    assert parse_key(f"own http://127.0.0.1:80/a {anonymous}") == Label(
        "own", "127.0.0.1:80", "no key"
    )
    assert parse_key("whatever") == Label("whatever", "", "no key")


def test_rates_are_those_of_the_last_minute() -> None:
    """They exist from the second snapshot on; snapshots older than a minute do not count."""
    rates = Rates()
    rates.add(0.0, StoreSnapshot((log(head=10),), (asked(5),)))
    assert rates.per_minute(CHAT) is None
    rates.add(10.0, StoreSnapshot((log(head=12),), (asked(15),)))
    assert rates.per_minute(CHAT) == 12.0
    assert rates.per_minute(GET) == 60.0
    assert rates.per_minute(MAIL) is None
    rates.add(70.0, StoreSnapshot((log(head=12),), (asked(15),)))
    assert rates.per_minute(CHAT) == 0.0


def test_counts_that_decrease_have_no_rate() -> None:
    """A store that was emptied counts from 0."""
    rates = Rates()
    rates.add(0.0, StoreSnapshot((log(head=10),), ()))
    rates.add(1.0, StoreSnapshot((log(head=1),), ()))
    assert rates.per_minute(CHAT) is None


def test_items_are_decoded() -> None:
    """Chat and mail; ``None`` for damaged ones and for unknown topics."""
    ((id, message),) = items(log(latest=(LatestItem(7, stored("hi")),)))
    assert (id, message) == (7, msgspec.json.decode(stored("hi"), type=ChatMessage))
    assert message is not None
    assert message.text == "hi"
    mail = msgspec.json.encode(Mail(sender="bob", text="psst", raw={})).decode()
    ((_, letter),) = items(log(MAIL, latest=(LatestItem(1, mail),)))
    assert isinstance(letter, Mail)
    assert (letter.sender, letter.text) == ("bob", "psst")
    unknown = (
        log(latest=(LatestItem(1, None), LatestItem(2, "{"))),
        log("own a b", latest=(LatestItem(1, mail),)),
    )
    assert [item for document in unknown for _, item in items(document)] == [None] * 3


# -- the screen -----------------------------------------------------------------------------------


def test_the_screen_shows_rates_lag_and_pacing() -> None:
    """A line for each name of a log and for each endpoint, with what needs attention."""
    names = (ReaderSnapshot("archive", 100, 900), ReaderSnapshot("bot", 1000, 0))
    snapshot = StoreSnapshot(
        (log(head=1000, readers=names), log(MAIL, has_leader=False, pending_fetches=2)), (asked(7),)
    )
    later = StoreSnapshot(
        (log(head=1002, readers=names), log(MAIL, has_leader=False, pending_fetches=2)),
        (asked(8, paused=12.3),),
    )
    lines = render(snapshot, later, width=140)
    assert lines[0].startswith("pythpeer top · bot.sqlite · ")
    assert words_of(lines, "peerbet.chat ") == [
        *("peerbet.chat", "peerbet.org", "key", "0123", "1,002", "120.0", "archive", "100", "900"),
        "█" * 12,
    ]
    assert [line.split() for line in lines if "bot  " in line] == [["bot", "1,000", "0"]]
    assert words_of(lines, "pythbots.mail") == [
        *("pythbots.mail", "pythbots.org", "key", "0123"),
        *("fetches", "pending:", "2", "not", "polled", "0", "0.0", "no", "name", "yet"),
    ]
    assert words_of(lines, "peerbet.chat.get")[-6:] == ["8", "60.0", "0", "0", "12", "s"]
    assert words_of(lines, "lag: ")[1:3] == ["messages", "or"]


@pytest.mark.parametrize(
    ("idle_for", "shown"),
    [
        (None, "not polled"),
        (0.0, "no poller for 0 s"),
        (2.4, "no poller for 2 s"),
        (100.0, "no poller for 100 s"),
        (600.0, "no poller for 10 min"),
        (7200.0, "no poller for 2 h"),
        (9 * 86400.0, "no poller for 9 days"),
    ],
)
def test_a_log_without_a_leader_shows_for_how_long(idle_for: float | None, shown: str) -> None:
    """A bot with a long interval has the lease only for a part of it."""
    for has_leader in (True, False):
        document = log(MAIL, has_leader=has_leader, idle_for=idle_for)
        (line,) = [
            line
            for line in render(StoreSnapshot((document,), ()), width=140)
            if line.startswith("pythbots.mail")
        ]
        assert (shown in line) == (not has_leader)
        assert ("poll" in line) == (not has_leader)


def test_a_narrow_title_keeps_the_end_of_the_path() -> None:
    """The name of the file, the time and how to stop it are shown; the beginning is left out."""
    screen = TopScreen("/a/very/long/path/that/does/not/fit/into/the/line/bot.sqlite")
    console = Console(file=io.StringIO(), width=60, height=30, theme=THEME_256)
    with console.capture() as capture:
        console.print(screen.render(ConsoleDimensions(60, 30)))
    assert re.match(
        r"pythpeer top · ….*/bot\.sqlite · \d\d:\d\d:\d\d · Ctrl-C stops$",
        capture.get().splitlines()[0],
    )


@pytest.mark.parametrize("width", [20, 40, 71, 72, 100, 200])
@pytest.mark.parametrize("height", [3, 10, 30])
def test_nothing_is_wider_or_longer_than_the_terminal(width: int, height: int) -> None:
    """For every snapshot; the latest items use the remaining lines."""
    text = stored("so many words, and \x1b[31mred")
    latest = tuple(LatestItem(id, text) for id in range(1, 51))
    full = StoreSnapshot(
        (log(head=10**9, readers=(ReaderSnapshot("x" * 90, 1, 5),), latest=latest), log(MAIL)),
        (asked(10**9, paused=9.0),),
    )
    screen = screen_after(full, width=width, height=height)
    lines = screen.splitlines()
    assert max(map(len, lines)) <= width
    assert "\x1b" not in screen
    if height >= 20:
        assert len(lines) <= height
        assert sum("so many" in line or "ann" in line for line in lines) >= 3


def test_an_empty_store_is_named_as_such() -> None:
    """There are no tables without rows."""
    assert "This store is empty: no bot has used it yet." in render(StoreSnapshot((), ()))


def test_an_empty_store_of_a_server_names_the_prefixes_of_others() -> None:
    """A bot with a prefix of its own is not found otherwise; sanitized, as others wrote it."""
    screen = TopScreen("Redis at h:6379/0, prefix 'main'")
    console = Console(file=io.StringIO(), width=140, height=30, theme=THEME_256)
    for snapshot, shown in ((StoreSnapshot((), ()), True), (StoreSnapshot((log(),), ()), False)):
        screen.add(0.0, snapshot, ["dash", "evil\x1b[2J"])
        with console.capture() as capture:
            console.print(screen.render(ConsoleDimensions(140, 30)))
        assert ("?prefix=NAME" in capture.get()) == shown
        assert ("server: dash, evil" in capture.get()) == shown
        assert "\x1b[2J" not in capture.get()


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The store of a bot that has read two messages, and had a lag when it was stopped."""
    path = tmp_path / "bot.sqlite"

    async def main() -> None:
        async with FakeServices() as fake:
            fake.chat.say("ann", "hello")
            fake.chat.say("bob", "\x1b]0;title\x07hi")
            async with fake.session(store=SqliteStore(path)) as session:
                stream = session.peerbet.chat_stream(name="bot", after=0)
                await anext(stream)
                await anext(stream)  # acknowledges the first

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    return path


def test_without_a_terminal_there_is_one_snapshot(run: Run, file: Path) -> None:
    """It prints what a terminal would show, without escape sequences."""
    code, out, err = run("top", "--store", str(file))
    assert (code, err) == (0, "")
    assert out.startswith(f"pythpeer top · {file} · ")
    assert "hello" in out
    assert "\x1b" not in out
    words = next(line.split() for line in out.splitlines() if line.startswith("peerbet.chat "))
    assert words[-7:] == ["not", "polled", "2", "bot", "1", "1", "▏"]


def test_each_snapshot_is_a_line_of_json(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot unchanged; the environment names the store as well."""
    monkeypatch.setenv("PYTHPEER_STORE", str(file))
    result = run("top", "--json", "--count", "2", "--interval", "0.1")
    assert result.code == 0
    first, second = result.rows
    assert first == second
    assert first["kind"] == "survey"
    (chat,) = first["logs"]
    assert chat["readers"] == [{"name": "bot", "position": 1, "lag": 1}]
    assert [message["id"] for message in chat["latest"]] == [1, 2]
    assert first["endpoints"][0]["requests"] == 1


def test_watching_changes_nothing(run: Run, file: Path) -> None:
    """No position is changed, nothing is polled, no request is made."""
    before = run("top", "--store", str(file), "--json", "--count", "1").out
    run("top", "--store", str(file), "--count", "3", "--interval", "0.1")
    assert run("top", "--store", str(file), "--json", "--count", "1").out == before


@pytest.mark.parametrize("how", ["nothing", "memory", "missing", "damaged", "often", "address"])
def test_what_cannot_be_watched_is_one_line(run: Run, tmp_path: Path, how: str) -> None:
    """It is wrong usage, except for a file that is not a store."""
    path = tmp_path / "x.sqlite"
    arguments = {
        "nothing": [],
        "memory": ["--store", "memory"],
        "address": ["--store", "redis://:canary@localhost"],
        "often": ["--store", str(path), "--interval", "0"],
    }.get(how, ["--store", str(path)])
    if how == "damaged":
        path.write_bytes(b"no database" * 100)
    code, out, err = run("top", *arguments)
    assert out == ""
    assert one_line(err)
    assert code == (1 if how == "damaged" else 2)
    assert path.exists() is (how == "damaged")


@needs_signals
def test_on_a_terminal_it_stays_until_ctrl_c(on_terminal: OnTerminal, file: Path) -> None:
    """It uses a separate screen; the last state remains after the end."""
    process = on_terminal("top", "--store", str(file), "--interval", "0.1", columns=90)
    process.read_until("hello")
    process.type("\x03")
    assert process.finish() in (0, 130)
    assert process.shown.count("\x1b[?1049h") == process.shown.count("\x1b[?1049l") == 1


def test_the_old_name_of_count_is_an_alias(run: Run, file: Path) -> None:
    """`--looks` is the old name of `--count`."""
    new = run("top", "--store", str(file), "--json", "--count", "2", "--interval", "0.1")
    old = run("top", "--store", str(file), "--json", "--looks", "2", "--interval", "0.1")
    assert (old.code, old.out.count("\n")) == (new.code, new.out.count("\n")) == (0, 2)


HOSTILE_NAMES = [
    "\x1b]0;PWN\x07peerbet.chat https://peerbet.org\x1b[2J 0123\x9b5m",
    "peerbet.chat https://[peerbet\u202e.org 0123",
    "peerbet.chat\nsecond row https://a/ \x1b",
    "\ud800 \x9d \u2066",
    "",
    " ",
    "x" * 5000,
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
@pytest.mark.parametrize("width", [40, 200])
def test_names_in_a_store_are_untrusted(name: str, width: int) -> None:
    """Other programs write to it: no name has an effect on the terminal, or ends the command."""
    text = name.replace("\ud800", "")  # JSON has no half of a pair
    snapshot = StoreSnapshot(
        (
            log(name, 1, readers=(ReaderSnapshot(name, 0, 1),), latest=(LatestItem(1, None),)),
            log(CHAT, 2, latest=(LatestItem(1, stored(text)), LatestItem(2, name))),
        ),
        (EndpointSnapshot(name, 1, 0, 0, 0.0),),
    )
    screen = TopScreen(f"store {name}")
    screen.add(0.0, snapshot)
    console = make_console()
    with console.capture() as capture:
        console.print(screen.render(ConsoleDimensions(width, 30)))
    for line in capture.get().splitlines():
        assert sanitize(line) == line
    assert "PWN" not in screen_after(snapshot, width=width, height=30).partition("\n")[2]
