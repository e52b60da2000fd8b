"""A bot with three tasks: it answers commands and mail, and sends a report once a day."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from pythpeer import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    HttpStatusError,
    InvalidRequestError,
    Mail,
    MissingKeyError,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    ResponseTooLargeError,
    Session,
    SqliteStore,
    StoreError,
    TransportError,
    run,
)

logger = logging.getLogger("bot")

PAUSE = 5.0
"""Seconds until something is sent again that was certainly not sent."""

MAX_AGE = timedelta(days=2)
"""The age up to which recovered mail is answered: longer than any difference of time zones."""

REPORT_TO = "tiro"
"""The user who receives the report."""

REPORT_HOUR = 8
"""The hour, in UTC, from which the report of a day is sent."""

CHECK = 60.0
"""Seconds between two checks whether the report is due."""

REPORTED = Path("reported.txt")
"""The file with the date of the last report, so that a restart does not repeat it."""


async def main(session: Session) -> None:
    """Run the three tasks until the session stops, or one of them fails."""
    tasks = [asyncio.create_task(part(session)) for part in (answer_chat, answer_mail, report)]
    try:
        await asyncio.gather(*tasks)  # raises the first error; the other tasks continue
    finally:
        session.stop()  # now they end, after the item that they have
        await asyncio.wait(tasks)


async def answer_chat(session: Session) -> None:
    """Answer commands."""
    async for message in session.peerbet.chat_stream(name="desk"):
        if message.text != "!ping" or message.is_mine or message.is_bot:
            continue
        answer = f"pong, {message.sender}"
        if not await send(session, partial(session.peerbet.post, answer, bot=True)):
            return  # not asking for the next message, so this one is redelivered after a restart


async def answer_mail(session: Session) -> None:
    """Answer mail."""
    async for mail in session.pythbots.mail_stream(name="desk"):
        sender = mail.sender or mail.sender_id
        if not sender or was_perhaps_answered(mail):
            logger.warning("to be checked manually: mail %s from %r", mail.id, sender)
            continue
        text = f"Thank you, {sender}."
        if not await send(session, partial(session.pythbots.send_mail, sender, text)):
            return


def was_perhaps_answered(mail: Mail) -> bool:
    """Return whether mail may have been answered before: recovered mail without an id, or old mail.

    After a lost response, the stream returns all mail of the history that the store has never had,
    also what was read before the store existed.
    """
    if not mail.recovered:
        return False
    now = datetime.now(UTC).replace(tzinfo=None)  # dates of mail have no time zone
    return mail.id is None or mail.sent_at is None or now - mail.sent_at > MAX_AGE


async def report(session: Session) -> None:
    """Send one report a day; later than usual if the bot did not run at that hour."""
    while not await session.wait_stopping(CHECK):  # in place of asyncio.sleep(): a stop ends it
        now = utc_now()
        if not is_due(now):
            continue
        state = "all is well" if session.health().ok else "a service fails"
        text = f"Report of {now.date()}: {state}."
        if await send(session, partial(session.pythbots.send_mail, REPORT_TO, text)):
            await asyncio.to_thread(REPORTED.write_text, str(now.date()))


def is_due(now: datetime) -> bool:
    """Return whether the report of the day is still to be sent."""
    reported = REPORTED.read_text() if REPORTED.exists() else ""
    return now.hour >= REPORT_HOUR and reported != str(now.date())


def utc_now() -> datetime:
    """Return the date and time; a test replaces it, because virtual time does not change it."""
    return datetime.now(UTC)


async def send(session: Session, write: Callable[[], Awaitable[object]]) -> bool:
    """Send a message or a mail, once. Return whether the bot can continue to the next item.

    It returns False if the session stops before anything was sent.
    """
    level = logging.WARNING  # for the first failure; the repeated ones are logged at DEBUG
    while True:
        try:
            await write()
        except OutcomeUnknownError as error:  # a TransportError, so its clause precedes the other
            logger.warning("perhaps sent, so not sent again: %s", error)
            return True
        except PythpeerError as error:
            if is_refused(error):
                logger.warning("refused: %s", error)
                return True
            if not may_pass(error):  # no write will succeed: it ends the bot
                raise
            logger.log(level, "not sent yet, so sent again: %s", error)
        else:
            if level == logging.DEBUG:
                logger.info("sent, after failures")
            return True
        level = logging.DEBUG
        if await session.wait_stopping(PAUSE):
            return False  # nothing was sent, and otherwise it is sent again


def is_refused(error: PythpeerError) -> bool:
    """Return whether this text, or this user, is refused: sent again, it would be again."""
    if error.endpoint == "peerbet.chat.get":  # the read before a post with confirm=True
        return False
    if isinstance(error, (AccessDeniedError, MissingKeyError, RateLimitedError)):
        return False
    if isinstance(error, HttpStatusError):
        return error.status in (400, 413, 414)  # those refuse a text that is too long
    return isinstance(error, (ApiError, InvalidRequestError))


def may_pass(error: PythpeerError) -> bool:
    """Return whether what failed can succeed later without any change."""
    if isinstance(error, TransportError):
        return not error.untrusted
    if isinstance(error, StoreError):
        return error.transient
    if isinstance(error, HttpStatusError) and not isinstance(error, RateLimitedError):
        return error.status is not None and error.status >= 500
    if isinstance(error, ApiError):
        return not isinstance(error, AccessDeniedError)
    return isinstance(error, (RateLimitedError, DecodeError, ResponseTooLargeError))


if __name__ == "__main__":
    run(main, store=SqliteStore("desk.sqlite"))
