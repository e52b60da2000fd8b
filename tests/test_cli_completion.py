"""``pythpeer completion``: the scripts are valid, and contain every command and option."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from cli_runner import Run

pytest_plugins = ("cli_runner",)
pytestmark = pytest.mark.usefixtures("environment")

WORDS = ("demo", "chat", "tail", "post", "mail", "watch", "send", "all", "user", "staff", "stats")
OPTIONS = ("after", "name", "messages", "store", "json", "bot", "confirm", "seed")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_knows_every_command(run: Run, shell: str) -> None:
    """It contains every option that has a name, too."""
    result = run("completion", shell)
    assert (result.code, result.err) == (0, "")
    for word in (*WORDS, *OPTIONS, "completion"):
        assert word in result.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_its_shell_accepts_it(run: Run, shell: str) -> None:
    """Shells that are not installed are skipped."""
    script = run("completion", shell).out
    shell_path = shutil.which(shell)
    if shell_path is not None:
        done = subprocess.run(
            [shell_path, "-n"], input=script, text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def complete(script: str, *words: str) -> set[str]:
    """Return what bash proposes for the last of *words*."""
    asked = " ".join(f"'{word}'" for word in words)
    program = f"""{script}
COMP_WORDS=({asked}); COMP_CWORD={len(words) - 1}; COMP_LINE="${{COMP_WORDS[*]}}"
COMP_POINT=${{#COMP_LINE}}
_pythpeer
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", program], text=True, capture_output=True, check=True)
    assert done.stderr == ""
    return {line.strip() for line in done.stdout.splitlines()} - {""}


def test_bash_completes(run: Run) -> None:
    """Commands first, then those below them, then options."""
    script = run("completion", "bash").out
    assert complete(script, "pythpeer", "st") == {"staff", "stats"}
    assert {"tail", "post"} <= complete(script, "pythpeer", "chat", "")
    assert "--confirm" in complete(script, "pythpeer", "chat", "post", "--c")


def test_another_shell_is_wrong_usage(run: Run) -> None:
    """The line names the supported ones."""
    result = run("completion", "tcsh")
    assert result.code == 2
    assert "fish" in result.err
