"""The command line on a terminal: input of keys, progress, the dashboard, and Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
from cli_runner import (
    PEERBET_KEY,
    PERSONAL_KEY,
    OnTerminal,
    Run,
    Spawn,
    cells,
    needs_signals,
    one_line,
    threaded,
    unstyled,
)
from raw_server import RawServer, hang

from pythpeer.cli.demo.dashboard import gauge, timeline
from pythpeer.testing import FakeServices, Fault

pytest_plugins = ("cli_runner",)
pytestmark = [pytest.mark.usefixtures("environment"), needs_signals]

LONG = "so many words " * 30


# -- keys -----------------------------------------------------------------------------------------


@pytest.fixture
def keyless(configured: FakeServices, monkeypatch: pytest.MonkeyPatch) -> FakeServices:
    """The fake services, with an environment that has their URLs but no keys."""
    monkeypatch.delenv("PYTHPEER_PEERBET_KEY")
    monkeypatch.delenv("PYTHPEER_PERSONAL_KEY")
    return configured


def test_a_key_is_asked_for_on_a_terminal(keyless: FakeServices, on_terminal: OnTerminal) -> None:
    """It is never displayed, and surrounding spaces are removed."""
    process = on_terminal("mail", "send", "alice", "hello")
    process.read_until("personal key (not displayed): ")
    assert not termios.tcgetattr(process.fd)[3] & termios.ECHO
    process.type(f" {PERSONAL_KEY}\n")
    assert process.finish() == 0
    assert process.shown.endswith(": \r\nsent\r\n")
    assert keyless.mail.sent == [("alice", "hello")]


def test_text_from_a_pipe_does_not_hide_the_terminal(
    keyless: FakeServices, on_terminal: OnTerminal
) -> None:
    """The key is read from the terminal, the text from stdin."""
    reader, writer = os.pipe()
    os.write(writer, "grüße\n\n".encode())
    os.close(writer)
    process = on_terminal("chat", "post", "-", stdin=reader)
    os.close(reader)
    process.read_until("Peerbet key")
    process.type(f"{PEERBET_KEY}\n")
    assert process.finish() == 0
    assert [line.text for line in keyless.chat.messages] == ["grüße"]


@pytest.mark.parametrize("keys", ["\n", "\x04", " \t\n"])
def test_empty_input_is_no_key(keyless: FakeServices, on_terminal: OnTerminal, keys: str) -> None:
    """The line and the exit code are those without a terminal."""
    process = on_terminal("mail", "all")
    process.read_until(": ")
    process.type(keys)
    assert process.finish() == 2
    assert process.shown.endswith(
        "\r\npythpeer: mail requires a key: set PYTHPEER_PERSONAL_KEY\r\n"
    )


def test_an_invalid_key_is_one_line(keyless: FakeServices, on_terminal: OnTerminal) -> None:
    """The error describes the problem without the key."""
    process = on_terminal("mail", "all")
    process.read_until(": ")
    process.type("canary\x01\n")
    assert process.finish() == 2
    assert "a key must not contain line breaks or other control characters" in process.shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_at_the_question_restores_the_echo(
    keyless: FakeServices, on_terminal: OnTerminal, number: signal.Signals, code: int
) -> None:
    """The shell after it shows what is typed."""
    process = on_terminal("mail", "all")
    process.read_until(": ")
    if number == signal.SIGINT:
        process.type("\x03")
    else:
        process.process.send_signal(number)
    assert process.finish() == code
    assert termios.tcgetattr(process.fd)[3] & termios.ECHO
    assert keyless.requests == []


def test_without_stderr_on_the_terminal_there_is_no_question(
    keyless: FakeServices, on_terminal: OnTerminal
) -> None:
    """With stderr in a file, there is one line in that file."""
    reader, writer = os.pipe()
    process = on_terminal("mail", "all", stderr=writer)
    os.close(writer)
    with os.fdopen(reader) as errors:
        assert process.finish() == 2
        assert errors.read() == "pythpeer: mail requires a key: set PYTHPEER_PERSONAL_KEY\n"
    assert process.shown == ""


# -- posting --------------------------------------------------------------------------------------


def test_long_text_is_posted_in_parts(unlimited: FakeServices, run: Run) -> None:
    """Each part has an id, and there is no progress without a terminal."""
    result = run("chat", "post", LONG, "--bot")
    assert result == (0, "1\n2\n", "")
    assert " ".join(line.text for line in unlimited.chat.messages) == LONG.strip()
    assert all(line.bot for line in unlimited.chat.messages)


def test_long_blank_text_is_no_text(configured: FakeServices, run: Run) -> None:
    """It has no parts, so it is rejected."""
    result = run("chat", "post", " " * 300)
    assert (result.code, result.out) == (2, "")
    assert one_line(result.err)


def test_long_text_as_json(unlimited: FakeServices, run: Run) -> None:
    """A row for each part."""
    rows = run("chat", "post", LONG[:300], "--json").rows
    assert rows == [{"kind": "posted", "id": 1}, {"kind": "posted", "id": 2}]


def test_progress_is_shown_on_a_terminal(configured: FakeServices, on_terminal: OnTerminal) -> None:
    """One line shows the parts done and what it waits for; at the end it is removed."""
    process = on_terminal("chat", "post", LONG, columns=100)
    process.read_until("posting 1 of 2")
    process.read_until("waiting for a token: one every 1 s")
    assert process.finish() == 0
    assert process.shown.rindex("\x1b[?25h") > process.shown.rindex("\x1b[?25l")
    assert unstyled(process.shown).endswith("1\r\n2\r\n")


def test_progress_stays_out_of_files(configured: FakeServices, on_terminal: OnTerminal) -> None:
    """The output in the pipe is ids only; the progress is on the terminal."""
    reader, writer = os.pipe()
    process = on_terminal("chat", "post", LONG, columns=30, stdout=writer)
    os.close(writer)
    process.read_until("posting 1 of 2")
    with os.fdopen(reader) as output:
        assert process.finish() == 0
        assert output.read() == "1\n2\n"


def test_an_interrupted_long_text_prints_what_was_posted(
    configured: FakeServices, on_terminal: OnTerminal
) -> None:
    """The ids so far are printed, and that another one may exist."""
    process = on_terminal("chat", "post", LONG, columns=60)
    process.read_until("posting 1 of 2")
    process.type("\x03")
    assert process.finish() == 130
    assert "may or may not have been\r\nsent\r\n1\r\n" in unstyled(process.shown)
    assert len(configured.chat.messages) <= 2


def test_a_long_text_that_fails_prints_the_parts_so_far(unlimited: FakeServices, run: Run) -> None:
    """Nothing is posted after the part whose outcome is unknown."""
    unlimited.faults.add("peerbet.chat.set", Fault(), Fault.drop())
    result = run("chat", "post", LONG)
    assert (result.code, result.out) == (3, "1\n")
    assert one_line(result.err)
    assert "1 of 2 parts were posted before this" in result.err


def test_a_post_can_be_confirmed(unlimited: FakeServices, run: Run) -> None:
    """Its response is lost, and it is found."""
    unlimited.faults.add("peerbet.chat.set", Fault.drop())
    assert run("chat", "post", "hello", "--confirm") == (0, "1\n", "")
    assert len(unlimited.chat.messages) == 1


@pytest.mark.parametrize(
    ("text", "code", "error_text"),
    [
        (b"hello\r\n", 0, ""),
        (b"\xff", 2, "byte 0"),
        (b"", 2, "text"),
        (bytes(2 << 20), 2, "more than"),
    ],
    ids=["text", "no UTF-8", "nothing", "too much"],
)
def test_text_from_stdin(
    configured: FakeServices, spawn: Spawn, text: bytes, code: int, error_text: str
) -> None:
    """It must be UTF-8 and of limited size, otherwise it is an error."""
    reader, writer = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb", buffering=0) as pipe:
            for start in range(0, len(text), 1 << 16):
                pipe.write(text[start : start + (1 << 16)])

    process = spawn("chat", "post", "-", stdin=reader)
    os.close(reader)
    writing = threading.Thread(target=write)
    writing.start()
    result = process.finish()
    writing.join()
    assert result.code == code
    assert error_text in result.err
    assert (result.err == "") is (code == 0)


@pytest.mark.parametrize("arguments", [["chat", "post", "x", "-"], ["mail", "send", "alice"]])
def test_there_is_one_text(configured: FakeServices, run: Run, arguments: list[str]) -> None:
    """Two texts are an error, and so is none."""
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert "or - to read it from stdin" in result.err
    assert configured.requests == []


def test_a_hyphen_can_be_posted(configured: FakeServices, run: Run) -> None:
    """After ``--``, as for every text that looks like an option."""
    assert run("chat", "post", "--", "-").code == 0
    assert [line.text for line in configured.chat.messages] == ["-"]


def test_without_stdin_there_is_no_text(configured: FakeServices) -> None:
    """A shell may have closed it."""
    command = '"$0" -m pythpeer mail send alice - <&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr)


def test_ctrl_c_ends_the_wait_for_stdin(configured: FakeServices, on_terminal: OnTerminal) -> None:
    """A pipe, or a user, may take any time."""
    process = on_terminal("chat", "post", "-")
    process.read_until("Ctrl-D on an empty line ends it")
    process.type("not yet the end\n")
    process.read_until("not yet the end")
    process.type("\x03")
    assert process.finish() == 130
    assert configured.requests == []


# -- the demo -------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [100, 40])
def test_the_dashboard_shows_pacing(on_terminal: OnTerminal, columns: int) -> None:
    """Every endpoint has a line, no line is too long, and Ctrl-C leaves the summary."""
    process = on_terminal("demo", "--seed", "3", columns=columns, lines=30, virtual_time=True)
    process.read_until("pong")
    process.read_until("interval")
    process.type("\x03")
    assert process.finish() == 0
    plain = unstyled(process.shown)
    for title in ("chat ·", "mail ·", "post ·", "Ctrl-C stops"):
        assert title in plain
    assert ("shortest" in plain) is (columns == 100)
    assert ("waiting" in plain) is (columns == 100)
    screen_lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", plain).splitlines()
    assert all(cells(line) <= columns for line in screen_lines)
    assert '0 "pythpeer serve" runs the same services' in " ".join(plain.split())
    assert process.shown.rindex("\x1b[?25h") > process.shown.rindex("\x1b[?25l")


def test_a_low_terminal_gets_the_last_line_only(on_terminal: OnTerminal) -> None:
    """The rest of the lines is for the rows."""
    options = ("--seed", "3", "--messages", "2")
    process = on_terminal("demo", *options, columns=100, lines=10, virtual_time=True)
    assert process.finish() == 0
    assert "violations: 0" in process.shown
    assert "interval" not in process.shown


def test_a_dumb_terminal_gets_no_dashboard(
    on_terminal: OnTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It receives no other escape sequence, either."""
    monkeypatch.setenv("TERM", "dumb")
    options = ("--seed", "3", "--messages", "2")
    process = on_terminal("demo", *options, columns=30, virtual_time=True)
    assert process.finish() == 0
    assert "\x1b" not in process.shown
    assert all(cells(line) <= 30 for line in process.shown.splitlines())
    assert "Ctrl-C stops ·" not in process.shown


