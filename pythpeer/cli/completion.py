"""``pythpeer completion``: the script with which a shell completes commands and options."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

__all__ = ["completion"]


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell.")], /
) -> None:
    """Print the script that completes commands and options in a shell.

    bash: pythpeer completion bash > ~/.local/share/bash-completion/completions/pythpeer
    zsh: pythpeer completion zsh > a file named _pythpeer in a directory of fpath
    fish: pythpeer completion fish > ~/.config/fish/completions/pythpeer.fish
    """
    from .app import app  # late: it lists this command

    print(app.generate_completion(shell=shell).rstrip())
