"""What a response repeats of its request: keys, which no error may show, and texts. Pure.

A service can repeat a text unchanged, or escaped for a URL, JSON, JavaScript or HTML, by PHP or by
another language, once or several times. So both sides are unescaped before they are compared. It
can also repeat a part only (``substr($key, 0, 16) . '...'``).
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from ..secret import Secret

__all__ = ["GetSecrets", "GetTexts", "mask_keys", "without_texts"]

GetSecrets = Callable[[], Iterable[Secret]]
"""Returns the keys that an error must not show."""

GetTexts = Callable[[], Iterable[str]]
"""Returns the texts of a request, which must not decide what its response means."""

MIN_PART: Final = 6
"""Characters of a key from which a part of it is masked."""

MIN_WORD: Final = 12
"""The same for a part of letters only, which can be a word of the message."""

MIN_BEGINNING: Final = 20
"""Characters of a text from which its beginning counts as a repetition."""

MAX_ESCAPES: Final = 4
"""How many times a text can be escaped and is still found."""

MAX_ESCAPE_SIZE: Final = 24
"""Characters that one escaped character needs at most, also if it is escaped twice."""

_ESCAPES: Final = re.compile(
    r"(?P<html>&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});)"
    r"|(?P<percent>(?:%[0-9a-fA-F]{2})+)"
    r"|(?P<utf16>(?:\\u[0-9a-fA-F]{4})+)"
    r"|\\x(?P<hex>[0-9a-fA-F]{2})"
    r"|\\(?P<slashed>.)"
    r"|(?P<breaks>[\r\n]+)",
    re.DOTALL,
)


class _Unescaped:
    """A text, and for each of its characters where it comes from in the text as received."""

    __slots__ = ("ends", "starts", "text")

    def __init__(self, text: str, starts: list[int], ends: list[int]) -> None:
        self.text = text
        self.starts = starts
        self.ends = ends

    def unescape(self) -> _Unescaped:
        """Return the text with one level of escapes removed."""
        parts: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        done = 0
        for match in _ESCAPES.finditer(self.text):
            start, end = match.span()
            decoded = _decode(match)
            parts += (self.text[done:start], decoded)
            starts += self.starts[done:start] + [self.starts[start]] * len(decoded)
            ends += self.ends[done:start] + [self.ends[end - 1]] * len(decoded)
            done = end
        parts.append(self.text[done:])
        return _Unescaped("".join(parts), starts + self.starts[done:], ends + self.ends[done:])


def _decode(match: re.Match[str]) -> str:
    """Return what an escape stands for; line breaks, which wrap a long key, stand for nothing."""
    escape = match[0]
    match match.lastgroup:
        case "html":
            return html.unescape(escape)
        case "percent":
            return _decode_bytes(unquote_to_bytes(escape))
        case "utf16":
            units = bytes.fromhex(escape.replace("\\u", ""))
            return units.decode("utf-16-be", "replace")
        case "hex":
            return chr(int(match["hex"], 16))
        case "slashed":
            return escape[1]
        case _:
            return ""


def _decode_bytes(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _levels(text: str) -> Iterator[_Unescaped]:
    """Yield *text*, and what it is after each unescaping that changes it."""
    level = _Unescaped(text, list(range(len(text))), list(range(1, len(text) + 1)))
    for _ in range(MAX_ESCAPES):
        yield level
        unescaped = level.unescape()
        if unescaped.text == level.text:
            return
        level = unescaped
    yield level


def _normalized(text: str) -> str:
    """Return *text* of the same length without differences that escaping can make: case, ``+``."""
    return "".join(character.casefold()[:1] or character for character in text).replace("+", " ")


# -- keys -----------------------------------------------------------------------------------------


def mask_keys(text: str, secrets: GetSecrets, limit: int) -> str:
    """Return the first *limit* characters of *text* with keys, and parts of them, as ``***``.

    Only the beginning of *text* is searched, because it can have millions of characters. What is
    left of a key at its end is cut off.
    """
    try:
        return _mask_beginning(text, [secret.reveal() for secret in secrets()], limit)
    except BaseException as error:  # noqa: BLE001  # raised without the frames below
        # The frames below hold keys: an interrupt in one of them must not show it.
        raise error.with_traceback(None) from None


def _mask_beginning(text: str, keys: Sequence[str], limit: int) -> str:
    longest = max(map(len, keys), default=0)
    beginning = text[: 3 * limit + MAX_ESCAPE_SIZE * longest]
    masked = _masked(beginning, keys)
    if keys and len(beginning) < len(text):
        masked = masked[: -MIN_WORD * MAX_ESCAPE_SIZE]
    return masked[:limit]


def _masked(text: str, keys: Sequence[str]) -> str:
    if not keys:
        return text
    spans: list[tuple[int, int]] = []
    for level in _levels(text):
        normalized = _normalized(level.text)
        for key in keys:
            runs = _runs_in_common(normalized, {_normalized(form.text) for form in _levels(key)})
            spans += ((level.starts[start], level.ends[end - 1]) for start, end in runs)
    return "".join(_pieces(text, spans))


def _runs_in_common(text: str, forms: Collection[str]) -> Iterator[tuple[int, int]]:
    """Yield where *text* has something in common with the forms of a key that may not be shown."""
    size = min(MIN_PART, max(map(len, forms)))
    parts = {form[at : at + size] for form in forms for at in range(len(form) - size + 1)}
    for start, end in _runs(text, parts, size):
        run = text[start:end]
        if len(run) >= MIN_WORD or not run.isalpha() or any(form in run for form in forms):
            yield start, end


def _runs(text: str, parts: Collection[str], size: int) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each run of *text* in which every *size* characters match."""
    start = None
    for at in range(len(text) - size + 2):
        matches = text[at : at + size] in parts
        if matches and start is None:
            start = at
        elif not matches and start is not None:
            yield start, at + size - 1
            start = None


def _pieces(text: str, spans: Iterable[tuple[int, int]]) -> Iterator[str]:
    """Yield *text* with ``***`` for each span, and once for spans that overlap or touch."""
    done = 0
    for start, end in sorted(spans):
        if start > done or not done:
            yield text[done:start]
            yield "***"
        done = max(done, end)
    yield text[done:]


# -- texts ----------------------------------------------------------------------------------------


def without_texts(message: str, texts: Iterable[str]) -> str:
    """Return an error message, unescaped, with ``…`` for each of *texts* that it repeats.

    A text that is part of a word is no repetition. The end of a long text may be missing.
    """
    message = _unescaped(message)
    for text in texts:
        message = _without(message, _unescaped(text.strip()))
    return message


def _unescaped(text: str) -> str:
    *_, level = _levels(text)
    return level.text


def _without(message: str, text: str) -> str:
    if not text:
        return message
    normalized = _normalized(message)
    pieces: list[str] = []
    done = 0
    for start, end in _repetitions(normalized, _normalized(text)):
        pieces.append(message[done:start])
        done = end
    return "…".join([*pieces, message[done:]])


def _repetitions(message: str, text: str) -> Iterator[tuple[int, int]]:
    beginning = text[:MIN_BEGINNING]
    start = message.find(beginning)
    while start >= 0:
        end = start + _common_length(message[start:], text)
        is_cut = end - start < len(text)
        if not _splits_word(message, start) and (is_cut or not _splits_word(message, end)):
            yield start, end
        start = message.find(beginning, end)


def _common_length(first: str, second: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))


def _splits_word(text: str, index: int) -> bool:
    return text[index - 1 : index].isalnum() and text[index : index + 1].isalnum()
