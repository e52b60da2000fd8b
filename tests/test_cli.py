"""The command ``pythpeer``: its output, its exit codes, and what it must never print.

Most tests run the command in this process, against fake services in a thread. Where the end of a
process is the point, it is a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from cli_runner import (
    CHAT,
    PEERBET_KEY,
    PERSONAL_KEY,
    Result,
    Run,
    Spawn,
    cells,
    needs_signals,
    one_line,
    run_python,
    threaded,
    unstyled,
    wait_for,
)
from raw_server import RawServer, closed_port, drop, hang

from pythpeer import Rate
from pythpeer.cli import main, overview, runtime
from pythpeer.cli.app import app
from pythpeer.cli.demo import command as demo
from pythpeer.cli.output.console import make_console
from pythpeer.cli.output.ndjson import json_line
from pythpeer.cli.output.rows import Rows
from pythpeer.sanitize import sanitize
from pythpeer.testing import DEFAULT_RATES, FakeServices, Fault, VirtualTimeLoop
from pythpeer.testing.scenes import SCENES

pytest_plugins = ("cli_runner",)
pytestmark = pytest.mark.usefixtures("environment")

CONTROL_CHARACTERS = (
    "\x1b[31mred\x1b[0m \x1b]0;title\x07[bold]b[/bold] \u202eright\x9b2J\x07\x08\r\nforged: row"
)
"""A message that would colour, retitle, turn around, clear and forge."""


# -- text from strangers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain, ünïcödé, 日本, 👩‍👩‍👧, می‌خواهم", "plain, ünïcödé, 日本, 👩‍👩‍👧, می‌خواهم"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPdevice\x1b\\after", "after"),
        ("\x1b(Bset\x1bM\x1bc", "set"),
        ("\x9b31mred\x9d0;title\x9cx", "redx"),
        ("an \x1b] that never ends", "an ] that never ends"),
        ("\x1b", ""),
        ("one\r\ntwo\tthree\x85four\u2028five", "one  two three four five"),
        ("bell\x07 back\x08 null\0 del\x7f", "bell back null del"),
        ("\u202eturned\u202c \u2066and\u2069 \u200fmarked\u061c", "turned and marked"),
        ("\ufeffinvisible\u00ad \u200bthings\U000e0041", "invisible things"),
        ("half \ud83d a pair", "half  a pair"),
    ],
)
def test_control_sequences_are_removed(text: str, cleaned: str) -> None:
    """Control sequences are removed whole, line breaks become spaces, the rest is kept."""
    assert sanitize(text) == cleaned


def test_json_is_complete_and_has_no_control_characters() -> None:
    """A row of NDJSON is one line, complete, and without control characters."""
    row = {"text": CONTROL_CHARACTERS + "\ud83d\u2028\x7f\U000e0041 日本 👩‍👩‍👧"}
    line = json_line(row)
    assert json.loads(line) == row
    assert line.endswith(b"\n")
    assert sanitize(line.decode()[:-1]) == line.decode()[:-1]
    assert "日本 👩‍👩‍👧" in line.decode()


@pytest.mark.parametrize("columns", [None, 80, 40])
def test_messages_are_data(
    configured: FakeServices, run: Run, terminal: Callable[[int], None], columns: int | None
) -> None:
    """No markup is interpreted and no sequence is printed, on a terminal and in a pipe."""
    configured.chat.say("\x1b[5m[red]mallory[/red]", CONTROL_CHARACTERS)
    if columns:
        terminal(columns)
    result = run("chat", "tail", "--after", "0", "--messages", "1")
    assert result.code == 0
    for character in ("\x1b[31m", "\x1b[5m", "\x1b]", "\u202e", "\x9b", "\x07", "\x08", "\r"):
        assert character not in result.out
    shown = re.sub(r"\s", "", unstyled(result.out))
    assert "[bold]b[/bold]" in shown
    assert "[red]mallo" in shown
    assert not any(line.startswith("forged") for line in result.out.splitlines())


HOSTILE: Final = (
    "a\x1b]0;PWN\x07\x1b]52;c;UFdO\x07\x1b[2J\x1bPq\x1b\\\x9b5m\x9d8;;x\x9c\x90\x1b[6n"
    "\u202e\u2066\u200b\ufeff\x85\u2028\r\n\t\v\x08\x00\x7f\U000e0041[red]\ud800z"
)
"""What a terminal would interpret, in one text."""


@pytest.mark.parametrize("columns", [None, 100, 40])
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        ["user", "mallory"],
        ["staff", "7"],
        ["stats", "7"],
        ["mail", "all"],
        ["mail", "watch", "--messages", "1"],
        ["chat", "tail", "--after", "0", "--messages", "1"],
    ],
    ids=" ".join,
)
def test_no_field_of_a_response_controls_the_terminal(
    configured: FakeServices,
    run: Run,
    terminal: Callable[[int], None],
    columns: int | None,
    as_json: bool,
    command: list[str],
) -> None:
    """Nor does the name of a field, or the error message of a service."""
    person = dict.fromkeys(("username", "nickname", "avatar", "rank", HOSTILE), HOSTILE)
    documents: dict[str, object] = {
        "user": {"id": 7, **person, "powers": [HOSTILE], "chats": {HOSTILE: HOSTILE}},
        "staff": [{"id": 7, **person, "time_held": HOSTILE}],
        "stats": {"messages": 1, HOSTILE: {HOSTILE: 1, "b": 2}, f"{HOSTILE} 2": HOSTILE},
        "mail": [{"id": 7, "read": 0, **dict.fromkeys(("from", "message", "date"), HOSTILE)}],
        "chat": {
            "users_online": HOSTILE,
            "message_list": [{"id": 1, **dict.fromkeys(("by", "to", "msg", "date"), HOSTILE)}],
        },
    }
    errors: list[object] = [] if "--messages" in command else [{"error": HOSTILE}]
    if columns:
        terminal(columns)
    for document in (documents[command[0]], *errors):
        for service in ("peerbet", "pythbots"):
            configured.faults.always(service, Fault.garbage(json.dumps(document).encode()))
        result = run(*command, *["--json"][:as_json])
        for line in unstyled(result.out + result.err).splitlines():
            assert sanitize(line.replace("\t", "")) == line.replace("\t", "")
        assert "z" in result.out + result.err


# -- the chat -------------------------------------------------------------------------------------


def test_tail_prints_a_line_for_each_message(configured: FakeServices, run: Run) -> None:
    """In a pipe: time, sender, labels and text, in one plain line of any length."""
    configured.chat.say("alice", "hello " * 40)
    configured.chat.say("bob", "psst", to="pythpeer")
    configured.chat.say("robot", "beep", bot=True)
    configured.chat.say("pythpeer", "yes?", to="bob")
    result = run("chat", "tail", "--after", "0", "--messages", "4")
    assert result.code == 0
    assert result.err == ""
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    expected = rf"""\
{date} alice: (?:hello )+
{date} bob \(private\): psst
{date} robot \(bot\): beep
{date} to bob \(private\): yes\?
"""
    assert re.fullmatch(expected.replace("\\\n", ""), result.out)


def test_tail_as_json_has_the_public_fields(configured: FakeServices, run: Run) -> None:
    """The fields are those of the model, not the raw ones."""
    configured.chat.say("bob", "psst", to="pythpeer")
    result = run("chat", "tail", "--after", "0", "--messages", "1", "--json")
    (row,) = result.rows
    assert row.pop("sent_at").startswith("20")
    assert row == {
        "kind": "chat",
        "id": 1,
        "sender": "bob",
        "recipient": "pythpeer",
        "text": "psst",
        "is_bot": False,
        "is_mine": False,
        "is_private": True,
    }


def test_a_terminal_gets_columns_and_colours(
    configured: FakeServices, run: Run, terminal: Callable[[int], None]
) -> None:
    """Names have a column and a colour, and the text wraps in its column."""
    for sender in ("alice", "bob", "alice", "a-name-much-too-long-for-it"):
        configured.chat.say(sender, "so many words " * 10)
    configured.chat.say("robot", "短い", bot=True)
    terminal(80)
    result = run("chat", "tail", "--after", "0", "--messages", "5")
    plain = unstyled(result.out)
    assert plain != result.out
    assert all(cells(line) <= 80 for line in plain.splitlines())
    assert re.search(r"^\d\d:\d\d:\d\d +alice │ so many words", plain, re.MULTILINE)
    assert re.search(
        r"^\d\d:\d\d:\d\d bot +robot │ 短い$", plain.replace(" \n", "\n"), re.MULTILINE
    )
    colours = re.findall(r"\x1b\[1;?m?(?:\x1b\[)?([0-9;]*)m +(alice|bob)", result.out)
    assert len(set(colours)) == 2


def test_a_narrow_terminal_wraps(
    configured: FakeServices, run: Run, terminal: Callable[[int], None]
) -> None:
    """No line is wider than the terminal, and continuation lines are indented."""
    configured.chat.say("alice", "so many words " * 10)
    terminal(40)
    result = run("chat", "tail", "--after", "0", "--messages", "1")
    lines = unstyled(result.out).splitlines()
    assert all(cells(line) <= 40 for line in lines)
    assert re.match(r"\d\d:\d\d:\d\d alice: so many", lines[0])
    assert all(line.startswith(" " * 9) for line in lines[1:])
    # The style of the name ends before the text.
    assert re.search(r"malice\x1b\[0m(\x1b\[2m)?: (\x1b\[0m)?so many", result.out)


def test_a_terminal_shows_what_the_command_waits_for(
    configured: FakeServices, run: Run, terminal: Callable[[int], None]
) -> None:
    """Before the first row, the command prints on stderr what it waits for."""
    configured.mail.deliver("alice", "a mail")
    terminal(80)
    result = run("mail", "watch", "--messages", "1")
    first, *rest = result.err.splitlines()
    assert first == "pythpeer: following the mailbox; Ctrl-C stops"
    assert max(map(len, rest)) <= 80
    assert "receives none of this mail, unless it has the same --store" in " ".join(rest)
    assert re.search(r" mail +alice │ a mail", unstyled(result.out))
    assert "following" not in run("mail", "all").err


@pytest.mark.parametrize("command", [["chat", "tail", "--after", "0"], ["mail", "watch"]])
def test_a_command_with_a_store_does_not_ask_for_one(
    configured: FakeServices,
    run: Run,
    terminal: Callable[[int], None],
    tmp_path: Path,
    command: list[str],
) -> None:
    """The line about programs with two stores is for commands without one."""
    configured.chat.say("alice", "hello")
    terminal(80)
    stores = {True: ["--store", str(tmp_path / "x.sqlite")], False: []}
    for given, options in stores.items():
        configured.mail.deliver("alice", "a mail")
        err = run(*command, "--messages", "1", *options).err
        assert ("--store" in err) == (not given)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_help_of_commands_is_broken_between_words(
    run: Run, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """A paragraph fills its lines at any width; a command in it stays whole."""
    monkeypatch.setenv("COLUMNS", str(width))
    lines = [line.rstrip() for line in run("chat", "post", "--help").out.splitlines()]
    start = next(at for at, line in enumerate(lines) if line.startswith("Text of more"))
    paragraph = lines[start : lines.index("", start)]
    assert paragraph[-1].endswith("printed.")
    assert all(
        len(line) <= width < len(f"{line} {after.split()[0]}")
        for line, after in itertools.pairwise(paragraph)
    )
    out = run("completion", "--help").out
    path = "~/.local/share/bash-completion/completions/pythpeer"
    assert f"pythpeer completion bash \\\n> {path}\n" in out or width < len(path) + 2


@pytest.mark.parametrize("term", ["dumb", "xterm"])
@pytest.mark.parametrize(("columns", "width"), [("0", 80), ("1", 20), ("2", 20), ("30", 30)])
def test_no_width_is_too_small(
    run: Run, monkeypatch: pytest.MonkeyPatch, term: str, columns: str, width: int
) -> None:
    """The formatter of the help does not end, or raises an error, where it has no space."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", term)
    assert make_console().width == width
    lines = run("dice", "--help").out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_disabled(
    configured: FakeServices,
    run: Run,
    terminal: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
) -> None:
    """With ``NO_COLOR`` a terminal receives no escape sequence."""
    configured.chat.say("alice", "hello")
    terminal(80)
    monkeypatch.setenv(name, value)
    result = run("chat", "tail", "--after", "0", "--messages", "1")
    assert "hello" in result.out
    assert "\x1b" not in result.out


