"""What PythBots' answers tell about the service, whose shapes are published nowhere. Pure.

Which field feeds which part of a model is found by trying: a value is put in its place, and the
model read again. So there is no second list of names here that could differ from the models'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ..pythbots import Mail, parse_mail, parse_staff_member, parse_stats, parse_user
from ..shapes import Fields, as_list, iter_elements
from ..wire import Json, JsonObject
from .redact import allowed_field, type_name
from .report import Finding, Status

__all__ = ["MAIL", "STAFF", "STATS", "USER", "Model", "check_list", "check_mail"]

PROBES: Final[tuple[Json, ...]] = (None, "1", "0", "2012-12-12 21:12:21", "words", {})
MAX_RECORDS: Final = 20
"""How many records of a list, and three times as many fields of each, are tried."""


@dataclass(frozen=True)
class Model:
    """How one record of an endpoint's answers is read, and which fields it can do without."""

    name: str
    read: Callable[[JsonObject], msgspec.Struct | None]
    optional: frozenset[str] = frozenset()

    def values(self, record: JsonObject) -> dict[str, object]:
        """The model's fields as read from *record*; none where it cannot be read."""
        try:
            found = self.read(record)
        except ValueError:
            found = None
        if found is None:
            return {}
        fields = msgspec.structs.asdict(found)
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
    """One record, with what each of its names feeds."""

    raw: JsonObject
    values: Mapping[str, object]
    fed_by: Mapping[str, frozenset[str]]


def _trace_fields(model: Model, document: Json) -> _Record | None:
    """Find out which name of an object feeds which field of the model."""
    if not isinstance(document, dict):
        return None
    record = _unwrapped(model, document)
    before = model.values(record)
    feeds: dict[str, frozenset[str]] = {}
    for name in list(record)[: 3 * MAX_RECORDS]:
        fed: set[str] = set()
        for probe in PROBES:
            after = model.values({**record, name: probe})
            fed |= {each for each in before if after.get(each) != before[each]}
        feeds[name] = frozenset(fed)
    return _Record(record, before, feeds)


def _unwrapped(model: Model, document: JsonObject) -> JsonObject:
    """The object itself, or the one object within it that is what the model reads."""
    inner = [value for value in document.values() if isinstance(value, dict) and value]
    if len(inner) == 1 and inner[0] != document:
        values = model.values(inner[0])
        if any(value is not None for value in values.values()) and values == model.values(document):
            return inner[0]
    return document


# -- fields and types -----------------------------------------------------------------------------


def check_object(model: Model, document: Json) -> Iterator[Finding]:
    """What the one object of an answer has, lacks and calls things."""
    if isinstance(document, dict) and _unwrapped(model, document) is not document:
        text = "the object stands one level down in another: read there"
        yield Finding(f"{model.name}.form", Status.NOTE, text)
    record = _trace_fields(model, document)
    if record is not None:
        yield from _check_records(model, [record])


def _check_records(model: Model, records: Sequence[_Record]) -> Iterator[Finding]:
    fields = list(records[0].values)
    fed = {each for record in records for names in record.fed_by.values() for each in names}
    # A staff list by rank has its ranks beside the records, and models may get a value so.
    fed |= {each for record in records for each in fields if record.values.get(each) is not None}
    missing = [each for each in fields if each not in fed]
    yield _check_missing(model, missing)
    yield _check_unknown(model, records)
    yield _check_unreadable(model, records)
    yield _check_types(model, records)


def _check_missing(model: Model, missing: Sequence[str]) -> Finding:
    check = f"{model.name}.missing"
    if not missing:
        return Finding(check, Status.OK, "every field of the model is found")
    text = f"not found under any name that is known: {', '.join(missing)} (None in the model)"
    if model.optional.issuperset(missing):
        return Finding(check, Status.NOTE, text)
    return Finding(
        check,
        Status.WARNING,
        text,
        "please report what the service calls it; until then it is in .raw",
    )


