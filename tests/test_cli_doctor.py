"""``pythpeer doctor``: the report on a terminal, in a pipe and as JSON; exit codes; files.

The command runs as the coroutine that it is, on virtual time; how a process ends is tried with
services that are down, which takes none.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from cli_runner import Result, Spawn, needs_signals

from pythpeer import InvalidRequestError
from pythpeer.cli.doctor import doctor
from pythpeer.doctor import Status
from pythpeer.testing import FakeServices, Fault

pytest_plugins = ("cli_runner",)
pytestmark = pytest.mark.anyio

CANARY: Final = "canary7f3a9"
PEERBET_KEY: Final = f"{CANARY}-of-peerbet"
PERSONAL_KEY: Final = f"{CANARY}-of-pythbots"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the developer's settings: keys, colours, width."""
    for name in list(os.environ):
        if name.startswith(("PYTHPEER_", "FORCE_COLOR", "NO_COLOR", "TTY_", "COLUMNS", "LINES")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
async def fake(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeServices]:
    """Fake services that the environment points to, with a chat and a mailbox."""
    async with FakeServices(peerbet_key=PEERBET_KEY, personal_key=PERSONAL_KEY) as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        for number in range(6):
            fake.chat.say(CANARY, f"{CANARY} {number}")
        fake.mail.deliver(CANARY, CANARY)
        yield fake


Run = Callable[..., Any]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command, and check that its output contains no key and no text of a user."""

    async def run_here(**options: Any) -> Result:
        code = await doctor(**options)
        out, err = capfd.readouterr()
        assert CANARY not in out + err
        return Result(code, out, err)

    return run_here


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make this process's output a terminal of so many columns."""

    def make(columns: int) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))

    return make


async def test_all_is_well(fake: FakeServices, run: Run) -> None:
    """A line for each finding under its service; then the shapes and the summary."""
    result = await run()
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0] == "Peerbet chat"
    assert "PythBots" in lines
    findings = [line for line in lines if re.match(r" *(ok|note|warning|problem|skipped)  ", line)]
    assert "     ok  peerbet" not in result.out
    assert "     ok  chat.order: messages are in ascending order of their ids" in findings
    assert any(line.startswith("  chat: {status: integer, ") for line in lines)
    counts = Counter(line.split()[0] for line in findings)
    total = ", ".join(f"{counts[status.value]} {status.value}" for status in Status)
    assert re.fullmatch(rf"pythpeer [^ ]+: {total}", lines[-1])
    assert "\x1b" not in result.out


async def test_the_report_as_json(fake: FakeServices, run: Run) -> None:
    """An object on each line: the findings, the shapes, and the summary at the end."""
    result = await run(json=True)
    kinds = [row["kind"] for row in result.rows]
    assert list(dict.fromkeys(kinds)) == ["finding", "shape", "report"]
    findings = [row for row in result.rows if row["kind"] == "finding"]
    assert all(row.keys() == {"kind", "check", "status", "text", "advice"} for row in findings)
    counts = Counter(row["status"] for row in findings)
    last = result.rows[-1]
    assert last["status"] == "note"
    assert {status.value: last[status.value] for status in Status} == {
        status.value: counts[status.value] for status in Status
    }


async def test_exit_codes(fake: FakeServices, run: Run) -> None:
    """0 without problems, 4 with warnings only, 1 with a problem."""
    assert (await run()).code == 0
    fake.set_quirks(readall_marks=True)
    warned = await run()
    assert warned.code == 4
    first, second, *_, last = warned.out.splitlines()
    assert first == "What needs attention"
    assert second.startswith("warning  pythbots.mail.marks: ")
    assert last == "see the first lines: pythbots.mail.marks"
    fake.faults.always("pythbots.crank", Fault.html())
    broken = await run(json=True)
    assert broken.code == 1
    assert broken.rows[-1]["status"] == "problem"


async def test_advice_is_below_the_finding(fake: FakeServices, run: Run) -> None:
    """An arrow and the advice; problems and warnings come first, and again under their service."""
    fake.set_quirks(personal_key_param="personalkey")
    result = await run()
    lines = result.out.splitlines()
    at = lines.index(
        "problem  personal-key: accepted only with the parameter personalkey, which "
        "is not the configured one"
    )
    assert lines[at + 1].strip(" →->") == (
        "set PYTHPEER_PERSONAL_KEY_PARAM=personalkey, or create sessions with"
        ' Session(personal_key_param="personalkey")'
    )
    assert lines[0] == "What needs attention"
    assert lines[1] == lines[at].replace("personal-key", "pythbots.personal-key", 1)
    assert lines[2] == lines[at + 1]
    assert lines[3:5] == ["", "Peerbet chat"]