def test_tail_prints_a_new_date(
    configured: FakeServices, run: Run, terminal: Callable[[int], None]
) -> None:
    """A terminal shows times only, so a date other than today is printed above."""
    configured.chat.say("alice", "hello")
    old_message = type(configured.chat.messages[0])(
        1, "alice", "", "hello", "2001-02-03 04:05:06", False
    )
    configured.chat.messages[0] = old_message
    terminal(80)
    result = run("chat", "tail", "--after", "0", "--messages", "1")
    assert "Saturday 2001-02-03" in result.out


def test_post_prints_the_id(configured: FakeServices, run: Run) -> None:
    """The text is sent unchanged, once."""
    assert run("chat", "post", "[b]hi[/b] & +%") == (0, "1\n", "")
    (line,) = configured.chat.messages
    assert (line.sender, line.text, line.bot) == ("pythpeer", "[b]hi[/b] & +%", False)


def test_post_as_a_bot_and_as_json(configured: FakeServices, run: Run) -> None:
    """``--bot`` marks it; after ``--`` a text may look like an option."""
    assert run("chat", "post", "--bot", "--json", "--", "--help").rows == [
        {"kind": "posted", "id": 1}
    ]
    (line,) = configured.chat.messages
    assert (line.text, line.bot) == ("--help", True)