def _check_unknown(model: Model, records: Sequence[_Record]) -> Finding:
    check = f"{model.name}.unknown"
    names = {name for record in records for name in record.raw}
    names -= {name for record in records for name, fed in record.fed_by.items() if fed}
    if not names:
        return Finding(check, Status.OK, "no field that is not read")
    shown = sorted(filter(None, map(allowed_field, names)))
    hidden = len(names) - len(shown)
    listed = [*shown[:20], *([f"{hidden} whose names are not shown"] * bool(hidden))]
    text = f"fields that no model reads, to be found in .raw: {', '.join(listed)}"
    return Finding(check, Status.NOTE, text)


def _check_unreadable(model: Model, records: Sequence[_Record]) -> Finding:
    check = f"{model.name}.unreadable"
    odd = {
        f"{each} ({type_name(record.raw[name])})"
        for record in records
        for name, fed in record.fed_by.items()
        for each in fed
        if record.values.get(each) is None and not _is_empty_value(record.raw[name])
    }
    if not odd:
        return Finding(check, Status.OK, "every value can be read")
    return Finding(
        check,
        Status.WARNING,
        f"values of types that cannot be read, and are None in the model: {', '.join(sorted(odd))}",
        "please report it, with a sample (--capture); until then it is in .raw",
    )


def _check_types(model: Model, records: Sequence[_Record]) -> Finding:
    check = f"{model.name}.types"
    numbers: set[str] = set()
    bits: set[str] = set()
    for record in records:
        for name, fed in record.fed_by.items():
            values = [record.values.get(each) for each in fed]
            if any(isinstance(value, bool) for value in values):
                bits.add(type_name(record.raw[name]))
            elif any(isinstance(value, int) for value in values):
                numbers.add(type_name(record.raw[name]))
    odd: list[str] = []
    if numbers - {"integer"}:
        odd.append("numbers come as strings" if "digits" in numbers else "numbers come as words")
    if bits - {"integer", "boolean"}:
        odd.append("bits come as strings")
    if "boolean" in bits:
        odd.append("bits come as booleans")
    if not odd:
        return Finding(check, Status.OK, "numbers are numbers")
    grave = bool(numbers - {"integer"} or bits - {"integer", "boolean"})
    return Finding(check, Status.NOTE if grave else Status.OK, f"{', '.join(odd)}: read as such")


# -- lists ----------------------------------------------------------------------------------------


def check_list(model: Model, document: Json) -> Iterator[Finding]:
    """The form of a list, and the fields of what is in it."""
    yield _check_form(model, document)
    items = [item for item, _ in elements(document)]
    records = [_trace_fields(model, item) for item in items[:MAX_RECORDS]]
    known = [record for record in records if record is not None and record.values]
    if known:
        yield from _check_records(model, known)
    strange = sum(not isinstance(item, (dict, str)) for item in items)
    if strange:
        yield Finding(
            f"{model.name}.strays",
            Status.WARNING,
            f"{strange} of {len(items)} are no objects: skipped, or an error",
            "please report it, with a sample (--capture)",
        )


def elements(document: Json) -> list[tuple[Json, str]]:
    """What is in the list, wherever it stands; nothing where there is none."""
    try:
        return list(iter_elements(document))
    except ValueError:
        return []


def _check_form(model: Model, document: Json) -> Finding:
    check = f"{model.name}.form"
    parts: list[str] = []
    found = document
    if as_list(document) is None and isinstance(document, dict):
        lists = [value for value in document.values() if as_list(value) is not None]
        parts.append("one level down in an object" if len(lists) == 1 else "several, by name")
        found = next((value for value in lists if value), lists[0] if lists else [])
    if isinstance(found, dict):
        parts.insert(0, "an object with numbers for keys" if found else "an empty object")
    if not parts:
        return Finding(check, Status.OK, "a list" if document else "an empty list, as []")
    return Finding(check, Status.NOTE, f"the list is {', '.join(parts)}: read all the same")


# -- mail -----------------------------------------------------------------------------------------


