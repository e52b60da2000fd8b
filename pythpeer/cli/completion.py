"""``pythpeer completion``: the script with which a shell completes commands and options."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

__all__ = ["completion"]

completion: Final = App(name="completion", help_format="plaintext")
"""Its help has commands, whose lines must stay as they are."""


@completion.default
def print_script(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell.")], /
) -> None:
    r"""Print the script that completes commands and options in a shell.

    In bash:

    pythpeer completion bash \
    > ~/.local/share/bash-completion/completions/pythpeer

    In fish:

    pythpeer completion fish \
    > ~/.config/fish/completions/pythpeer.fish

    In zsh, write it into a file named _pythpeer in a folder of
    fpath.
    """
    from .app import app  # late: it lists this command

    print(app.generate_completion(shell=shell).rstrip())