# -- the mail -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "recipient", "row"),
    [
        (["101"], "alice", {"kind": "sent", "to": 101}),
        (["alice"], "alice", {"kind": "sent", "to": "alice"}),
        (["7", "--user"], "7", {"kind": "sent", "to": "7"}),
    ],
)
def test_send_takes_a_name_or_an_id(
    configured: FakeServices, run: Run, arguments: list[str], recipient: str, row: dict[str, object]
) -> None:
    """Digits are an id, but for ``--user``."""
    configured.users.add("7")
    to, *options = arguments
    assert run("mail", "send", to, "a text", *options, "--json").rows == [row]
    assert configured.mail.sent == [(recipient, "a text")]


def test_send_prints_a_confirmation(configured: FakeServices, run: Run) -> None:
    """Without ``--json`` it prints one word."""
    assert run("mail", "send", "alice", "a text") == (0, "sent\n", "")


def test_watch_shows_unread_mail(configured: FakeServices, run: Run) -> None:
    """Unread mail is shown immediately, with the raw object in addition to the model's fields."""
    configured.mail.deliver("alice", "a mail")
    configured.mail.deliver("bob", "another")
    first, second = run("mail", "watch", "--messages", "2", "--json").rows
    assert (first["kind"], first["sender"], first["text"]) == ("mail", "alice", "a mail")
    assert first["raw"]["message"] == "a mail"
    assert second["sender"] == "bob"


def test_watch_in_words(configured: FakeServices, run: Run) -> None:
    """A mail has a label."""
    configured.mail.deliver("alice", "a mail")
    assert run("mail", "watch", "--messages", "1").out.endswith(" alice (mail): a mail\n")


