"""Tests the page about the command line: its commands run, and all commands are documented."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from cli_runner import COMMAND, Run, needs_signals
from cyclopts import App
from fork_server import ForkServer

from pythpeer import SqliteStore
from pythpeer.cli.app import app
from pythpeer.cli.overview import HELP
from pythpeer.testing import FakeServices

pytest_plugins = ("cli_runner",)
pytestmark = pytest.mark.usefixtures("environment")

CLIENT = Path(__file__).with_name("fork_client.py")
PAGE = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [line[2:] for block in BLOCKS for line in block.splitlines() if line.startswith("$ ")]
UNBOUNDED = re.compile(r"pythpeer (demo|chat tail|mail watch)(?!.*(--messages|head))")


def commands(group: App, path: str = "pythpeer") -> Iterator[str]:
    """All commands, as a user types them."""
    for name in group:
        if not name.startswith("-"):
            if group[name].default_command is not None:
                yield f"{path} {name}"
            yield from commands(group[name], f"{path} {name}")


@pytest.fixture
def shell(
    configured: FakeServices,
    fork_server: ForkServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A home directory with ``pythpeer`` in PATH, and the files that the page's commands need."""
    client = f'"{sys.executable}" -I -S "{CLIENT}" "{fork_server.path}"'
    script = f'#!/bin/sh\nexec {client} "$ORDER" "$@"\n'
    for name, text in {"pythpeer": script, "fortune": "#!/bin/sh\necho a proverb\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "letter.txt").write_text("dear alice\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in (
        ".local/share/bash-completion/completions",
        ".zfunc",
        ".config/fish/completions",
    ):
        (tmp_path / folder).mkdir(parents=True)
    configured.chat.say("alice", "good morning")
    configured.mail.deliver("bob", "you have mail")
    asyncio.run(make_store(tmp_path / "bot.sqlite"))
    return tmp_path


async def make_store(path: Path) -> None:
    """Create a store without entries."""
    store = SqliteStore(path)
    await store.open()
    await store.aclose()


@pytest.mark.costly
@needs_signals
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(
    shell: Path, configured: FakeServices, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """It breaks no rule of the services. Commands that run until Ctrl-C get an option to end."""
    order = COMMAND | {"virtual_time": command.startswith("pythpeer demo")}
    monkeypatch.setenv("ORDER", json.dumps(order))
    command = command.replace("--messages 20", "--messages 1")
    if command == "pythpeer serve":  # it has no option to end
        command = f"{command} --port 0 --peerbet-port 0 --pythbots-port 0 | head -1"
    if UNBOUNDED.match(command):
        command += " --messages 1" + (" --after 0" if "tail" in command else "")
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=shell,
        capture_output=True,
        text=True,
        check=False,
    )
    errors = result.stderr
    if command.startswith("pythpeer demo") and "--json" not in command:
        heading, *_, summary = errors.splitlines()
        assert heading.startswith("pythpeer demo: ")
        assert summary.endswith("violations: 0")
        errors = ""
    assert (result.returncode, errors) == (0, "")
    assert configured.violations == []


def test_the_row_on_the_page_is_valid(configured: FakeServices, run: Run) -> None:
    """It has the fields of a row of the command, in their order."""
    configured.chat.say("alice", "good morning")
    (documented,) = re.findall(r"^\{.*\}$", PAGE, re.MULTILINE)
    (row,) = run("chat", "tail", "--after", "0", "--messages", "1", "--json").rows
    row["sent_at"] = datetime(2026, 11, 26, 8).isoformat()
    assert list(json.loads(documented).items()) == list(row.items())


@pytest.mark.parametrize("command", list(commands(app)))
def test_every_command_is_on_the_page(command: str) -> None:
    """Each command has a line in the table and an example."""
    assert f"| `{command}` |" in PAGE
    assert any(command in example for example in COMMANDS)


def test_exit_codes_are_those_of_the_help() -> None:
    """The page has each exit code of the help, with the same meaning."""
    codes = re.findall(r"^  (\d+) +(.+)$", HELP, re.MULTILINE)
    assert len(codes) == 5
    for code, meaning in codes:
        assert f"| {code} | {meaning} |" in PAGE


def test_variables_are_those_of_the_help() -> None:
    """The page has each environment variable of the help."""
    for variable in re.findall(r"PYTHPEER_\w+", HELP):
        assert f"`{variable}`" in PAGE
