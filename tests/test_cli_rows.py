"""The output of the command line: rows and gaps, their colours, and tables with bars."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_runner import CHAT, Run, cells, unstyled
from helpers import take_ids
from hypothesis import given
from hypothesis import strategies as st

from pythpeer import ChatMessage, Mail
from pythpeer.cli.follow import follow
from pythpeer.cli.output.bars import bar, fractions
from pythpeer.cli.output.colours import HUES, SENDERS, THEME_16, THEME_256, sender_style
from pythpeer.cli.output.rows import Rows
from pythpeer.testing import FakeServices

pytest_plugins = ("cli_runner",)
pytestmark = pytest.mark.usefixtures("environment")

STAFF = ("staff", CHAT)
BACKGROUNDS = {"black": (0, 0, 0), "dark": (30, 30, 30), "solarized": (253, 246, 227)}


# -- colours --------------------------------------------------------------------------------------


def luminance(colour: tuple[int, int, int]) -> float:
    """Return the luminance as defined by WCAG."""
    parts = [part / 255 for part in colour]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("hue", HUES)
@pytest.mark.parametrize("background", BACKGROUNDS.values(), ids=list(BACKGROUNDS))
def test_colours_can_be_read_on_dark_and_on_light(
    hue: int, background: tuple[int, int, int]
) -> None:
    """The contrast is nearly that which WCAG requires of large text, or higher."""
    steps = (0, 95, 135, 175, 215, 255)
    red, green, blue = (hue - 16) // 36, (hue - 16) // 6 % 6, (hue - 16) % 6
    lights = sorted((luminance((steps[red], steps[green], steps[blue])), luminance(background)))
    assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 2.9


def test_a_sender_keeps_their_colour() -> None:
    """It depends on the name only, and all colours are used."""
    assert sender_style("alice") == "sender.5"
    styles = {sender_style(f"user{number}") for number in range(500)}
    assert styles == {f"sender.{number}" for number in range(SENDERS)}
    for theme in (THEME_256, THEME_16):
        assert styles <= theme.styles.keys()


def test_a_terminal_of_sixteen_colours_has_its_own(
    configured: FakeServices,
    run: Run,
    terminal: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of 256 would be replaced by similar ones, perhaps white on white."""
    configured.chat.say("alice", "hello")
    terminal(80)
    monkeypatch.setenv("TERM", "xterm")
    out = run("chat", "tail", "--after", "0", "--messages", "1").out
    assert "38;5" not in out
    assert re.search(r"\x1b\[1;3[1-6]m +alice", out)


# -- acknowledgements -----------------------------------------------------------------------------


class BrokenRows(Rows):
    """Rows for a full disk."""

    def show(self, item: ChatMessage | Mail) -> None:
        raise OSError("No space left on device")


@pytest.mark.anyio
async def test_a_row_that_cannot_be_printed_is_not_acknowledged() -> None:
    """The next command with the same name shows it."""
    async with FakeServices() as fake, fake.session() as session:
        id = fake.chat.say("alice", "hello")
        stream = session.peerbet.chat_stream(after=0, name="me")
        with pytest.raises(OSError, match="No space"):
            await follow(stream, BrokenRows(json=True), 1, "the chat", "")
        assert await take_ids(session.peerbet.chat_stream(name="me"), 1) == [id]


# -- gaps -----------------------------------------------------------------------------------------


@pytest.fixture
def gap(configured: FakeServices) -> FakeServices:
    """A chat of which a stream after 10 misses 40 messages."""
    for number in range(350):
        configured.chat.say("alice", f"line {number}")
    return configured


def test_a_gap_is_a_row_at_its_position(gap: FakeServices, run: Run) -> None:
    """In a pipe it is on stderr as well, because the user may not see the pipe's output."""
    result = run("chat", "tail", "--after", "10", "--messages", "2")
    first, second, third = result.out.splitlines()
    assert first == "- … up to 40 messages may be missing"
    assert second.endswith("alice: line 50")
    assert third.endswith("alice: line 51")
    assert "missing between 10 and 51" in result.err


def test_a_gap_as_json(gap: FakeServices, run: Run) -> None:
    """It does not count as a message."""
    first, *others = run("chat", "tail", "--after", "10", "--messages", "2", "--json").rows
    assert first == {"kind": "gap", "after": 10, "before": 51}
    assert [row["id"] for row in others] == [51, 52]


