"""The course of an examination: what is asked, in which order, and what each answer decides.

Only reads are asked, each on a token of its endpoint's limiter, and nothing that fails is tried
again. What posts, sends mail or consumes (``set``, ``message=``, ``readnew``) must never be asked
here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from ..answers import NO_JSON, parse_json
from ..errors import AccessDeniedError, ApiError, RateLimitedError
from ..line import Priority
from ..peerbet import MAX_LAST
from ..secret import Secret
from ..session import Session
from ..version import version
from ..wire import FLAG, Endpoint, Json, Param, Request, check_integer, check_text
from . import bots, chat
from .network import check_connectivity
from .redact import describe_types, redact
from .report import Finding, Report, Sample, Shape, Status
from .seen import Exchange, common_findings, failure_finding

if TYPE_CHECKING:
    from ..transport import RawResponse

__all__ = ["examine"]

T = TypeVar("T")

PARAM_NAMES: Final = ("personalkey", "personal_key")
"""How the mail service may call the parameter of the personal key."""

UNKNOWN_USER: Final = "pythpeer-doctor-asks-for-nobody"
"""A user who does not exist."""

WINDOW_SIZE: Final = 2
"""How many messages are asked for behind the oldest known one, to see which of them come."""


async def examine(
    session: Session,
    *,
    user: str | int = "tiro",
    chat_id: int = 220531305,
    mail: bool = True,
    watch: Callable[[Finding], None] | None = None,
) -> Report:
    """Compare both services with what the models expect, by reading only.

    *user* and *chat_id* are who and what is looked up: those of PythBots' own documentation, unless
    told otherwise. The mailbox is read with ``readall`` only, and what is unread may be marked as
    read by that: no document says. ``mail=False`` leaves it alone. *watch* gets each finding as
    soon as there is one.

    Takes some fifteen requests at the pace of the session's limiters, half a minute at most where
    everything answers. Whatever the services answer, there is a report; it holds no key, no
    name and no text of anybody's. Raises `InvalidRequestError`, `SessionClosedError` for a session
    that is not open, and `StoreError` where the session's pacing cannot be had.
    """
    session._require_open()  # a closed session says so before anything is looked at
    check_integer("chat_id", chat_id, 1)
    if not isinstance(user, str):
        check_integer("user", user, 1)
    else:
        check_text("user", user)
    examination = _Checkup(session, watch)
    if await examination.check_connectivity("peerbet", session.peerbet.read_endpoint):
        await examination.peerbet()
        examination.finish_service("peerbet")
    if await examination.check_connectivity("pythbots", session.pythbots._user):
        await examination.pythbots(user, chat_id)
        await examination.mail(wanted=mail)
        examination.finish_service("pythbots")
    return examination.report()


class _Checkup:
    """One examination: what was found so far."""

    def __init__(self, session: Session, watch: Callable[[Finding], None] | None) -> None:
        self._session = session
        self._watch = watch
        self._findings: list[Finding] = []
        self._exchanges: list[Exchange] = []
        self._chat_key = session.peerbet._key

    def __repr__(self) -> str:
        return f"<_Examination of {self._session!r}, {len(self._findings)} findings>"

    def report(self) -> Report:
        """What was found."""
        read = [seen for seen in self._exchanges if seen.document is not NO_JSON]
        return Report(
            version(),
            tuple(self._findings),
            tuple(Shape(seen.name, describe_types(_json_of(seen))) for seen in read),
            tuple(each for seen in read if (each := _sample(seen)) is not None),
        )

    def _add(self, *findings: Finding) -> None:
        for finding in findings:
            self._findings.append(finding)
            if self._watch is not None:
                self._watch(finding)

    def _add_skipped(self, check: str, why: str, advice: str | None = None) -> None:
        self._add(Finding(check, Status.SKIPPED, why, advice))

    # -- asking -----------------------------------------------------------------------------------

    async def _ask(
        self,
        name: str,
        endpoint: Endpoint[T],
        params: Mapping[str, Param],
        headers: Mapping[str, Secret] | None = None,
    ) -> Exchange:
        """Ask once, and say what came of it."""
        caller, loop = self._session._caller, asyncio.get_running_loop()
        request = Request(endpoint, params, headers)
        replies: list[RawResponse] = []
        result: object
        started = loop.time()
        try:
            permit = await caller.acquire_permit(endpoint, Priority.CALL, caller.max_wait)
        except RateLimitedError as error:
            result = error.with_traceback(None)
        else:
            started = loop.time()
            result = await caller.attempt(request, permit, on_response=replies.append)
        seen = Exchange(name, endpoint.name, result)
        for reply in replies:
            seen = Exchange(
                name,
                endpoint.name,
                result,
                reply.status,
                reply.headers,
                reply.body,
                parse_json(reply.body),
                loop.time() - started,
                datetime.now(UTC),
            )
        self._exchanges.append(seen)
        return seen

    async def check_connectivity(self, service: str, endpoint: Endpoint[T]) -> bool:
        """Whether the service can be reached at all."""
        self._add(*await check_connectivity(service, endpoint.url, self._session._ssl_context))
        reached = self._findings[-1].status is not Status.PROBLEM
        if not reached:
            self._add_skipped(
                f"{service}.answers", "nothing was asked: the service cannot be reached"
            )
        return reached

    # -- Peerbet ----------------------------------------------------------------------------------

    async def peerbet(self) -> None:
        """The chat, without a key and with it, behind the newest and behind the oldest message."""
        endpoint = self._session.peerbet.read_endpoint
        seen = await self._ask("chat without key", endpoint, {})
        if seen.is_api_error and _is_denied(seen):
            text = f"refused, over a key{seen.error_text}: a key is documented as optional"
            advice = "set PYTHPEER_PEERBET_KEY to read the chat"
            self._add(Finding("peerbet.chat.public", Status.WARNING, text, advice))
        elif seen.error is not None:
            self._add(failure_finding("peerbet.chat.public", seen))
        else:
            many = len(set(chat.ids(_json_of(seen))))
            text = f"can be read without a key: {many} messages, {chat.DEFAULT_PAGE} are documented"
            status = Status.OK if many <= chat.DEFAULT_PAGE else Status.NOTE
            self._add(Finding("peerbet.chat.public", status, text))
        page = await self._page_with_key()
        if page is None:
            return
        found = _json_of(page)
        self._add(*chat.check_fields(found), *chat.check_list(found, MAX_LAST))
        await self._check_after(sorted(set(chat.ids(found))))

    async def _page_with_key(self) -> Exchange | None:
        """As many messages as there may be, with the key if there is one."""
        peerbet = self._session.peerbet
        check = "peerbet.key"
        params: dict[str, Param] = {"key": peerbet._key, "last": MAX_LAST}
        seen = await self._ask("chat", peerbet.read_endpoint, params)
        if peerbet._key is None:
            advice = "set PYTHPEER_PEERBET_KEY to post and to see private messages"
            self._add_skipped(check, "no key is given", advice)
        elif seen.is_api_error:
            self._add(_refused_key(check, "PYTHPEER_PEERBET_KEY", seen))
            self._chat_key = None
            seen = await self._ask("chat", peerbet.read_endpoint, {"last": MAX_LAST})
        elif seen.error is None:
            self._add(_accepted_key(check, chat.items(_json_of(seen))))
        if seen.error is not None:
            self._add(failure_finding("peerbet.chat.page", seen))
            return None
        return seen

    async def _check_after(self, known: list[int]) -> None:
        """What comes after a message id."""
        if not known:
            self._add_skipped("peerbet.chat.overlap", "there are no messages to ask behind")
            return
        newest = await self._ask_after("chat after the newest", known[-1], MAX_LAST)
        if newest.error is not None:
            self._add(failure_finding("peerbet.chat.overlap", newest))
        else:
            self._add(*chat.check_overlap(_json_of(newest), known[-1]))
        if len(known) < WINDOW_SIZE + 2:
            self._add_skipped(
                "peerbet.chat.window", "there are too few messages to see which come first"
            )
            return
        oldest = await self._ask_after("chat after the oldest", known[0], WINDOW_SIZE)
        if oldest.error is not None:
            self._add(failure_finding("peerbet.chat.window", oldest))
        else:
            self._add(chat.check_window(_json_of(oldest), known, WINDOW_SIZE))

    async def _ask_after(self, name: str, mid: int, last: int) -> Exchange:
        params: dict[str, Param] = {"key": self._chat_key, "mid": mid, "last": last}
        return await self._ask(name, self._session.peerbet.read_endpoint, params)

    # -- PythBots ---------------------------------------------------------------------------------

    async def pythbots(self, user: str | int, chat_id: int) -> None:
        """The three look-ups, and somebody who does not exist."""
        pythbots = self._session.pythbots
        asked: tuple[tuple[str, Endpoint[object], Mapping[str, Param], bots.Model], ...] = (
            ("user", pythbots._user, {"user": user}, bots.USER),
            ("staff", pythbots._staff, {"chatid": chat_id}, bots.STAFF),
            ("stats", pythbots._stats, {"chatid": chat_id}, bots.STATS),
        )
        answers: list[Exchange] = []
        for name, endpoint, params, model in asked:
            seen = await self._look_up(name, endpoint, params)
            answers.append(seen)
            if seen.error is not None:
                self._add(failure_finding(f"{model.name}.answer", seen))
                continue
            self._add(Finding(f"{model.name}.answer", Status.OK, f"{name}: can be read"))
            judge = bots.check_list if model is bots.STAFF else bots.check_object
            self._add(*judge(model, _json_of(seen)))
        self._add(_api_key(answers, given=pythbots._headers is not None))
        if answers[0].error is None:
            nobody = await self._look_up("nobody", pythbots._user, {"user": UNKNOWN_USER})
            self._add(_refusals(nobody))

    async def _look_up(
        self, name: str, endpoint: Endpoint[T], params: Mapping[str, Param]
    ) -> Exchange:
        return await self._ask(name, endpoint, params, self._session.pythbots._headers)

    # -- mail -------------------------------------------------------------------------------------

    async def mail(self, *, wanted: bool) -> None:
        """All mail, by the spelling that is accepted; once more if any is unread."""
        pythbots = self._session.pythbots
        check = "pythbots.personal-key"
        if pythbots._personal_key is None:
            self._add_skipped(check, "no key is given", "set PYTHPEER_PERSONAL_KEY to look at mail")
            return
        if not wanted:
            self._add_skipped(check, "mail was not to be looked at")
            return
        seen, spelling = await self._find_param_name()
        if seen.is_api_error:
            self._add(_refused_key(check, "PYTHPEER_PERSONAL_KEY", seen))
            return
        if _is_unread(seen) and bots.is_ambiguous_empty(_json_of(seen)):
            self._add(self._accepted(spelling), bots.ambiguous_empty_finding(_json_of(seen)))
            return
        if seen.error is not None:
            self._add(failure_finding("pythbots.mail.answer", seen))
            return
        self._add(self._accepted(spelling), *bots.check_mail(_json_of(seen)))
        await self._check_marks_read(seen, spelling)

    async def _find_param_name(self) -> tuple[Exchange, str]:
        """Ask for all mail in one spelling after the other, until one is not refused."""
        configured = self._session.pythbots._key_param
        spellings = list(dict.fromkeys((configured, *PARAM_NAMES)))
        seen, spelling = await self._all_mail("mail", configured), configured
        for other in spellings[1:]:
            if not seen.is_api_error:
                break
            last = await self._all_mail(f"mail by {other}", other)
            if not last.is_api_error and last.error is None:
                return last, other
        return seen, spelling

    async def _all_mail(self, name: str, spelling: str) -> Exchange:
        pythbots = self._session.pythbots
        params: dict[str, Param] = {spelling: pythbots._personal_key, "readall": FLAG}
        return await self._ask(name, pythbots._all, params, pythbots._headers)

    def _accepted(self, spelling: str) -> Finding:
        check = "pythbots.personal-key"
        configured = self._session.pythbots._key_param
        if spelling == configured:
            shown = spelling if spelling in PARAM_NAMES else "as it was set"
            return Finding(check, Status.OK, f"accepted; the parameter is spelled {shown}")
        return Finding(
            check,
            Status.PROBLEM,
            f"accepted only where its parameter is spelled {spelling}, which it is not here",
            f"set PYTHPEER_PERSONAL_KEY_PARAM={spelling}, or make sessions with"
            f' Session(personal_key_param="{spelling}")',
        )

    async def _check_marks_read(self, first: Exchange, spelling: str) -> None:
        if not bots.has_unread(_json_of(first)):
            found = _json_of(first)
            self._add(bots.check_marks_read(found, found))
            return
        # The first reading did whatever reading does; another one does no more.
        second = await self._all_mail("mail again", spelling)
        if second.error is not None:
            self._add(failure_finding("pythbots.mail.marks", second))
        else:
            self._add(bots.check_marks_read(_json_of(first), _json_of(second)))

    # -- in the end -------------------------------------------------------------------------------

    def finish_service(self, service: str) -> None:
        """What can be said of a service once all its answers are in."""
        answers = [seen for seen in self._exchanges if seen.endpoint.startswith(service)]
        self._add(*common_findings(service, answers))


# -- keys and refusals ----------------------------------------------------------------------------


def _refused_key(check: str, variable: str, seen: Exchange) -> Finding:
    about = "the personal key" if check.startswith("pythbots") else "the key"
    advice = f"see whether {variable} is what the service gave you"
    if check.startswith("pythbots"):
        advice += (
            '; "!link" at xat.com/pythbots gives a new one. An API key needs the right to mail'
        )
    return Finding(check, Status.PROBLEM, f"{about} is refused{seen.error_text}", advice)


def _accepted_key(check: str, messages: Iterable[Json]) -> Finding:
    mine = sum(isinstance(each, dict) and str(each.get("my")) in ("1", "True") for each in messages)
    if mine:
        text = f"accepted: its owner's messages are marked ({mine} on the page)"
    else:
        text = "not refused; no message on the page is its owner's, which would prove it accepted"
    return Finding(check, Status.OK, text)


def _api_key(answers: Iterable[Exchange], *, given: bool) -> Finding:
    check = "pythbots.api-key"
    heard = [seen for seen in answers if seen.status is not None]
    refused = [seen for seen in heard if seen.is_api_error and _is_denied(seen)]
    if not refused:
        if given:
            many = sum(seen.error is None for seen in heard)
            text = f"accepted by {many} of 3 look-ups"
            return Finding(check, Status.OK if many else Status.SKIPPED, text)
        return Finding(check, Status.OK, "none is given, and none was asked for")
    if not given:
        return Finding(
            check,
            Status.PROBLEM,
            f"none is given, and PythBots asks for one{refused[0].error_text}",
            "set PYTHPEER_PYTHBOTS_API_KEY",
        )
    if len(refused) == len(heard):
        text = f"the API key is refused{refused[0].error_text}"
        advice = "see whether PYTHPEER_PYTHBOTS_API_KEY is what the service gave you"
        return Finding(check, Status.PROBLEM, text, advice)
    names = ", ".join(seen.name for seen in refused)
    return Finding(
        check,
        Status.PROBLEM,
        f"the API key is accepted, but has no right to: {names}{refused[0].error_text}",
        "ask whoever issued it for these rights, or do without",
    )


def _is_denied(seen: Exchange) -> bool:
    return isinstance(seen.error, AccessDeniedError)


def _refusals(seen: Exchange) -> Finding:
    """How PythBots says that there is no such user."""
    check = "pythbots.refusals"
    if seen.is_api_error:
        return Finding(check, Status.OK, f"a user who does not exist is refused{seen.error_text}")
    if seen.error is not None:
        return failure_finding(check, seen)
    return Finding(
        check,
        Status.NOTE,
        "a user who does not exist is no refusal, but an answer with nothing known in it",
    )


def _is_unread(seen: Exchange) -> bool:
    """Whether there is JSON that the models could not read."""
    error = seen.error
    return error is not None and not isinstance(error, ApiError) and seen.document is not NO_JSON


# -- what is kept of the answers ------------------------------------------------------------------


def _json_of(seen: Exchange) -> Json:
    """What was read, which is nothing where nothing could be."""
    return None if seen.document is NO_JSON else seen.document


def _sample(seen: Exchange) -> Sample | None:
    refusal = isinstance(seen.error, (ApiError, RateLimitedError))
    body = redact(_json_of(seen), refusal=refusal)
    if body is None:
        return None
    name = f"refusal {seen.name}" if refusal else seen.name
    return Sample(seen.endpoint, name.replace(" ", "_"), body)
