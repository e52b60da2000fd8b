"""Checks of PythBots' responses, whose fields are undocumented. Pure.

Which raw field a field of a model is read from is found by trying: a value is put into the raw
field, and the model is read again. So there is no second list of names that could differ from the
models'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec

from ..pythbots import Mail, parse_mail, parse_staff_member, parse_stats, parse_user
from ..wire.fields import Fields, as_list, iter_elements
from ..wire.query import Json, JsonObject
from .redact import NOTHING_HIDDEN, Hidden, list_fields, type_name
from .report import Finding, Status

__all__ = ["MAIL", "STAFF", "STATS", "USER", "Model", "check_list", "check_mail"]

PROBES: Final[tuple[Json, ...]] = (None, "1", "0", "2012-12-12 21:12:21", "words", {})
"""The values that are put into each raw field."""

MAX_RECORDS: Final = 20
"""How many records of a list are tried."""

MAX_FIELDS: Final = 60
"""How many fields of each record are tried."""


@dataclass(frozen=True)
class Model:
    """How one record of an endpoint is read, and which fields of the model are optional."""

    name: str
    """The name of the endpoint."""
    read: Callable[[JsonObject], msgspec.Struct | None]
    """Reads one record; returns ``None`` or raises for one that cannot be read."""
    optional: frozenset[str] = frozenset()
    """The fields that may be missing."""

    def values(self, record: JsonObject) -> dict[str, object]:
        """Return the model's fields as read from *record*; empty if it cannot be read."""
        try:
            item = self.read(record)
        except ValueError:
            item = None
        if item is None:
            return {}
        fields = msgspec.structs.asdict(item)
        return {name: value for name, value in fields.items() if name not in ("raw", "recovered")}


USER: Final = Model("pythbots.userinfo", lambda record: parse_user(Fields(record)))
STATS: Final = Model("pythbots.cstats", lambda record: parse_stats(Fields(record)))
STAFF: Final = Model("pythbots.crank", lambda record: parse_staff_member(record, ""))
MAIL: Final = Model(
    "pythbots.mail",
    lambda record: parse_mail(record, "").item,
    frozenset({"id", "sender_id", "is_read"}),
)


@dataclass(frozen=True)
class _Record:
    """One record: its raw fields, the model's fields, and which of the latter each raw one sets."""

    raw: JsonObject
    values: Mapping[str, object]
    sets: Mapping[str, frozenset[str]]


def _trace_fields(model: Model, document: Json) -> _Record | None:
    """Return an object as a record: which raw field sets which field of the model."""
    if not isinstance(document, dict):
        return None
    record = _unwrapped(model, document)
    # Of a large object only these fields are copied and read for each probe.
    tried = {name: record[name] for name in islice(record, MAX_FIELDS)}
    sets = {name: _fields_set_by(model, tried, name) for name in tried}
    return _Record(record, model.values(record), sets)


def _fields_set_by(model: Model, record: JsonObject, name: str) -> frozenset[str]:
    """Return the fields of the model that change with the raw field *name*."""
    values = model.values(record)
    changed: set[str] = set()
    for probe in PROBES:
        probed = model.values({**record, name: probe})
        changed |= {field for field in values if probed.get(field) != values[field]}
    return frozenset(changed)


def _unwrapped(model: Model, document: JsonObject) -> JsonObject:
    """Return the object itself, or the only object within it if the model reads that one."""
    inner = [value for value in document.values() if isinstance(value, dict) and value]
    if len(inner) == 1 and inner[0] != document:
        values = model.values(inner[0])
        if any(value is not None for value in values.values()) and values == model.values(document):
            return inner[0]
    return document


# -- fields and types -----------------------------------------------------------------------------


def check_object(
    model: Model, document: Json, hidden: Hidden = NOTHING_HIDDEN
) -> Iterator[Finding]:
    """Check a response that is one object: its form and its fields."""
    if isinstance(document, dict) and _unwrapped(model, document) is not document:
        text = "the object is inside another object: accepted"
        yield Finding(f"{model.name}.form", Status.NOTE, text)
    record = _trace_fields(model, document)
    if record is not None:
        yield from _check_records(model, [record], hidden)


