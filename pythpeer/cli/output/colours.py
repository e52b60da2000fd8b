"""The colours of the command line: the style of each kind of text, by the terminal. Pure.

No information is shown by colour only, and every colour is readable on dark and light backgrounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from zlib import crc32

from rich.theme import Theme

__all__ = ["THEME_16", "THEME_256", "sender_style"]

HUES: Final = (167, 166, 64, 136, 33, 29, 99, 131, 198, 31, 169, 133, 30)
"""Colours of a 256-colour terminal, of many hues, neither very dark nor very light."""

ANSI: Final = ("red", "green", "blue", "magenta", "cyan")
"""Colours of a 16-colour terminal, whose user defines how they look."""

SENDERS: Final = len(HUES)


def sender_style(name: str) -> str:
    """Return the style of a sender: the same in every program and run, and in any case."""
    return f"sender.{crc32(name.casefold().encode('utf-8', 'replace')) % SENDERS}"


def _theme(senders: Sequence[str], *, private: str, bot: str, mail: str, gap: str) -> Theme:
    styles = {f"sender.{at}": f"bold {senders[at % len(senders)]}" for at in range(SENDERS)}
    kinds = {"private": f"bold {private}", "bot": bot, "mail": f"bold {mail}", "gap": f"bold {gap}"}
    return Theme({**styles, **kinds, "bar": bot})


THEME_256: Final = _theme(
    [f"color({hue})" for hue in HUES],
    private="color(134)",
    bot="color(31)",
    mail="color(136)",
    gap="color(167)",
)
"""For terminals of 256 colours and more."""

THEME_16: Final = _theme(ANSI, private="magenta", bot="cyan", mail="blue", gap="red")
"""For terminals of 16 colours."""
