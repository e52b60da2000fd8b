"""Checks of the Peerbet chat's responses. Pure.

Each function takes unchanged documents and returns findings. It must not raise for any
JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ..peerbet import MAX_LAST, parse_id
from ..wire.fields import to_text
from ..wire.query import Json
from .redact import NOTHING_HIDDEN, Hidden, list_fields, type_name
from .report import Finding, Status

__all__ = ["check_fields", "check_list", "check_overlap", "check_window", "ids", "items"]

DEFAULT_PAGE: Final = 50
"""Messages in a response without ``mid`` and ``last``, as documented."""

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
"""The fields of a message, with their documented types."""

REQUIRED_FIELDS: Final = frozenset({"id", "by", "msg"})
"""Fields without which a message cannot be read."""


def items(document: Json) -> list[Json]:
    """Return the messages of a page unchanged."""
    messages = document.get("message_list") if isinstance(document, dict) else None
    if isinstance(messages, dict):
        return list(messages.values())
    return messages if isinstance(messages, list) else []


def ids(document: Json) -> list[int]:
    """Return the ids of a page's messages, in their order, without invalid ones."""
    parsed = (parse_id(item.get("id")) for item in items(document) if isinstance(item, dict))
    return [id for id in parsed if id is not None]


# -- fields and types -----------------------------------------------------------------------------


def check_fields(document: Json, hidden: Hidden = NOTHING_HIDDEN) -> Iterator[Finding]:
    """Check for missing fields, unknown fields, and types other than the documented ones."""
    if not isinstance(document, dict):
        return
    messages = [item for item in items(document) if isinstance(item, dict)]
    missing = [name for name in PAGE_FIELDS if name not in document]
    absent = {name: sum(name not in message for message in messages) for name in MESSAGE_FIELDS}
    yield _check_missing(missing, absent, len(messages))
    yield _check_unknown(document, messages, hidden)
    yield _check_types(document, messages)
    not_objects = len(items(document)) - len(messages)
    unreadable = not_objects + sum(map(_is_unreadable, messages))
    if unreadable:
        yield Finding(
            "peerbet.chat.unreadable",
            Status.WARNING,
            f"{unreadable} of {len(items(document))} messages cannot be read, and would be skipped",
            "please report it, with a sample (--capture)",
        )


def _is_unreadable(message: Mapping[str, Json]) -> bool:
    no_text = any(to_text(message.get(name)) is None for name in ("by", "msg"))
    return parse_id(message.get("id")) is None or no_text


def _check_missing(top: Sequence[str], absent: Mapping[str, int], messages: int) -> Finding:
    check = "peerbet.chat.missing"
    missing = list(top)
    for name, count in absent.items():
        if count:
            missing.append(f"{name} (in {count} of {messages} messages)")
    if not missing:
        return Finding(check, Status.OK, "every documented field is present")
    severe = "message_list" in top or any(absent[name] for name in REQUIRED_FIELDS)
    return Finding(
        check,
        Status.PROBLEM if severe else Status.WARNING,
        f"documented fields are missing: {', '.join(missing)}",
        "please report it, with a sample (--capture)",
    )


def _check_unknown(
    document: Mapping[str, Json], messages: Sequence[Mapping[str, Json]], hidden: Hidden
) -> Finding:
    names = {name for name in document if name not in PAGE_FIELDS}
    names |= {name for message in messages for name in message if name not in MESSAGE_FIELDS}
    if not names:
        return Finding("peerbet.chat.unknown", Status.OK, "there is no undocumented field")
    text = f"undocumented fields, which are not read: {list_fields(names, hidden)}"
    return Finding("peerbet.chat.unknown", Status.NOTE, text)


def _check_types(document: Mapping[str, Json], messages: Sequence[Mapping[str, Json]]) -> Finding:
    check = "peerbet.chat.types"
    deviations = [
        f"{name} ({type_name(document[name])})"
        for name, documented in PAGE_FIELDS.items()
        if name in document and type_name(document[name]) not in documented
    ]
    for name, documented in MESSAGE_FIELDS.items():
        types = {type_name(message[name]) for message in messages if name in message}
        if types - documented:
            deviations.append(f"{name} ({' or '.join(sorted(types - documented))})")
    if not deviations:
        return Finding(check, Status.OK, "every field has its documented type")
    hints: list[str] = []
    if any("(digits" in deviation for deviation in deviations):
        hints.append("numbers are strings")
    if any("(boolean" in deviation for deviation in deviations):
        hints.append("bits are booleans")
    hint = f" ({', '.join(hints)})" if hints else ""
    return Finding(check, Status.NOTE, f"not as documented{hint}: {', '.join(deviations)}")


