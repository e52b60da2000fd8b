"""The examination: what is requested, in which order, and what follows from each response.

Only reads are requested, each with a token of its endpoint's limiter, and no failure is retried.
Whatever posts, sends mail or is a destructive read (``set``, ``message=``, ``readnew``) must never
be requested here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from ..errors import AccessDeniedError, ApiError, RateLimitedError
from ..misuse import tolerant_repr
from ..pacing.queue import Priority
from ..peerbet import MAX_LAST
from ..secret import Secret
from ..session import Diagnostics, Session
from ..validation import check_integer, check_text
from ..version import __version__
from ..wire.endpoints import Endpoint
from ..wire.fields import to_bool
from ..wire.lenient_json import NO_JSON, parse_json
from ..wire.query import FLAG, Json, Param
from ..wire.request import Request
from . import peerbet as chat
from . import pythbots as bots
from .exchange import Exchange, common_findings, failure_finding
from .network import check_connectivity
from .redact import Hidden, describe_types, redact
from .report import Finding, Report, Sample, Shape, Status

if TYPE_CHECKING:
    from ..transport import RawResponse

__all__ = ["examine"]

T = TypeVar("T")

PARAM_NAMES: Final = ("personal_key", "personalkey")
"""Possible names of the parameter of the personal key."""

UNKNOWN_USER: Final = "pythpeer-doctor-asks-for-nobody"
"""A user who does not exist."""

WINDOW_SIZE: Final = 2
"""How many messages are requested after the oldest known one, to see which are returned."""


async def examine(
    session: Session,
    *,
    user: str | int = "tiro",
    chat_id: int = 220531305,
    mail: bool = True,
    watch: Callable[[Finding], None] | None = None,
) -> Report:
    """Compare both services with what the models expect, by reading only.

    It makes some fifteen requests at the rates of the session's limiters, which takes half a minute
    at most if everything responds. Whatever the services respond, there is a report; it contains no
    key, no name and no text of any user.

    Args:
        session: An open session, whose keys are used.
        user: The user to look up, by name or id; by default the one in PythBots' documentation.
        chat_id: The chat to look up; by default the one in PythBots' documentation.
        mail: Whether to read the mailbox, with ``readall``. Whether that marks unread mail as read
            is undocumented.
        watch: Called with each finding as soon as it exists.

    Raises:
        InvalidRequestError: An argument is invalid.
        SessionClosedError: The session is not open.
        StoreError: The session's pacing backend failed.
    """
    diagnostics = session._diagnostics()  # noqa: SLF001  # no part of the public face
    check_integer("chat_id", chat_id, 1)
    if not isinstance(user, str):
        check_integer("user", user, 1)
    else:
        check_text("user", user)
    examination = _Checkup(diagnostics, watch, [user] if isinstance(user, str) else [])
    if await examination.check_connectivity("peerbet", diagnostics.chat_endpoint):
        await examination.peerbet()
        examination.finish_service("peerbet")
    if await examination.check_connectivity("pythbots", diagnostics.user_endpoint):
        await examination.pythbots(user, chat_id)
        await examination.mail(wanted=mail)
        examination.finish_service("pythbots")
    return examination.report()


class _Checkup:
    """One examination and its state.

    Each check appends findings, and each request an exchange; nothing is ever removed.
    """

    def __init__(
        self,
        diagnostics: Diagnostics,
        watch: Callable[[Finding], None] | None,
        texts: Collection[str],
    ) -> None:
        self._diagnostics = diagnostics
        """The parts of the session that send requests; never changed."""
        self._watch = watch
        """Called with each finding; ``None`` if findings are only reported at the end."""
        self._findings: list[Finding] = []
        """The findings so far, in the order of the checks; `_add` appends to them."""

        self._exchanges: list[Exchange] = []
        """The requests so far with their responses; `_ask` appends to them."""

        self._chat_key = diagnostics.keys.peerbet
        """The key of Peerbet; ``None`` without one, and after the service has rejected it."""

        keys = diagnostics.keys
        given = [key for key in (keys.peerbet, keys.personal, keys.pythbots_api) if key]
        self._hidden = Hidden(given, texts)
        """The keys, and the texts of requests, which are not shown; never changed."""

    @tolerant_repr
    def __repr__(self) -> str:
        return f"<_Checkup, {len(self._findings)} findings>"

    def report(self) -> Report:
        """Return the report of all checks so far."""
        read = [seen for seen in self._exchanges if seen.document is not NO_JSON]
        return Report(
            __version__,
            tuple(self._findings),
            tuple(Shape(seen.name, describe_types(_json_of(seen), self._hidden)) for seen in read),
            tuple(sample for sample in map(_sample, read) if sample is not None),
        )

    def _add(self, *findings: Finding) -> None:
        for finding in findings:
            self._findings.append(finding)
            if self._watch is not None:
                self._watch(finding)

    def _add_skipped(self, check: str, reason: str, advice: str | None = None) -> None:
        self._add(Finding(check, Status.SKIPPED, reason, advice))

    # -- requests ---------------------------------------------------------------------------------

    async def _ask(
        self,
        name: str,
        endpoint: Endpoint[T],
        params: Mapping[str, Param],
        headers: Mapping[str, Secret] | None = None,
    ) -> Exchange:
        """Make one request, and return it with its response."""
        caller, loop = self._diagnostics.caller, asyncio.get_running_loop()
        request = Request(endpoint, params, headers)
        responses: list[RawResponse] = []
        result: object
        started = loop.time()
        try:
            permit = await caller.acquire_permit(endpoint, Priority.CALL, caller.max_wait)
        except RateLimitedError as error:
            result = error.with_traceback(None)
        else:
            started = loop.time()
            result = await caller.try_once(request, permit, on_response=responses.append)
        seen = Exchange(name, endpoint.name, result, hidden=self._hidden)
        for response in responses:
            seen = Exchange(
                name,
                endpoint.name,
                result,
                response.status,
                response.headers,
                response.body,
                parse_json(response.body),
                loop.time() - started,
                datetime.now(UTC),
                self._hidden,
            )
        self._exchanges.append(seen)
        return seen

    async def check_connectivity(self, service: str, endpoint: Endpoint[T]) -> bool:
        """Check the connection to a service, and return whether it can be reached."""
        self._add(*await check_connectivity(service, endpoint.url, self._diagnostics.ssl_context))
        reached = self._findings[-1].status is not Status.PROBLEM
        if not reached:
            self._add_skipped(
                f"{service}.answers", "nothing was requested: the service cannot be reached"
            )
        return reached

    # -- Peerbet ----------------------------------------------------------------------------------

    async def peerbet(self) -> None:
        """Check the chat: without a key, with it, after the newest and after the oldest message."""
        endpoint = self._diagnostics.chat_endpoint
        seen = await self._ask("chat without key", endpoint, {})
        if seen.is_api_error and _is_denied(seen):
            text = f"access denied{seen.error_text}: a key is documented as optional"
            advice = "set PYTHPEER_PEERBET_KEY to read the chat"
            self._add(Finding("peerbet.chat.public", Status.WARNING, text, advice))
        elif seen.error is not None:
            self._add(failure_finding("peerbet.chat.public", seen))
        else:
            count = len(set(chat.ids(_json_of(seen))))
            text = (
                f"can be read without a key: {count} messages, {chat.DEFAULT_PAGE} are documented"
            )
            status = Status.OK if count <= chat.DEFAULT_PAGE else Status.NOTE
            self._add(Finding("peerbet.chat.public", status, text))
        page = await self._page_with_key()
        if page is None:
            return
        document = _json_of(page)
        self._add(*chat.check_fields(document, self._hidden), *chat.check_list(document, MAX_LAST))
        await self._check_after(sorted(set(chat.ids(document))))

    async def _page_with_key(self) -> Exchange | None:
        """Request as many messages as possible, with the key if there is one."""
        endpoint, key = self._diagnostics.chat_endpoint, self._diagnostics.keys.peerbet
        check = "peerbet.key"
        params: dict[str, Param] = {"key": key, "last": MAX_LAST}
        seen = await self._ask("chat", endpoint, params)
        if key is None:
            advice = "set PYTHPEER_PEERBET_KEY to post and to see private messages"
            self._add_skipped(check, "no key is given", advice)
        elif seen.is_api_error:
            self._add(_refused_key(check, "PYTHPEER_PEERBET_KEY", seen))
            self._chat_key = None
            seen = await self._ask("chat", endpoint, {"last": MAX_LAST})
        elif seen.error is None:
            self._add(_accepted_key(check, chat.items(_json_of(seen))))
        if seen.error is not None:
            self._add(failure_finding("peerbet.chat.page", seen))
            return None
        return seen

    async def _check_after(self, known: list[int]) -> None:
        """Check the responses after a message id."""
        if not known:
            self._add_skipped("peerbet.chat.overlap", "there are no messages")
            return
        newest = await self._ask_after("chat after the newest", known[-1], MAX_LAST)
        if newest.error is not None:
            self._add(failure_finding("peerbet.chat.overlap", newest))
        else:
            self._add(*chat.check_overlap(_json_of(newest), known[-1]))
        if len(known) < WINDOW_SIZE + 2:
            self._add_skipped(
                "peerbet.chat.window", "there are too few messages to see which are returned first"
            )
            return
        oldest = await self._ask_after("chat after the oldest", known[0], WINDOW_SIZE)
        if oldest.error is not None:
            self._add(failure_finding("peerbet.chat.window", oldest))
        else:
            self._add(chat.check_window(_json_of(oldest), known, WINDOW_SIZE))

    async def _ask_after(self, name: str, mid: int, last: int) -> Exchange:
        params: dict[str, Param] = {"key": self._chat_key, "mid": mid, "last": last}
        return await self._ask(name, self._diagnostics.chat_endpoint, params)

    # -- PythBots ---------------------------------------------------------------------------------

    async def pythbots(self, user: str | int, chat_id: int) -> None:
        """Check the three look-ups, and the response for an unknown user."""
        diagnostics = self._diagnostics
        lookups: tuple[tuple[str, Endpoint[object], Mapping[str, Param], bots.Model], ...] = (
            ("user", diagnostics.user_endpoint, {"user": user}, bots.USER),
            ("staff", diagnostics.staff_endpoint, {"chatid": chat_id}, bots.STAFF),
            ("stats", diagnostics.stats_endpoint, {"chatid": chat_id}, bots.STATS),
        )
        exchanges: list[Exchange] = []
        for name, endpoint, params, model in lookups:
            seen = await self._look_up(name, endpoint, params)
            exchanges.append(seen)
            if seen.error is not None:
                self._add(failure_finding(f"{model.name}.answer", seen))
                continue
            self._add(Finding(f"{model.name}.answer", Status.OK, f"{name}: can be read"))
            check = bots.check_list if model is bots.STAFF else bots.check_object
            self._add(*check(model, _json_of(seen), self._hidden))
        self._add(_api_key(exchanges, given=diagnostics.headers is not None))
        if exchanges[0].error is None:
            endpoint = diagnostics.user_endpoint
            unknown = await self._look_up("unknown user", endpoint, {"user": UNKNOWN_USER})
            self._add(_unknown_user(unknown))

    async def _look_up(
        self, name: str, endpoint: Endpoint[T], params: Mapping[str, Param]
    ) -> Exchange:
        return await self._ask(name, endpoint, params, self._diagnostics.headers)

    # -- mail -------------------------------------------------------------------------------------

    async def mail(self, *, wanted: bool) -> None:
        """Check all mail, with the parameter name that is accepted; twice if any is unread."""
        diagnostics = self._diagnostics
        check = "pythbots.personal-key"
        if diagnostics.keys.personal is None:
            self._add_skipped(check, "no key is given", "set PYTHPEER_PERSONAL_KEY to look at mail")
            return
        if not wanted:
            self._add_skipped(check, "mail was excluded")
            return
        seen, param_name = await self._find_param_name()
        if seen.is_api_error:
            self._add(_refused_key(check, "PYTHPEER_PERSONAL_KEY", seen))
            return
        if _is_unread(seen) and bots.is_ambiguous_empty(_json_of(seen)):
            self._add(self._accepted(param_name), bots.ambiguous_empty_finding(_json_of(seen)))
            return
        if seen.error is not None:
            self._add(failure_finding("pythbots.mail.answer", seen))
            return
        self._add(self._accepted(param_name), *bots.check_mail(_json_of(seen), self._hidden))
        await self._check_marks_read(seen, param_name)

    async def _find_param_name(self) -> tuple[Exchange, str]:
        """Request all mail with one parameter name after another, until one is not rejected."""
        configured = self._diagnostics.key_param
        candidates = list(dict.fromkeys((configured, *PARAM_NAMES)))
        seen, param_name = await self._all_mail("mail", configured), configured
        for other in candidates[1:]:
            if not seen.is_api_error:
                break
            last = await self._all_mail(f"mail by {other}", other)
            if not last.is_api_error and last.error is None:
                return last, other
        return seen, param_name

    async def _all_mail(self, name: str, param_name: str) -> Exchange:
        diagnostics = self._diagnostics
        params: dict[str, Param] = {param_name: diagnostics.keys.personal, "readall": FLAG}
        return await self._ask(name, diagnostics.mail_endpoint, params, diagnostics.headers)

    def _accepted(self, param_name: str) -> Finding:
        check = "pythbots.personal-key"
        configured = self._diagnostics.key_param
        if param_name == configured:
            shown = param_name if param_name in PARAM_NAMES else "the configured one"
            return Finding(check, Status.OK, f"accepted; the parameter is {shown}")
        return Finding(
            check,
            Status.PROBLEM,
            f"accepted only with the parameter {param_name}, which is not the configured one",
            f"set PYTHPEER_PERSONAL_KEY_PARAM={param_name}, or create sessions with"
            f' Session(personal_key_param="{param_name}")',
        )

    async def _check_marks_read(self, first: Exchange, param_name: str) -> None:
        if not bots.has_unread(_json_of(first)):
            document = _json_of(first)
            self._add(bots.check_marks_read(document, document))
            return
        # The first read marked mail as read, if reads do; a second one has no further effect.
        second = await self._all_mail("mail again", param_name)
        if second.error is not None:
            self._add(failure_finding("pythbots.mail.marks", second))
        else:
            self._add(bots.check_marks_read(_json_of(first), _json_of(second)))

    # -- the end of a service ---------------------------------------------------------------------

    def finish_service(self, service: str) -> None:
        """Check what depends on all responses of a service."""
        answers = [seen for seen in self._exchanges if seen.endpoint.startswith(service)]
        self._add(*common_findings(service, answers))


# -- keys and API errors ---------------------------------------------------------------------------


def _refused_key(check: str, variable: str, seen: Exchange) -> Finding:
    subject = "the personal key" if check.startswith("pythbots") else "the key"
    advice = f"check whether {variable} is the key that the service gave you"
    if check.startswith("pythbots"):
        advice += (
            '; "!link" at xat.com/pythbots gives a new one. An API key needs permission for mail'
        )
    return Finding(check, Status.PROBLEM, f"{subject} is rejected{seen.error_text}", advice)


def _accepted_key(check: str, messages: Iterable[Json]) -> Finding:
    page = [message for message in messages if isinstance(message, dict)]
    own = sum(to_bool(message.get("my")) or False for message in page)
    private = sum(to_bool(message.get("me")) or False for message in page)
    if own:
        text = f"accepted: its owner's messages are marked ({own} on the page)"
        return Finding(check, Status.OK, text)
    if private:
        text = f"accepted: private messages are returned ({private} on the page)"
        return Finding(check, Status.OK, text)
    return Finding(
        check,
        Status.NOTE,
        "not rejected, but no message is private or its owner's: a wrong key may look like no key",
        "post a message and run this again; a post with a wrong key is rejected",
    )


def _api_key(exchanges: Iterable[Exchange], *, given: bool) -> Finding:
    check = "pythbots.api-key"
    answered = [seen for seen in exchanges if seen.status is not None]
    rejected = [seen for seen in answered if seen.is_api_error and _is_denied(seen)]
    if not rejected:
        if given:
            count = sum(seen.error is None for seen in answered)
            text = f"accepted by {count} of 3 look-ups"
            return Finding(check, Status.OK if count else Status.SKIPPED, text)
        return Finding(check, Status.OK, "none is given, and none is required")
    if not given:
        return Finding(
            check,
            Status.PROBLEM,
            f"none is given, and PythBots requires one{rejected[0].error_text}",
            "set PYTHPEER_PYTHBOTS_API_KEY",
        )
    if len(rejected) == len(answered):
        text = f"the API key is rejected{rejected[0].error_text}"
        advice = "check whether PYTHPEER_PYTHBOTS_API_KEY is the key that the service gave you"
        return Finding(check, Status.PROBLEM, text, advice)
    names = ", ".join(seen.name for seen in rejected)
    return Finding(
        check,
        Status.PROBLEM,
        f"the API key is accepted, but has no permission for: {names}{rejected[0].error_text}",
        "request these permissions from its issuer, or do not use them",
    )


def _is_denied(seen: Exchange) -> bool:
    return isinstance(seen.error, AccessDeniedError)


def _unknown_user(seen: Exchange) -> Finding:
    """Check the response for an unknown user."""
    check = "pythbots.refusals"
    if seen.is_api_error:
        return Finding(check, Status.OK, f"an unknown user is an API error{seen.error_text}")
    if seen.error is not None:
        return failure_finding(check, seen)
    return Finding(
        check,
        Status.NOTE,
        "an unknown user is not an API error, but a response without known fields",
    )


def _is_unread(seen: Exchange) -> bool:
    """Return whether there is JSON that the models cannot read."""
    error = seen.error
    return error is not None and not isinstance(error, ApiError) and seen.document is not NO_JSON


# -- the contents of responses ----------------------------------------------------------------


def _json_of(seen: Exchange) -> Json:
    """Return the JSON of the response, ``None`` if there is none."""
    return None if seen.document is NO_JSON else seen.document


def _sample(seen: Exchange) -> Sample | None:
    refusal = isinstance(seen.error, (ApiError, RateLimitedError))
    body = redact(_json_of(seen), seen.hidden, refusal=refusal)
    if body is None:
        return None
    name = f"refusal {seen.name}" if refusal else seen.name
    return Sample(seen.endpoint, name.replace(" ", "_"), body)
