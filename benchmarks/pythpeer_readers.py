"""pythpeer's ways to read and to post, to compare with those of other libraries."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from pythpeer import ChatMessage, Mail, MemoryStore, OutcomeUnknownError, Rate, Session, Stream
from pythpeer.stores.base import Store

from .competitors.polling import Candidate, Reading, ServiceAccess

__all__ = ["SETUPS", "by_stream", "reading_of", "session"]

WIDE_GUARD: Final = 5.0
"""A guard so wide that each interval is counted from the last response."""

ENDPOINTS: Final = ("peerbet.chat.get", "peerbet.chat.set", "pythbots.mail")

ATTEMPTS: Final = 5


def session(
    access: ServiceAccess,
    store: Store | None = None,
    *,
    interval: float = 1.0,
    guard: float = WIDE_GUARD,
) -> Session:
    """Return a session for *access*, not yet open."""
    return Session(
        peerbet_url=access.peerbet_url,
        pythbots_url=access.pythbots_url,
        peerbet_key=access.peerbet_key,
        personal_key=access.personal_key,
        store=store or MemoryStore(),
        rates=dict.fromkeys(ENDPOINTS, Rate(interval, guard=guard)),
    )


@asynccontextmanager
async def by_stream(access: ServiceAccess) -> AsyncGenerator[Reading]:
    """Follow the chat as the documentation does."""
    async with session(access) as opened, opened.peerbet.chat_stream() as stream:
        yield reading_of(stream)


def reading_of(stream: Stream[ChatMessage]) -> Reading:
    """Return the `Reading` of a chat stream."""

    async def step() -> Sequence[str]:
        return [(await anext(stream)).text]

    return Reading(step, lambda: [(gap.after, gap.before) for gap in stream.gaps])


@asynccontextmanager
async def _mail_stream(access: ServiceAccess) -> AsyncGenerator[Reading]:
    async with session(access) as opened, opened.pythbots.mail_stream() as stream:

        async def step() -> Sequence[str]:
            return _texts([await anext(stream)], reading)

        reading = Reading(step)
        yield reading


@asynccontextmanager
async def _unread_mail(access: ServiceAccess) -> AsyncGenerator[Reading]:
    async with session(access) as opened:

        async def step() -> Sequence[str]:
            try:
                return _texts(await opened.pythbots.unread_mail(), reading)
            except OutcomeUnknownError:
                return []  # the next call returns this mail

        reading = Reading(step)
        yield reading


def _texts(mails: Sequence[Mail], reading: Reading) -> Sequence[str]:
    reading.marked.update(mail.text or "" for mail in mails if mail.recovered)
    return [mail.text or "" for mail in mails]


@asynccontextmanager
async def _post(
    access: ServiceAccess, *, confirm: bool, attempts: int
) -> AsyncGenerator[Callable[[str], Awaitable[object]]]:
    async def post(text: str) -> None:
        for attempt in range(1, attempts + 1):
            try:
                await opened.peerbet.post(text, confirm=confirm)
            except OutcomeUnknownError:
                if attempt == attempts:
                    raise
            else:
                return

    async with session(access) as opened:
        yield post


SETUPS: Final = {
    candidate.name: candidate
    for candidate in (
        Candidate("pythpeer, chat_stream()", chat=by_stream),
        Candidate("pythpeer, mail_stream()", mail=_mail_stream),
        Candidate("pythpeer, unread_mail()", mail=_unread_mail),
        Candidate("pythpeer, post()", post=partial(_post, confirm=False, attempts=1)),
        Candidate("pythpeer, post(confirm=True)", post=partial(_post, confirm=True, attempts=1)),
        Candidate(
            "pythpeer, confirm, then retry",
            post=partial(_post, confirm=True, attempts=ATTEMPTS),
            note="confirm, then retry: posts again if the post was not found in the chat.",
        ),
    )
}