def test_a_sender_without_a_name_is_a_number(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one without either is a question mark."""
    body = b'[{"id": 1, "fromid": 7, "message": "a"}, {"id": 2, "message": "b"}]'
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    monkeypatch.setenv("PYTHPEER_PERSONAL_KEY", PERSONAL_KEY)
    with threaded(RawServer(drop(whole))) as server:
        monkeypatch.setenv("PYTHPEER_PYTHBOTS_URL", server.url)
        result = run("mail", "watch", "--messages", "2")
    assert result == (0, "- 7 (mail): a\n- ? (mail): b\n", "")


def test_all_mail(configured: FakeServices, run: Run) -> None:
    """A list with tabs, or NDJSON; reading it marks nothing as read."""
    configured.mail.deliver("alice", "a\tmail")
    head, row = run("mail", "all").out.splitlines()
    assert head == "sent\tfrom\tread\ttext"
    assert row.split("\t")[1:] == ["alice", "no", "a mail"]
    (mail,) = configured.mail.inbox
    assert not mail.read


def test_all_mail_as_json(configured: FakeServices, run: Run) -> None:
    """The same rows as those of ``mail watch``."""
    configured.mail.deliver("alice", "a mail")
    (row,) = run("mail", "all", "--json").rows
    assert (row["kind"], row["is_read"], row["raw"]["from"]) == ("mail", False, "alice")


# -- looking up -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "kind", "field", "value", "text"),
    [
        (["user", "tiro"], "user", "id", 221192, "id\t221192\n"),
        (["user", "221192"], "user", "powers", ["allpowers", "everypower"], "everypower\n"),
        (["staff", CHAT], "staff", "rank", "Main Owner", "221192\ttiro\tMain Owner\t77760000\n"),
        (["stats", CHAT], "stats", "messages", 125_000, "peak_users\t67\n"),
    ],
)
def test_look_ups(
    configured: FakeServices,
    run: Run,
    command: list[str],
    kind: str,
    field: str,
    value: object,
    text: str,
) -> None:
    """Plain lines with the model's fields and the other raw ones; or NDJSON with ``raw``."""
    assert text in run(*command).out
    row = run(*command, "--json").rows[0]
    assert row["kind"] == kind
    assert row[field] == value
    assert row["raw"]


def test_tables_fit_the_terminal(
    configured: FakeServices, run: Run, terminal: Callable[[int], None]
) -> None:
    """A table is not wider than the terminal, and nothing is cut off."""
    configured.mail.deliver("alice", "[bold]" + "so many words " * 10)
    terminal(50)
    out = ""
    for command in (["user", "tiro"], ["staff", CHAT], ["stats", CHAT], ["mail", "all"]):
        out = unstyled(run(*command).out)
        assert all(cells(line) <= 50 for line in out.splitlines())
        assert "\t" not in out
    assert out.count("words") == 10
    assert "[bold]" in out


def test_values_of_every_shape_have_a_form(configured: FakeServices, run: Run) -> None:
    """PythBots' responses are undocumented: every value in them can be printed."""
    configured.chats.add(7, nested={"a": [1, {"b": None}]}, flag=True, nothing=None, empty=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    out = run("stats", "7").out
    assert 'nested\t{"a":[1,{"b":null}]}\n' in out
    assert "flag\tyes\n" in out
    assert "nothing\t\n" in out


def test_numbers_of_any_size_have_a_form(
    configured: FakeServices, run: Run, terminal: Callable[[int], None]
) -> None:
    """Also numbers that no fraction can be compared with, on a terminal and elsewhere."""
    huge = 10**400
    numbers: dict[str, Any] = {"users": huge, "peak_users": 0.5, "series": [huge, 0.5]}
    configured.chats.add(7, **numbers)
    configured.chats.appoint(7, "alice", "Owner", time_held=huge)
    configured.chats.appoint(7, "bob", "Owner", time_held=1)
    for columns in (None, 80):
        if columns:
            terminal(columns)
        for command in ("stats", "staff"):
            result = run(command, "7")
            assert (result.code, result.err) == (0, "")
            assert "1000" in result.out


# -- wrong usage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["chat", "bogus"],
        ["--bogus"],
        ["chat", "tail", "--bogus"],
        ["chat", "tail", "--messages", "0"],
        ["chat", "tail", "--messages", "many"],
        ["chat", "tail", "--after", "-1"],
        ["chat", "tail", "--name", ""],
        ["chat", "post"],
        ["chat", "post", ""],
        ["chat", "post", "two", "words"],
        ["chat", "post", "x", "--key=k"],
        ["mail", "send", "alice"],
        ["mail", "send", "0", "text"],
        ["user"],
        ["staff", "lobby"],
        ["stats", "0"],
        ["\x1b[31mbogus\nsecond: line"],
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    configured: FakeServices, run: Run, arguments: list[str]
) -> None:
    """Nothing is sent."""
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert one_line(result.err)
    assert "\x1b" not in result.err
    assert configured.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        "{}",
        "--{}",
        "-{}",
        "--key={}",
        "--help {}",
        "chat {}",
        "chat post hi {}",
        "chat post hi --bot={}",
        "chat post --key {} hi",
        "chat tail --after {}",
        "chat tail --json={}",
        "stats {}",
        "staff {}",
        "serve --port {}",
        "serve --peerbet-port={}",
        "top --interval {}",
        "completion {}",
        "mail all {}",
        "mail {}",
    ],
)
@pytest.mark.parametrize("key", ["c4n4ryOfaKey", "c4n'4ry \"of", "c4n4ry-of_a+key/=="])
def test_a_key_as_a_wrong_argument_is_not_shown(run: Run, arguments: str, key: str) -> None:
    """The error names what is wrong, without what was typed there."""
    result = run(*(argument.format(key) for argument in arguments.split()))
    if result.code or "--help" not in arguments:  # old versions of cyclopts print the help
        assert result.code == 2
        assert one_line(result.err)
    for part in (key, key[:6], "c4n4ry", "of_a"):
        assert part not in result.out + result.err


