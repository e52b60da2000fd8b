"""What pages of the Peerbet chat tell about the service. Pure.

Each function takes documents as they came, whatever is in them, and returns findings; it must not
raise for any JSON there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ..peerbet import MAX_LAST, parse_id
from ..shapes import to_text
from ..wire import Json
from .redact import allowed_field, type_name
from .report import Finding, Status

__all__ = ["check_fields", "check_list", "check_overlap", "check_window", "ids", "items"]

DEFAULT_PAGE: Final = 50
"""How many messages come without ``mid`` and ``last``, as documented."""

PAGE_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "status": frozenset({"integer"}),
    "users_online": frozenset({"integer"}),
    "message_list": frozenset({"list"}),
}
_TEXT: Final = frozenset({"text", "digits", "date"})
_BIT: Final = frozenset({"integer"})
MESSAGE_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "id": frozenset({"integer"}),
    "by": _TEXT,
    "to": _TEXT,
    "msg": _TEXT,
    "date": frozenset({"date"}),
    "bot": _BIT,
    "my": _BIT,
    "me": _BIT,
}
"""The fields of a message, and the types they are documented with."""

REQUIRED_FIELDS: Final = frozenset({"id", "by", "msg"})
"""Without these a message cannot be read."""


def items(document: Json) -> list[Json]:
    """The messages of a page, as they came."""
    found = document.get("message_list") if isinstance(document, dict) else None
    if isinstance(found, dict):
        return list(found.values())
    return found if isinstance(found, list) else []


def ids(document: Json) -> list[int]:
    """The ids of a page's messages, in their order; none that could not be asked behind."""
    found = (parse_id(item.get("id")) for item in items(document) if isinstance(item, dict))
    return [id for id in found if id is not None]


# -- fields and types -----------------------------------------------------------------------------


def check_fields(document: Json) -> Iterator[Finding]:
    """Fields that are missing, that are not known, and types that are not the documented ones."""
    if not isinstance(document, dict):
        return
    messages = [item for item in items(document) if isinstance(item, dict)]
    missing = [name for name in PAGE_FIELDS if name not in document]
    # Of a message too: what one has, all should have.
    absent = {name: sum(name not in each for each in messages) for name in MESSAGE_FIELDS}
    yield _check_missing(missing, absent, len(messages))
    yield _check_unknown(document, messages)
    yield _check_types(document, messages)
    strays = len(items(document)) - len(messages)
    unread = strays + sum(_is_unreadable(each) for each in messages)
    if unread:
        yield Finding(
            "peerbet.chat.unreadable",
            Status.WARNING,
            f"{unread} of {len(items(document))} messages cannot be read, and would be skipped",
            "please report it, with a sample (--capture)",
        )


def _is_unreadable(message: Mapping[str, Json]) -> bool:
    no_text = any(to_text(message.get(name)) is None for name in ("by", "msg"))
    return parse_id(message.get("id")) is None or no_text


def _check_missing(top: Sequence[str], absent: Mapping[str, int], many: int) -> Finding:
    check = "peerbet.chat.missing"
    gone = [
        *top,
        *(f"{name} (in {times} of {many} messages)" for name, times in absent.items() if times),
    ]
    if not gone:
        return Finding(check, Status.OK, "every documented field is there")
    grave = "message_list" in top or any(absent[name] for name in REQUIRED_FIELDS)
    return Finding(
        check,
        Status.PROBLEM if grave else Status.WARNING,
        f"documented fields are missing: {', '.join(gone)}",
        "please report it, with a sample (--capture)",
    )


def _check_unknown(document: Mapping[str, Json], messages: Sequence[Mapping[str, Json]]) -> Finding:
    names = {name for name in document if name not in PAGE_FIELDS}
    names |= {name for each in messages for name in each if name not in MESSAGE_FIELDS}
    if not names:
        return Finding("peerbet.chat.unknown", Status.OK, "no field that is not documented")
    shown = sorted(filter(None, map(allowed_field, names)))
    hidden = len(names) - len(shown)
    listed = ", ".join([*shown[:20], *([f"{hidden} whose names are not shown"] * bool(hidden))])
    text = f"fields that are not documented, and are not read: {listed}"
    return Finding("peerbet.chat.unknown", Status.NOTE, text)