def test_a_timeline_ends_now() -> None:
    """A column is a quarter of a second; older requests are omitted."""
    assert timeline([0.0, 9.1, 9.99], 10.0, 8) == "····●··●"
    assert timeline([], 10.0, 4, ascii_only=True) == "...."
    assert timeline([10.0], 10.0, 4, ascii_only=True) == "...*"


def test_a_gauge_fills() -> None:
    """From empty to full, and not further."""
    levels = (-1.0, 0.0, 0.5, 1.0, 7.0)
    assert [gauge(level) for level in levels] == ["▱▱▱▱▱", "▱▱▱▱▱", "▰▰▱▱▱", "▰▰▰▰▰", "▰▰▰▰▰"]
    assert gauge(0.4, ascii_only=True) == "##..."


# -- leaving --------------------------------------------------------------------------------------


def test_an_immediate_exit_shows_the_cursor_that_progress_hid(
    on_terminal: OnTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress is on stderr, so the cursor is made visible there."""
    monkeypatch.setenv("PYTHPEER_PERSONAL_KEY", PERSONAL_KEY)
    with threaded(RawServer(hang())) as server:
        monkeypatch.setenv("PYTHPEER_PYTHBOTS_URL", server.url)
        with Path(os.devnull).open("w") as null_file:
            process = on_terminal("mail", "all", stdout=null_file.fileno())
        process.read_until("waiting for the response")
        process.type("\x03")
        assert process.finish() == 130
    assert process.shown.rindex("\x1b[?25h") > process.shown.rindex("\x1b[?25l")