def test_a_hidden_argument_is_explained(run: Run) -> None:
    """The reader sees three asterisks that were not typed; other errors do not mention them."""
    assert "*** is not shown, because it could be a key" in run("chat", "tial", "extra").err
    assert "could be a key" not in run("staff").err


@pytest.mark.parametrize("arguments", ["serve --port {}", "serve --pythbots-port={}", "chat {}"])
def test_a_key_of_digits_as_a_wrong_argument_is_not_shown(run: Run, arguments: str) -> None:
    """Not as the number that it was converted to, either."""
    result = run(*(argument.format("0099999999") for argument in arguments.split()))
    assert result.code == 2
    assert "99999" not in result.out + result.err


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        (["chta"], 'Did you mean "chat"?'),
        (["chat", "tail", "--after"], '"chat tail" parameter --after requires an argument'),
        (["chat", "tail", "--after", "-1x"], "--after"),
        (["chat", "tail", "--messages", "0"], 'Invalid value "0" for --messages. Must be >= 1'),
        (["chat", "tail", "--name", "a", "--name", "b"], "--name specified multiple times"),
    ],
)
def test_the_names_of_commands_and_options_are_shown(
    run: Run, arguments: list[str], error_text: str
) -> None:
    """Only values are hidden, and what is too short for a key is not."""
    assert error_text.replace('"', "") in run(*arguments).err.replace('"', "")


@pytest.mark.parametrize(
    ("arguments", "commands"),
    [(["foo"], list(overview.COMMANDS)), (["chat", "foo"], ["tail", "post"])],
)
def test_the_error_of_an_unknown_command_lists_all_commands(
    run: Run, arguments: list[str], commands: list[str]
) -> None:
    """Those of the command in which it is."""
    listed = run(*arguments).err.partition("Commands: ")[2].partition(" (see")[0]
    assert listed.split(", ") == commands


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        (["chat", "post", "hello", "world"], "a text with blanks must be in quotes"),
        (["mail", "send", "bob", "hello", "world"], "a text with blanks must be in quotes"),
        (["chat", "post"], "give the text in quotes, or - to read it from stdin"),
        (["chat", "post", "x", "-"], "give either the text, or - to read it from stdin, not both"),
        (["chat", "tail", "--after", "-5"], "for --after. Must be >= 0."),
    ],
)
def test_wrong_usage_says_what_to_write(
    configured: FakeServices, run: Run, arguments: list[str], error_text: str
) -> None:
    """In the words of the command line."""
    assert error_text in run(*arguments).err.replace('"', "")


@pytest.mark.parametrize(
    ("arguments", "environment", "error_text"),
    [
        (["chat", "post", "x"], {}, "PYTHPEER_PEERBET_KEY"),
        (["mail", "all"], {}, "PYTHPEER_PERSONAL_KEY"),
        (["mail", "watch"], {}, "PYTHPEER_PERSONAL_KEY"),
        (["mail", "send", "a", "b"], {"PYTHPEER_PERSONAL_KEY": " "}, "PYTHPEER_PERSONAL_KEY"),
        (["chat", "tail"], {"PYTHPEER_PEERBET_URL": "http://www.example.org"}, "https"),
        (["chat", "tail"], {"PYTHPEER_STORE": "nonsense://x"}, "PYTHPEER_STORE"),
        (["chat", "tail"], {"PYTHPEER_PEERBET_KEY": "canary\nx"}, "line break"),
    ],
)
def test_wrong_configuration_is_one_line_and_code_2(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: Mapping[str, str],
    error_text: str,
) -> None:
    """It names what to set, and shows no key."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert one_line(result.err)
    assert error_text in result.err


def test_help_documents_exit_codes_and_environment(run: Run) -> None:
    """Every level has a help text, and its exit code is 0."""
    out = run("--help").out
    for word in ("Exit codes", "130", "outcome unknown", "PYTHPEER_PEERBET_KEY", "demo", "mail"):
        assert word in out
    assert run() == (0, out, "")
    assert "--after" in run("chat", "tail", "--help").out


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_help_fits_the_terminal(width: int) -> None:
    """No line is wider, and no word of the help is lost."""
    text = overview.format_help(width)
    lines = text.splitlines()
    assert max(map(len, lines)) == width
    assert {*overview.HELP.split()} <= {*text.split()}
    for name, (_, description) in overview.COMMANDS.items():
        assert any(line.startswith(f"│ {name} ") for line in lines)
        assert {*description.split()} <= {*text.split()}


def test_the_help_describes_each_command_as_its_own_help_does() -> None:
    """The overview, which imports no command, repeats the first line of each."""
    for name, (_, description) in overview.COMMANDS.items():
        assert app[name].help.splitlines()[0] == description


def test_the_help_is_ascii_where_nothing_else_can_be_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The box is drawn with what stdout can encode."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", output)
    assert main([]) == 0
    output.seek(0)
    assert "+- Commands -" in output.read()


def test_version(run: Run) -> None:
    """The version is one line."""
    assert re.fullmatch(r"pythpeer [0-9][^\s]*\n", run("--version").out)


# -- failures -------------------------------------------------------------------------------------


def test_an_api_error_is_one_line_and_code_1(
    configured: FakeServices, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line contains the service's error text."""
    result = run("user", "nobody-at-all")
    assert (result.code, result.out) == (1, "")
    assert one_line(result.err)
    assert "User not found" in result.err
    monkeypatch.setenv("PYTHPEER_PEERBET_KEY", "canary-that-is-wrong")
    result = run("chat", "tail")
    assert (result.code, result.out) == (1, "")
    assert one_line(result.err)