# -- the list: its form, its order, its length ----------------------------------------------------


def check_list(document: Json, last: int) -> Iterator[Finding]:
    """Check a page's form, order and length, and for repeated and missing ids.

    *last* is how many messages were requested at most.
    """
    page_ids = ids(document)
    form = document.get("message_list") if isinstance(document, dict) else None
    if isinstance(form, dict) and form:
        text = "the list is an object with numbers for keys: accepted"
        yield Finding("peerbet.chat.list", Status.NOTE, text)
    yield _check_count(len(set(page_ids)), last)
    if len(set(page_ids)) > 1:
        yield _check_order(page_ids)
        yield _check_duplicates(page_ids)
        yield _check_contiguous(page_ids)


def _check_count(count: int, last: int) -> Finding:
    check = "peerbet.chat.count"
    text = f"{count} messages where at most {last} were requested"
    if count <= last:
        return Finding(check, Status.OK, text)
    return Finding(check, Status.NOTE, f"{text}: all of them are read")


def _check_order(page_ids: Sequence[int]) -> Finding:
    check = "peerbet.chat.order"
    distinct = list(dict.fromkeys(page_ids))
    if distinct == sorted(distinct):
        return Finding(check, Status.OK, "messages are in ascending order of their ids")
    descending = distinct == sorted(distinct, reverse=True)
    order = "descending by id" if descending else "unsorted"
    return Finding(check, Status.NOTE, f"{order}: sorted here")


def _check_duplicates(page_ids: Sequence[int]) -> Finding:
    check = "peerbet.chat.repeats"
    duplicates = len(page_ids) - len(set(page_ids))
    if not duplicates:
        return Finding(check, Status.OK, "each message once in a response")
    return Finding(
        check, Status.NOTE, f"{duplicates} messages repeated in one response: delivered once"
    )


def _check_contiguous(page_ids: Sequence[int]) -> Finding:
    missing = max(page_ids) - min(page_ids) + 1 - len(set(page_ids))
    if not missing:
        return Finding("peerbet.chat.ids", Status.OK, "contiguous")
    text = f"{missing} ids missing within the page (private messages of other users?)"
    return Finding("peerbet.chat.ids", Status.NOTE, text)


# -- responses after a message id -----------------------------------------------------------------


def check_overlap(document: Json, mid: int) -> Iterator[Finding]:
    """Check a response after *mid*, the newest message: whether it repeats messages."""
    repeated = {id for id in ids(document) if id <= mid}
    check = "peerbet.chat.overlap"
    if repeated:
        which = "mid itself" if repeated == {mid} else f"{len(repeated)} messages up to mid"
        yield Finding(check, Status.NOTE, f"a response after mid repeats {which}: skipped here")
    else:
        yield Finding(check, Status.OK, "a response after mid begins after mid")
    if isinstance(document, dict) and not items(document) and "message_list" in document:
        yield _check_empty_list(document["message_list"])


def _check_empty_list(value: Json) -> Finding:
    check = "peerbet.chat.empty"
    if value == []:
        return Finding(check, Status.OK, "an empty list is []")
    form = "{}" if value == {} else type_name(value)
    return Finding(check, Status.NOTE, f"an empty list is {form}: accepted")


def check_window(document: Json, known: Sequence[int], last: int) -> Finding:
    """Check which messages a response contains if more than *last* follow ``mid``.

    *known* are the ids of an earlier page, ascending; the first of them was ``mid``.
    """
    check = "peerbet.chat.window"
    after = sorted({id for id in ids(document) if id > known[0]})
    if len(after) > last:
        text = f"{len(after)} messages where last was {last}: last has no effect after mid"
        return Finding(check, Status.NOTE, text)
    if after and after == list(known[1 : 1 + len(after)]):
        return Finding(
            check,
            Status.OK,
            "the oldest are sent if more follow than fit: no gap, however long a program was "
            "stopped",
        )
    if after and after[-1] >= known[-1]:
        return Finding(
            check,
            Status.NOTE,
            f"the newest are sent if more follow than fit: a program that is stopped for more than "
            f"{MAX_LAST} messages has a gap, which streams report",
        )
    return Finding(
        check,
        Status.WARNING,
        "the messages after mid are neither the oldest nor the newest",
        "please report it, with a sample (--capture)",
    )
