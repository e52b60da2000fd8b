"""``pythpeer completion``: the script with which a shell completes commands and options."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

__all__ = ["add_completion"]


def add_completion(app: App) -> None:
    """Add the command ``completion`` to *app*, whose commands it completes."""

    @app.command
    def completion(
        shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell.")], /
    ) -> None:
        """Print the script that completes commands and options in a shell.

        bash: pythpeer completion bash > ~/.local/share/bash-completion/completions/pythpeer
        zsh: pythpeer completion zsh > a file named _pythpeer in a directory of fpath
        fish: pythpeer completion fish > ~/.config/fish/completions/pythpeer.fish
        """
        print(app.generate_completion(shell=shell).rstrip())