def _check_types(document: Mapping[str, Json], messages: Sequence[Mapping[str, Json]]) -> Finding:
    check = "peerbet.chat.types"
    odd = [
        f"{name} ({type_name(document[name])})"
        for name, documented in PAGE_FIELDS.items()
        if name in document and type_name(document[name]) not in documented
    ]
    for name, documented in MESSAGE_FIELDS.items():
        found = {type_name(each[name]) for each in messages if name in each} - documented
        if found:
            odd.append(f"{name} ({' or '.join(sorted(found))})")
    if not odd:
        return Finding(check, Status.OK, "as documented")
    hints: list[str] = []
    if any("(digits" in each for each in odd):
        hints.append("numbers come as strings")
    if any("(boolean" in each for each in odd):
        hints.append("bits come as booleans")
    hint = f" ({', '.join(hints)})" if hints else ""
    return Finding(check, Status.NOTE, f"otherwise than documented{hint}: {', '.join(odd)}")


# -- the list: its form, its order, its length ----------------------------------------------------


def check_list(document: Json, asked: int) -> Iterator[Finding]:
    """The order of a page, its length, ids that come twice and ids that are left out."""
    found = ids(document)
    form = document.get("message_list") if isinstance(document, dict) else None
    if isinstance(form, dict) and form:
        text = "an object with numbers for keys in the place of a list: read as one"
        yield Finding("peerbet.chat.list", Status.NOTE, text)
    yield _check_count(len(set(found)), asked)
    if len(set(found)) > 1:
        yield _check_order(found)
        yield _check_duplicates(found)
        yield _check_contiguous(found)


def _check_count(many: int, asked: int) -> Finding:
    check = "peerbet.chat.count"
    text = f"{many} messages where at most {asked} were asked for"
    if many <= asked:
        return Finding(check, Status.OK, text)
    return Finding(check, Status.NOTE, f"{text}: all of them are read")


def _check_order(found: Sequence[int]) -> Finding:
    check = "peerbet.chat.order"
    once = list(dict.fromkeys(found))
    if once == sorted(once):
        return Finding(check, Status.OK, "ascending by id")
    way = "descending by id" if once == sorted(once, reverse=True) else "in no order"
    return Finding(check, Status.NOTE, f"{way}: sorted here")


def _check_duplicates(found: Sequence[int]) -> Finding:
    check = "peerbet.chat.repeats"
    more = len(found) - len(set(found))
    if not more:
        return Finding(check, Status.OK, "each message once in an answer")
    return Finding(check, Status.NOTE, f"{more} messages repeated in one answer: taken once")


def _check_contiguous(found: Sequence[int]) -> Finding:
    holes = max(found) - min(found) + 1 - len(set(found))
    if not holes:
        return Finding("peerbet.chat.ids", Status.OK, "contiguous")
    text = f"{holes} ids left out within the page (private messages of others?)"
    return Finding("peerbet.chat.ids", Status.NOTE, text)


# -- what comes after a message id ----------------------------------------------------------------


def check_overlap(document: Json, mid: int) -> Iterator[Finding]:
    """What comes after the newest message: nothing, or *mid* and what is before it once more."""
    again = {id for id in ids(document) if id <= mid}
    check = "peerbet.chat.overlap"
    if again:
        which = "mid itself" if again == {mid} else f"{len(again)} messages up to mid"
        yield Finding(check, Status.NOTE, f"an answer after mid has {which} again: left out here")
    else:
        yield Finding(check, Status.OK, "an answer after mid begins behind mid")
    if isinstance(document, dict) and not items(document) and "message_list" in document:
        yield _check_empty_list(document["message_list"])


def _check_empty_list(found: Json) -> Finding:
    check = "peerbet.chat.empty"
    if found == []:
        return Finding(check, Status.OK, "an empty list is []")
    form = "null" if found is None else "{}" if found == {} else type_name(found)
    return Finding(check, Status.NOTE, f"an empty list is {form}: read as one")


def check_window(document: Json, known: Sequence[int], last: int) -> Finding:
    """Which messages come where more came after ``mid`` than were asked for.

    *known* are the ids of an earlier page, ascending; the first of them was ``mid``.
    """
    check = "peerbet.chat.window"
    after = sorted({id for id in ids(document) if id > known[0]})
    if len(after) > last:
        text = f"{len(after)} messages came where last was {last}: last does not count after mid"
        return Finding(check, Status.NOTE, text)
    if after and after == list(known[1 : 1 + len(after)]):
        return Finding(
            check,
            Status.OK,
            "the oldest come first where there are more than fit: no gap, however long a program "
            "was away",
        )
    if after and after[-1] >= known[-1]:
        return Finding(
            check,
            Status.NOTE,
            f"the newest come where there are more than fit: who is away for more than {MAX_LAST} "
            "messages has a gap, which streams report",
        )
    return Finding(
        check,
        Status.WARNING,
        "what comes after mid is neither the oldest nor the newest",
        "please report it, with a sample (--capture)",
    )