async def test_mail_and_look_ups_are_the_users_choice(fake: FakeServices, run: Run) -> None:
    """Options select the user, the chat, and whether the mailbox is read."""
    result = await run(user="bob", chat=7, no_mail=True, json=True)
    checks = {row["check"]: row["status"] for row in result.rows if row["kind"] == "finding"}
    assert checks["pythbots.crank.answer"] == "warning"
    assert checks["pythbots.personal-key"] == "skipped"
    assert any("user=bob" in arrival.target for arrival in fake.requests)


@pytest.mark.parametrize("columns", [120, 80, 40])
async def test_on_a_terminal(
    fake: FakeServices, run: Run, terminal: Callable[[int], None], columns: int
) -> None:
    """Columns if they fit, colours, and no line wider than the terminal."""
    fake.set_quirks(readall_marks=True)
    terminal(columns)
    result = await run()
    assert "\x1b[" in result.out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.out)
    assert all(len(line) <= columns for line in plain.splitlines())
    assert re.search(r"^ok +chat\.order:? +messages are in", plain, re.MULTILINE)
    assert re.search(r"^ +(→|->) +they are in", plain, re.MULTILINE)


async def test_without_colour(
    fake: FakeServices,
    run: Run,
    terminal: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``NO_COLOR`` is respected."""
    terminal(80)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in (await run()).out


async def test_samples_are_captured(fake: FakeServices, run: Run, tmp_path: Path) -> None:
    """They are added to those of earlier runs; their number is printed on stderr."""
    folder = tmp_path / "new"
    result = await run(capture=folder)
    files = sorted(folder.rglob("*.json"))
    assert result.err == f"pythpeer: {len(files)} redacted samples are in {folder}\n"
    assert len(files) >= 8
    assert not any(CANARY in path.read_text(encoding="utf-8") for path in files)
    await run(capture=folder, json=True)
    assert len(list(folder.rglob("*.json"))) == 2 * len(files)


async def test_an_unusable_folder_is_an_error_before_the_first_request(
    fake: FakeServices, tmp_path: Path
) -> None:
    """The error is printed before the first request."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InvalidRequestError, match="cannot be written"):
        await doctor(capture=tmp_path / "file")
    assert fake.requests == []


# -- as a process ---------------------------------------------------------------------------------


@pytest.fixture
def services_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with the URLs of services that are down."""
    for name in ("PYTHPEER_PEERBET_URL", "PYTHPEER_PYTHBOTS_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@needs_signals
@pytest.mark.usefixtures("services_down")
def test_services_that_are_down(spawn: Spawn) -> None:
    """There is still a report, and the exit code of a problem."""
    code, out, err = spawn("doctor").finish()
    assert (code, err) == (1, "")
    attention, findings = out.split("Peerbet chat")
    assert attention.startswith("What needs attention\n")
    assert attention.count("no connection to 127.0.0.1:9") == 2
    assert findings.count("no connection to 127.0.0.1:9") == 2


@needs_signals
@pytest.mark.usefixtures("services_down")
def test_wrong_usage_and_a_reader_who_leaves(spawn: Spawn) -> None:
    """One clear line and code 2; nothing and code 0."""
    code, out, err = spawn("doctor", "--chat", "many").finish()
    assert (code, out) == (2, "")
    assert re.fullmatch(r"pythpeer: [^\n]+\n", err)
    command = spawn("doctor")
    assert command.stdout is not None
    command.stdout.close()
    assert command.finish() == (0, "", "")


# -- the page -------------------------------------------------------------------------------------

PAGE: Final = Path(__file__).parent.parent / "docs" / "how-to" / "doctor.md"


async def test_the_page_shows_what_is_printed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example in the documentation is the report on these fake services, line by line."""
    async with FakeServices(
        personal_key_param="personalkey",
        numbers_as_strings=True,
        readall_marks=True,
        names={"from": "author"},
    ) as fake:
        for _ in range(60):
            fake.chat.say("alice", "hello")
        fake.mail.deliver("bob", "hello")
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        assert await doctor() == 1
    shown = PAGE.read_text(encoding="utf-8").partition("```text\n")[2].partition("```\n")[0]
    assert without_variants(shown) == without_variants(capfd.readouterr().out)


def without_variants(report: str) -> str:
    """Return a report without what differs between runs."""
    report = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", report).replace("->", "→ ")
    report = re.sub(r"took \S+ s \(.*?\)|\(\d+\.\d+ s\)", "in no time", report)
    return re.sub(r"pythpeer \S+:", "pythpeer:", report)