def _check_records(model: Model, records: Sequence[_Record], hidden: Hidden) -> Iterator[Finding]:
    fields = list(records[0].values)
    filled = {field for record in records for names in record.sets.values() for field in names}
    # A staff list by rank has its ranks outside the records, and models have a value from there.
    for record in records:
        filled |= {field for field in fields if record.values.get(field) is not None}
    missing = [field for field in fields if field not in filled]
    yield _check_missing(model, missing)
    yield _check_unknown(model, records, hidden)
    yield _check_unreadable(model, records)
    yield _check_types(model, records)


def _check_missing(model: Model, missing: Sequence[str]) -> Finding:
    check = f"{model.name}.missing"
    if not missing:
        return Finding(check, Status.OK, "every field of the model has a value")
    text = f"not found under any known name: {', '.join(missing)} (None in the model)"
    if model.optional.issuperset(missing):
        return Finding(check, Status.NOTE, text)
    return Finding(
        check,
        Status.WARNING,
        text,
        "please report the service's name for it; until then it is in .raw",
    )


def _check_unknown(model: Model, records: Sequence[_Record], hidden: Hidden) -> Finding:
    check = f"{model.name}.unknown"
    names = {name for record in records for name in record.raw}
    names -= {name for record in records for name, fields in record.sets.items() if fields}
    if not names:
        return Finding(check, Status.OK, "every field is read")
    text = f"fields that no model reads, available in .raw: {list_fields(names, hidden)}"
    return Finding(check, Status.NOTE, text)


def _check_unreadable(model: Model, records: Sequence[_Record]) -> Finding:
    check = f"{model.name}.unreadable"
    unreadable = {
        f"{field} ({type_name(record.raw[name])})"
        for record in records
        for name, fields in record.sets.items()
        for field in fields
        if record.values.get(field) is None and not _is_empty_value(record.raw[name])
    }
    if not unreadable:
        return Finding(check, Status.OK, "every value can be read")
    return Finding(
        check,
        Status.WARNING,
        f"values of types that cannot be read, None in the model: {', '.join(sorted(unreadable))}",
        "please report it, with a sample (--capture); until then it is in .raw",
    )


def _check_types(model: Model, records: Sequence[_Record]) -> Finding:
    check = f"{model.name}.types"
    numbers: set[str] = set()
    bits: set[str] = set()
    for record in records:
        for name, fields in record.sets.items():
            values = [record.values.get(field) for field in fields]
            if any(isinstance(value, bool) for value in values):
                bits.add(type_name(record.raw[name]))
            elif any(isinstance(value, int) for value in values):
                numbers.add(type_name(record.raw[name]))
    deviations: list[str] = []
    if numbers - {"integer"}:
        deviations.append("numbers are strings" if "digits" in numbers else "numbers are words")
    if bits - {"integer", "boolean"}:
        deviations.append("bits are strings")
    if "boolean" in bits:
        deviations.append("bits are booleans")
    if not deviations:
        return Finding(check, Status.OK, "numbers are sent as numbers, not as text")
    are_strings = bool(numbers - {"integer"} or bits - {"integer", "boolean"})
    status = Status.NOTE if are_strings else Status.OK
    return Finding(check, status, f"{', '.join(deviations)}: accepted")


# -- lists ----------------------------------------------------------------------------------------


def check_list(model: Model, document: Json, hidden: Hidden = NOTHING_HIDDEN) -> Iterator[Finding]:
    """Check a response that is a list: its form, and the fields of its records."""
    yield _check_form(model, document)
    items = [item for item, _ in elements(document)]
    records = [_trace_fields(model, item) for item in items[:MAX_RECORDS]]
    readable = [record for record in records if record is not None and record.values]
    if readable:
        yield from _check_records(model, readable, hidden)
    others = sum(not isinstance(item, (dict, str)) for item in items)
    if others:
        yield Finding(
            f"{model.name}.strays",
            Status.WARNING,
            f"{others} of {len(items)} are not objects: skipped, or an error",
            "please report it, with a sample (--capture)",
        )


def elements(document: Json) -> list[tuple[Json, str]]:
    """Return the elements of a list, in each form that is accepted; none if there is no list."""
    try:
        return list(iter_elements(document))
    except ValueError:
        return []


def _check_form(model: Model, document: Json) -> Finding:
    check = f"{model.name}.form"
    parts: list[str] = []
    content = document
    if as_list(document) is None and isinstance(document, dict):
        lists = [value for value in document.values() if as_list(value) is not None]
        parts.append("inside an object" if len(lists) == 1 else "several lists, by name")
        empty: Json = lists[0] if lists else []
        content = next((value for value in lists if value), empty)
    if isinstance(content, dict):
        parts.insert(0, "an object with numbers for keys" if content else "an empty object")
    if not parts:
        return Finding(
            check,
            Status.OK,
            "the response is a list" if document else "the response is an empty list",
        )
    return Finding(check, Status.NOTE, f"the list is {', '.join(parts)}: accepted")