def is_ambiguous_empty(document: Json) -> bool:
    """Whether what the models cannot read is a way to say that there is nothing."""
    if isinstance(document, dict):
        return any(_is_empty_value(value) for value in document.values())
    return _is_empty_value(document)


def _is_empty_value(value: Json) -> bool:
    return value is None or value is False or value == ""


def ambiguous_empty_finding(document: Json) -> Finding:
    """An empty mailbox that the models cannot tell from damage."""
    form = "null" if document is None else type_name(document)
    return Finding(
        "pythbots.mail.null",
        Status.PROBLEM,
        f"an empty mailbox comes as null or the like (the answer is {form}), where a list is due: "
        "a mail stream cannot tell it from a broken answer, and would settle for ever",
        "do not use mail_stream() or unread_mail() there with this version; please report it, with "
        "a sample (--capture)",
    )


def check_mail(document: Json) -> Iterator[Finding]:
    """What the list of all mail tells: form, fields, ids, order, and how "none" looks."""
    yield from check_list(MAIL, document)
    mails = _mails(document)
    if not mails:
        yield Finding("pythbots.mail.empty", Status.OK, "an empty mailbox can be read as one")
        return
    text = "how an empty list looks is not known: there is mail, and readnew is never asked here"
    yield Finding("pythbots.mail.empty", Status.SKIPPED, text)
    yield _check_ids(mails)
    if len(mails) > 1:
        yield _check_order(mails)


def _mails(document: Json) -> list[Mail]:
    found = (parse_mail(item, key).item for item, key in elements(document))
    return [mail for mail in found if mail is not None]


def _check_ids(mails: Sequence[Mail]) -> Finding:
    check = "pythbots.mail.ids"
    having = sum(mail.id is not None for mail in mails)
    if having == len(mails):
        distinct = len({mail.id for mail in mails}) == having
        text = "every mail has an id" + ("" if distinct else ", but some are the same")
        return Finding(check, Status.OK if distinct else Status.NOTE, text)
    return Finding(
        check,
        Status.NOTE,
        f"{len(mails) - having} of {len(mails)} mails have no id: told apart by what they say",
        "after a lost answer, mail may come twice, marked as recovered",
    )


def _check_order(mails: Sequence[Mail]) -> Finding:
    check = "pythbots.mail.order"
    order: list[object] = [mail.id for mail in mails]
    if None in order:
        order = [mail.sent_at and mail.sent_at.isoformat() for mail in mails]
    if None in order:
        return Finding(check, Status.NOTE, "without ids or dates: taken as it comes")
    keys = [f"{key:020}" if isinstance(key, int) else str(key) for key in order]
    if keys == sorted(keys):
        return Finding(check, Status.OK, "ascending")
    way = "descending" if keys == sorted(keys, reverse=True) else "in no order"
    return Finding(check, Status.NOTE, f"{way}: sorted here")


def has_unread(document: Json) -> bool:
    """Whether any mail says that it has not been read."""
    return any(mail.is_read is False for mail in _mails(document))


def check_marks_read(first: Json, second: Json) -> Finding:
    """Whether ``readall`` marks mail as read: from two answers, one right after the other."""
    check = "pythbots.mail.marks"
    mails = _mails(first)
    if all(mail.is_read is None for mail in mails):
        text = "whether readall marks mail as read cannot be seen: mail does not say"
        return Finding(check, Status.SKIPPED, text)
    before, after = _unread(mails), _unread(_mails(second))
    if not before:
        text = "whether readall marks mail as read cannot be seen: there is no unread mail"
        return Finding(check, Status.SKIPPED, text)
    if after >= before:
        return Finding(check, Status.OK, "readall leaves unread mail unread")
    return Finding(
        check,
        Status.WARNING,
        f"readall marks mail as read: {before} unread before it, {after} after it",
        'they are in "pythpeer mail all"; do not call all_mail() beside a mail stream, which does '
        "not see what it marks",
    )


def _unread(mails: Sequence[Mail]) -> int:
    return sum(mail.is_read is False for mail in mails)