def test_no_connection_is_one_line_and_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that was certainly not sent is not an unknown outcome."""
    with closed_port() as url:
        monkeypatch.setenv("PYTHPEER_PEERBET_URL", url)
        monkeypatch.setenv("PYTHPEER_PEERBET_KEY", PEERBET_KEY)
        result = run("chat", "post", "hello")
    assert (result.code, result.out) == (1, "")
    assert one_line(result.err)


def test_an_unknown_outcome_is_code_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request left, the connection broke: it may have been posted."""
    with threaded(RawServer(drop())) as server:
        monkeypatch.setenv("PYTHPEER_PEERBET_URL", server.url)
        monkeypatch.setenv("PYTHPEER_PEERBET_KEY", PEERBET_KEY)
        result = run("chat", "post", "hello")
        assert len(server.requests) == 1
    assert (result.code, result.out) == (3, "")
    assert one_line(result.err)


def test_what_streams_log_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that retries logs that on stderr, and rows resume afterwards."""
    page = {
        "status": 1,
        "users_online": 1,
        "message_list": [{"id": 1, "by": "alice", "to": "", "msg": "hi", "date": "", "bot": 0}],
    }
    body = json.dumps(page).encode()
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with threaded(RawServer(drop(), drop(whole))) as server:
        monkeypatch.setenv("PYTHPEER_PEERBET_URL", server.url)
        result = run("chat", "tail", "--after", "0", "--messages", "1")
    assert (result.code, result.out) == (0, "- alice: hi\n")
    warning, info = result.err.splitlines()
    assert one_line(warning + "\n")
    assert "recovered after" in info


def test_log_records_of_other_packages_are_not_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log records of other packages are for developers."""

    def log(self: demo.Demo) -> int:
        logging.getLogger("asyncio").warning("for developers")
        logging.getLogger("pythpeer.somewhere").warning("for everybody")
        return 0

    monkeypatch.setattr(demo.Demo, "run", log)
    assert run("demo") == (0, "", "pythpeer: for everybody\n")


def test_a_bug_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is named, with a way to see its traceback."""
    monkeypatch.setattr(demo.Demo, "run", lambda self: {"a": 1}[str(self)])
    result = run("demo")
    assert (result.code, result.out) == (1, "")
    assert one_line(result.err)
    assert "KeyError" in result.err


def test_a_bug_has_its_traceback_in_development_mode() -> None:
    """``python -X dev`` shows it."""
    source = """
import sys
from pythpeer.cli import main
from pythpeer.cli.demo import command
command.Demo.run = lambda self: {"a": 1}[self]
sys.exit(main(["demo"]))
"""
    done = run_python(source, "-X", "dev")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError" in done.stderr


def test_output_may_be_any_text_stream(run: Run) -> None:
    """A caller of `main` may have replaced stdout."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert run("--version") == (0, "", "")
    assert output.getvalue().startswith("pythpeer ")


def test_the_extra_is_named_where_it_is_missing() -> None:
    """Without cyclopts or rich a command prints one line of advice; the library still works."""
    source = """
import sys
import pythpeer
assert not {"cyclopts", "rich", "pythpeer.cli"} & set(sys.modules)
sys.modules["rich.console"] = sys.modules["rich"] = sys.modules["cyclopts"] = None
from pythpeer.cli import main
sys.exit(main(["user", "alice"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr)
    assert 'pip install "cyclopts>=4.4" "rich>=13.6"' in done.stderr


def test_an_import_that_fails_otherwise_is_a_bug(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installing the extra would not help, so it is not suggested."""
    monkeypatch.setitem(sys.modules, "pythpeer.cli.app", None)
    result = run("user", "alice")
    assert (result.code, result.out) == (1, "")
    assert one_line(result.err)
    assert "pythpeer.cli.app" in result.err
    assert "pip" not in result.err


# -- the demo -------------------------------------------------------------------------------------


@needs_signals
def test_the_demo_as_json(spawn: Spawn) -> None:
    """It prints the requested number of rows, of both kinds, and nothing else; then it ends."""
    options = ("--json", "--messages", "6", "--seed", "1")
    result = spawn("demo", *options, virtual_time=True).finish()
    assert (result.code, result.err) == (0, "")
    rows = result.rows
    assert len(rows) == 6
    assert {row["kind"] for row in rows} == {"chat", "mail"}
    for row in rows:
        assert {"id", "sender", "text", "sent_at"} <= row.keys()
    chat = [row["id"] for row in rows if row["kind"] == "chat"]
    assert chat == sorted(set(chat))