# -- mail -----------------------------------------------------------------------------------------


def is_ambiguous_empty(document: Json) -> bool:
    """Return whether a document that the models cannot read may mean that there is no mail."""
    if isinstance(document, dict):
        return any(_is_empty_value(value) for value in document.values())
    return _is_empty_value(document)


def _is_empty_value(value: Json) -> bool:
    return value is None or value is False or value == ""


def ambiguous_empty_finding(document: Json) -> Finding:
    """Return the finding for an empty mailbox that looks like a damaged response."""
    form = "null" if document is None else type_name(document)
    return Finding(
        "pythbots.mail.null",
        Status.PROBLEM,
        f"an empty mailbox is null or similar (the response is {form}) where a list is required: "
        "a mail stream treats it as damaged, and would recover lost mail indefinitely",
        "do not use mail_stream() or unread_mail() there with this version; please report it, with "
        "a sample (--capture)",
    )


def check_mail(document: Json, hidden: Hidden = NOTHING_HIDDEN) -> Iterator[Finding]:
    """Check the list of all mail: form, fields, ids, order, and how an empty list looks."""
    yield from check_list(MAIL, document, hidden)
    mails = _mails(document)
    if not mails:
        yield Finding("pythbots.mail.empty", Status.OK, "an empty mailbox can be read")
        return
    text = "not checked: the form of an empty mailbox, because there is mail"
    yield Finding("pythbots.mail.empty", Status.SKIPPED, text)
    yield _check_ids(mails)
    if len(mails) > 1:
        yield _check_order(mails)


def _mails(document: Json) -> list[Mail]:
    mails = (parse_mail(item, key).item for item, key in elements(document))
    return [mail for mail in mails if mail is not None]


def _check_ids(mails: Sequence[Mail]) -> Finding:
    check = "pythbots.mail.ids"
    with_id = sum(mail.id is not None for mail in mails)
    if with_id == len(mails):
        distinct = len({mail.id for mail in mails}) == with_id
        text = "every mail has an id" + ("" if distinct else ", but some are equal")
        return Finding(check, Status.OK if distinct else Status.NOTE, text)
    return Finding(
        check,
        Status.NOTE,
        f"{len(mails) - with_id} of {len(mails)} mails have no id: identified by their contents",
        "after a lost response, mail may be delivered twice, marked as recovered",
    )


def _check_order(mails: Sequence[Mail]) -> Finding:
    check = "pythbots.mail.order"
    order: list[object] = [mail.id for mail in mails]
    if None in order:
        order = [mail.sent_at and mail.sent_at.isoformat() for mail in mails]
    if None in order:
        return Finding(check, Status.NOTE, "without ids or dates: not sorted")
    keys = [f"{key:020}" if isinstance(key, int) else str(key) for key in order]
    if keys == sorted(keys):
        return Finding(check, Status.OK, "mails are in ascending order")
    order_found = "descending" if keys == sorted(keys, reverse=True) else "unsorted"
    return Finding(check, Status.NOTE, f"{order_found}: sorted here")


def has_unread(document: Json) -> bool:
    """Return whether any mail is marked as unread."""
    return any(mail.is_read is False for mail in _mails(document))


def check_marks_read(first: Json, second: Json) -> Finding:
    """Check whether ``readall`` marks mail as read, by two responses in succession."""
    check = "pythbots.mail.marks"
    mails = _mails(first)
    if all(mail.is_read is None for mail in mails):
        text = "whether readall marks mail as read is unknown: mail has no mark"
        return Finding(check, Status.SKIPPED, text)
    before, after = _unread(mails), _unread(_mails(second))
    if not before:
        text = "whether readall marks mail as read is unknown: there is no unread mail"
        return Finding(check, Status.SKIPPED, text)
    if after >= before:
        return Finding(check, Status.OK, "readall leaves unread mail unread")
    return Finding(
        check,
        Status.WARNING,
        f"readall marks mail as read: {before} unread before it, {after} after it",
        'they are in "pythpeer mail all"; do not call all_mail() during a mail stream, which '
        "misses what it marks",
    )


def _unread(mails: Sequence[Mail]) -> int:
    return sum(mail.is_read is False for mail in mails)