@pytest.mark.parametrize("columns", [80, 40])
def test_a_gap_on_a_terminal_is_printed_once(
    gap: FakeServices, run: Run, terminal: Callable[[int], None], columns: int
) -> None:
    """The row shows it, so there is no warning between the rows."""
    terminal(columns)
    result = run("chat", "tail", "--after", "10", "--messages", "1")
    assert "… up to 40 messages" in unstyled(result.out).splitlines()[0]
    following, conflict = result.err.splitlines()
    assert following == "pythpeer: following the chat; Ctrl-C stops"
    assert "programs with one key must use one --store" in conflict


def test_one_message_is_one_message(configured: FakeServices, run: Run) -> None:
    """The singular is correct."""
    for number in range(311):
        configured.chat.say("alice", f"line {number}")
    out = run("chat", "tail", "--after", "10", "--messages", "1").out
    assert "up to 1 message may" in out


# -- a name, and a store --------------------------------------------------------------------------


def test_a_named_tail_resumes_where_it_stopped(
    unlimited: FakeServices, run: Run, tmp_path: Path
) -> None:
    """Messages that were shown are not repeated; those since then are shown."""
    durable = ("--name", "me", "--store", str(tmp_path / "store.sqlite"), "--messages")
    unlimited.chat.say("alice", "one")
    assert "one" in run("chat", "tail", "--after", "0", *durable, "1").out
    unlimited.chat.say("alice", "two")
    result = run("chat", "tail", *durable, "1")
    assert (result.err, result.out[20:]) == ("", "alice: two\n")