@needs_signals
def test_ctrl_c_ends_the_demo_well(spawn: Spawn) -> None:
    """Stdout has rows only, in the order of their times; stderr has a heading and the summary."""
    process = spawn("demo", "--seed", "2", virtual_time=True)
    assert process.stdout is not None
    out = ""
    for line in process.stdout:
        out += line
        if line.endswith("pong\n"):
            break
    process.send_signal(signal.SIGINT)
    result = process.finish(out)
    assert result.code == 0
    heading, *_, last = result.err.splitlines()
    assert heading.startswith("pythpeer demo: ")
    assert "Ctrl-C stops it" in result.err
    assert "\x1b" not in result.out + result.err
    assert all(re.match(r"\d{4}-\d\d-\d\d [\d:]{8} \w", line) for line in result.out.splitlines())
    times = [line[:19] for line in result.out.splitlines()]
    assert times == sorted(times)
    assert re.search(r" (\w+): !ping\n(.*\n)*.* pythpeer \(bot\): pong\n", result.out)
    assert re.fullmatch(r"messages: \d+, mails: \d+, replies to !ping: \d+, violations: 0", last)


@pytest.mark.usefixtures("virtual_time")
def test_the_demo_on_a_terminal(run: Run, terminal: Callable[[int], None]) -> None:
    """The last line shows how to stop it; at the end it is removed, and the cursor visible."""
    terminal(60)
    result = run("demo", "--messages", "3", "--seed", "3")
    assert result.code == 0
    assert "Ctrl-C stops" in result.out
    assert result.out.rindex("\x1b[?25h") > result.out.rindex("\x1b[?25l")
    assert "Ctrl-C" not in result.out.splitlines()[-1]
    assert "shown: 3, violations: 0" in result.out


def test_the_conversation_of_the_demo_never_ends(capfd: pytest.CaptureFixture[str]) -> None:
    """Every scene is played, repeatedly, and the session breaks no rule."""
    played = demo.Demo(Rows(json=True), 200, 4)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(played._play())
    rows = Result(0, *capfd.readouterr()).rows
    times = Counter(row["text"] for row in rows)
    scenes = re.findall(r"^[abc][:>@*] ([^{}\n]+)$", SCENES, re.MULTILINE)
    assert {times[text] > 0 for text in scenes} == {True}
    assert times["who won last night?"] > 1
    private_texts = [row["text"] for row in rows if row["kind"] == "chat" and row["is_private"]]
    assert "psst, are you really a bot?" in private_texts
    assert times["pong"] >= times["!ping"] - 1 > 0
    assert played._violations == []


@pytest.mark.usefixtures("virtual_time")
def test_the_demo_fails_if_a_rule_is_broken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests are really checked: a rate that is too high is a violation."""
    open_session = FakeServices.session
    fast_rates = dict.fromkeys(DEFAULT_RATES, Rate(0.5))
    monkeypatch.setattr(FakeServices, "session", lambda fake: open_session(fake, rates=fast_rates))
    result = run("demo", "--messages", "4")
    assert result.code == 1
    (count,) = re.findall(r", violations: (\d+)\n", result.err)
    violations = [line for line in result.err.splitlines() if line.startswith("pythpeer: ")]
    assert len(violations) == min(int(count), demo.MAX_SHOWN) > 0
    assert all(" too early " in line for line in violations)


# -- how processes end ----------------------------------------------------------------------------


@needs_signals
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_has_its_exit_code(
    configured: FakeServices, spawn: Spawn, number: signal.Signals, code: int
) -> None:
    """There is no traceback and no other output."""
    configured.chat.say("alice", "hello")
    process = spawn("chat", "tail", "--after", "0", "--json")
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(number)
    result = process.finish(first)
    assert (result.code, result.err) == (code, "")
    assert len(result.rows) == 1


def test_the_prompt_is_on_a_separate_line(
    terminal: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """A terminal shows ^C at the cursor, so a line break follows."""
    terminal(80)
    assert runtime.report_error(runtime.Interrupted(signal.SIGINT)) == 130
    assert capfd.readouterr() == ("", "\n")


@needs_signals
def test_an_interrupted_message_may_have_been_sent(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request was written: the outcome is unknown, which is printed."""
    monkeypatch.setenv("PYTHPEER_PEERBET_KEY", PEERBET_KEY)
    with threaded(RawServer(hang())) as server:
        monkeypatch.setenv("PYTHPEER_PEERBET_URL", server.url)
        process = spawn("chat", "post", "hello")
        wait_for(lambda: server.requests)
        process.send_signal(signal.SIGINT)
        result = process.finish()
    assert (result.code, result.out) == (130, "")
    assert one_line(result.err)
    assert "may or may not" in result.err


@needs_signals
def test_a_second_ctrl_c_exits_immediately(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one waits for mail that is marked as read already, and prints that."""
    monkeypatch.setenv("PYTHPEER_PERSONAL_KEY", PERSONAL_KEY)
    with threaded(RawServer(hang())) as server:
        monkeypatch.setenv("PYTHPEER_PYTHBOTS_URL", server.url)
        process = spawn("mail", "watch", patient=False)
        assert process.stderr is not None
        wait_for(lambda: server.requests)
        process.send_signal(signal.SIGINT)
        error_text = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        result = process.finish()
    assert result == (130, "", "")
    assert one_line(error_text)
    assert "waiting for the response" in error_text


@needs_signals
@pytest.mark.parametrize("on_terminal", [False, True], ids=["pipe", "terminal"])
def test_an_immediate_exit_restores_the_terminal(on_terminal: bool) -> None:
    """A hidden cursor is shown again; a pipe has none."""
    source = """
import signal
from pythpeer.cli import signals
signals.DEBOUNCE = -1.0
signals.install()
signal.raise_signal(signal.SIGINT)
signal.raise_signal(signal.SIGTERM)
print("not reached")
"""
    reader, writer = os.openpty() if on_terminal else os.pipe()
    command = [sys.executable, "-c", source]
    with (
        os.fdopen(reader, "rb", buffering=0) as output,
        os.fdopen(writer, "wb", buffering=0) as end,
    ):
        done = subprocess.run(command, stdout=end, stderr=subprocess.PIPE, check=False)
        end.write(b".")
        shown = b""
        while not shown.endswith(b"."):
            shown += output.read(100)
    assert (done.returncode, done.stderr) == (143, b"")
    assert shown == (b"\x1b[?25h." if on_terminal else b".")


@needs_signals
@pytest.mark.parametrize("module", ["asyncio", "pythpeer.errors", "anyio", "cyclopts", "aiohttp"])
def test_a_signal_during_imports_is_handled(module: str) -> None:
    """The import is completed, whichever it is, and then the command ends."""
    source = f"""
import signal, sys
import pythpeer.cli
pythpeer.cli.signals.NOTICE_AFTER = 60.0

class Finder:
    def find_spec(self, name, *others):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
sys.exit(pythpeer.cli.main(["chat", "tail"]))
"""
    done = run_python(source)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@needs_signals
def test_two_signals_at_the_same_time_count_as_one() -> None:
    """Wrappers forward a signal that the terminal sent to all processes."""
    source = """
import atexit, signal, sys
from pythpeer.cli import main, signals

class Finder:
    def find_spec(self, name, *others):
        if name == "cyclopts":
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)

signals.DEBOUNCE = signals.NOTICE_AFTER = 60.0
sys.meta_path.insert(0, Finder())
atexit.register(print, "in good order")
sys.exit(main(["chat", "tail"]))
"""
    done = run_python(source)
    assert (done.returncode, done.stdout, done.stderr) == (143, "in good order\n", "")


@needs_signals
def test_a_command_is_cancelled_once() -> None:
    """A pipe that is closed during the clean-up after a signal does not interrupt that."""
    source = """
import asyncio, os, signal, sys
from pythpeer.cli import runner, runtime, signals

async def command():
    with runner.stop_when_pipe_closes():
        signal.raise_signal(signal.SIGTERM)
        try:
            await asyncio.sleep(30)
        finally:
            os.close(reader)
            await asyncio.sleep(0.2)
            runtime.print_error(f"tidied up, pipe closed: {runner._command.pipe_closed}")

reader, writer = os.pipe()
os.dup2(writer, 1)
os.close(writer)
signals.NOTICE_AFTER = 60.0
signals.install()
try:
    runner.run(command())
except runtime.Interrupted as error:
    sys.exit(runtime.report_error(error))
"""
    done = run_python(source)
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr == "pythpeer: tidied up, pipe closed: True\n"


@needs_signals
@pytest.mark.parametrize("silent", [False, True])
def test_a_closed_pipe_ends_it_quietly(
    configured: FakeServices, spawn: Spawn, *, silent: bool
) -> None:
    """``| head -1``: the command ends, even if there is never another row."""
    configured.chat.say("alice", "hello")
    if not silent:
        configured.chat.say("bob", "hello " * 40)
    process = spawn("chat", "tail", "--after", "0")
    assert process.stdout is not None
    assert process.stdout.readline().endswith("alice: hello\n")
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(10) == 0


@needs_signals
def test_help_into_a_closed_pipe_ends_quietly(spawn: Spawn) -> None:
    """The output of rich is no exception."""
    reader, writer = os.pipe()
    os.close(reader)
    process = spawn("--help", stdout=writer)
    os.close(writer)
    assert process.finish() == (0, "", "")


@needs_signals
def test_signals_are_handled_from_the_first_import_to_the_end() -> None:
    """A signal during imports takes effect after them; one after the end has no effect."""
    source = """
import atexit, signal, sys
import pythpeer.cli
pythpeer.cli.signals.NOTICE_AFTER = 60.0

class Finder:
    def find_spec(self, name, *others):
        if name == "cyclopts":
            signal.raise_signal(signal.SIGTERM)

sys.meta_path.insert(0, Finder())
atexit.register(signal.raise_signal, signal.SIGINT)
sys.exit(pythpeer.cli.main(["chat", "tail"]))
"""
    done = run_python(source)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(spawn: Spawn) -> None:
    """Output that cannot be written is a failure, printed once."""
    with Path("/dev/full").open("w") as full:
        process = spawn("--version", stdout=full.fileno())
        result = process.finish()
    assert result.code == 1
    assert one_line(result.err)


@needs_signals
def test_without_any_output_it_still_works(configured: FakeServices) -> None:
    """With closed standard streams it does not fail, and writes to no other file."""
    command = '"$0" -m pythpeer chat post hello >&- 2>&-'
    done = subprocess.run(["sh", "-c", command, sys.executable], check=False)
    assert done.returncode == 0
    assert [line.text for line in configured.chat.messages] == ["hello"]