def test_a_named_watch_resumes_where_it_stopped(
    configured: FakeServices, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail that was fetched but not shown is shown; the variable names a store as well."""
    monkeypatch.setenv("PYTHPEER_STORE", str(tmp_path / "store.sqlite"))
    configured.mail.deliver("alice", "one")
    configured.mail.deliver("alice", "two")
    watch = ("mail", "watch", "--name", "me", "--messages", "1")
    texts = [run(*watch).out.split(": ")[-1] for _ in range(2)]
    assert texts == ["one\n", "two\n"]


@pytest.mark.parametrize("store", [(), ("--store", "memory")])
def test_a_name_without_a_store_is_a_warning(
    configured: FakeServices, run: Run, store: tuple[str, ...]
) -> None:
    """The position is lost on exit, which is hardly intended; the library logs that."""
    configured.mail.deliver("alice", "one")
    result = run("mail", "watch", "--name", "me", "--messages", "1", *store)
    assert result.code == 0
    [line] = [line for line in result.err.splitlines() if "position" in line]
    assert line.startswith("pythpeer: pythbots.mail: the position of 'me' is lost")
    assert "set PYTHPEER_STORE=" in line


def test_commands_share_the_pacing_of_a_store(
    configured: FakeServices, run: Run, tmp_path: Path
) -> None:
    """Successive commands keep the interval between their requests."""
    store = ("--store", str(tmp_path / "store.sqlite"))
    for text in ("one", "two"):
        assert run("chat", "post", text, *store).code == 0
    assert configured.violations == []
    first, second = (
        request.at for request in configured.requests if request.endpoint == "peerbet.chat.set"
    )
    assert second - first >= 1.0


@pytest.mark.parametrize(
    ("store", "code", "error_text"),
    [
        ("redis://user:canary@host", 2, "set PYTHPEER_STORE for a URL"),
        ("/nowhere/at/all.sqlite", 1, ""),
    ],
)
def test_an_unusable_store_is_one_line(
    configured: FakeServices, run: Run, store: str, code: int, error_text: str
) -> None:
    """A URL may contain a password, so it is rejected as an argument, and not printed."""
    result = run("user", "tiro", "--store", store)
    assert (result.code, result.out, len(result.err.splitlines())) == (code, "", 1)
    assert error_text in result.err
    assert configured.requests == []


# -- bars -----------------------------------------------------------------------------------------


def test_comparable_numbers_have_fractions() -> None:
    """Their names share a word; a single number, text and flags have no bar."""
    fields = {
        "messages": 100,
        "messagesToday": 25,
        "active_users": 5,
        "peak-users": 10,
        "rank": 3,
        "open_users": True,
        "old_users": "7",
        "lost_users": -1,
        "no_users": 0,
    }
    assert fractions(fields) == {
        "messages": 1.0,
        "messagesToday": 0.25,
        "active_users": 0.5,
        "peak-users": 1.0,
    }


@given(st.floats(0.0, 1.0), st.integers(1, 60), st.booleans())
def test_a_bar_fits_and_is_never_empty(share: float, width: int, ascii_only: bool) -> None:
    """Its length is the share to within a column, and never 0."""
    text = bar(share, width, ascii_only=ascii_only)
    assert len(text) <= width
    assert abs(len(text) - share * width) <= 1
    assert bool(text) is (share > 0)
    assert text.isascii() is (ascii_only or not text)


def test_statistics_have_bars_on_a_terminal(
    configured: FakeServices, run: Run, terminal: Callable[[int], None]
) -> None:
    """Comparable numbers are adjacent, and a series of numbers is a chart."""
    hours = {"00": 4, "12": 16}
    configured.chats.add(7, messages=1000, active_users=5, messages_today=250, by_hour=hours)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    terminal(40)
    lines = [line.split() for line in unstyled(run("stats", "7").out).splitlines()]
    # The longest of each fills what rich leaves to it: before 14.3 a column or two less.
    total, by_hour = len(lines[0][2]), len(lines[6][2])
    assert (total, by_hour) in ((15, 30), (14, 28))
    assert lines == [
        ["messages", "1,000", "█" * total],
        ["messages_today", "250", bar(0.25, total)],
        ["active_users", "5"],
        [],
        ["by_hour"],
        ["00", "4", bar(0.25, by_hour)],
        ["12", "16", "█" * by_hour],
    ]


def test_statistics_of_any_shape_can_be_drawn(
    configured: FakeServices, run: Run, terminal: Callable[[int], None]
) -> None:
    """A list of numbers is a chart; one of zeros, of one number, or of other values is not."""
    configured.chats.add(7, days=[1, 2], none=[0, 0], one=[1], mixed={"a": 1, "b": "c"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    terminal(80)
    out = unstyled(run("stats", "7").out)
    assert re.search(r"\ndays *\n0 +1 +█+\n1 +2 +█+\n$", re.sub(r" +\n", "\n", out))
    for value in ("0, 0", '{"a":1,"b":"c"}'):
        assert value in out


def test_staff_have_bars_on_a_terminal(
    configured: FakeServices, run: Run, terminal: Callable[[int], None]
) -> None:
    """The bar is proportional to the time in office; a pipe shows none."""
    terminal(80)
    lines = unstyled(run("staff", CHAT).out).splitlines()[2:]
    bars = [line.count("█") for line in lines]
    assert bars == sorted(bars, reverse=True)
    assert bars[0] > bars[2]


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        (77_760_000, "77760000 (900 days)"),
        (86_400, "86400 (1 day)"),
        (900, "900"),
        (10**12, f"{10**12}"),
    ],
)
def test_days_are_shown_where_a_number_can_be_seconds(
    configured: FakeServices,
    run: Run,
    terminal: Callable[[int], None],
    held: int,
    shown: str,
) -> None:
    """A pipe receives what the service sent."""
    configured.chats.add(7)
    configured.chats.appoint(7, "tiro", "Owner", time_held=held)
    assert run("staff", "7").out.splitlines()[1].split("\t")[-1] == str(held)
    terminal(100)
    row = unstyled(run("staff", "7").out).splitlines()[2]
    assert row.replace("█", "").rstrip().endswith(f"  {shown}")


def test_staff_without_numbers_have_none(
    configured: FakeServices, run: Run, terminal: Callable[[int], None]
) -> None:
    """There is nothing to draw."""
    configured.chats.add(7)
    configured.chats.appoint(7, "tiro", "Owner", time_held=0)
    terminal(80)
    assert "█" not in run("staff", "7").out


def test_a_table_without_room_for_columns_is_stacked(
    configured: FakeServices, run: Run, terminal: Callable[[int], None]
) -> None:
    """At 30 columns every field is on a line of its own."""
    terminal(30)
    configured.mail.deliver("alice", "so many words " * 5)
    staff_out, mail_out = (unstyled(run(*command).out) for command in (STAFF, ("mail", "all")))
    assert all(cells(line) <= 30 for line in (staff_out + mail_out).splitlines())
    assert mail_out.count("words") == 5
    staff = [line.split(None, 1) for line in staff_out.splitlines()]
    assert ["rank", "Main Owner"] in [[part.strip() for part in line] for line in staff]
    assert sum("held" in line for line in staff) == 3
