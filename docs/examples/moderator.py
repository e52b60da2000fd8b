"""A moderator that warns users who repeat themselves, and reports them to the staff by mail."""

import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from functools import partial

from pythpeer import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    GapError,
    HttpStatusError,
    InvalidRequestError,
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

CHAT = 220531305
"""The xat chat whose staff may repeat themselves."""

REPORT_TO = "tiro"
"""The user who receives the reports."""

REPEATED = 3
"""How many equal messages in sequence cause a warning."""

PAUSE = 5.0
"""Seconds until something is requested again that was certainly not done."""


async def main(session: Session) -> None:
    """Moderate until the session stops."""
    recent: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=REPEATED))
    async with session.peerbet.chat_stream(name="moderator", on_gap="raise") as stream:
        staff = await read_staff(session)
        while True:
            try:
                message = await anext(stream)
            except StopAsyncIteration:
                return  # the session is stopping
            except GapError as gap:
                logger.warning("messages between %d and %d were missed", gap.after, gap.before)
                recent.clear()
                continue
            sender = message.sender.casefold()  # the services compare names without case
            if message.is_mine or message.is_bot or sender in staff:
                continue
            texts = recent[sender]
            texts.append(message.text)
            if len(texts) == REPEATED and len(set(texts)) == 1:
                texts.clear()
                if not await warn(session, message.sender):
                    return  # this message is redelivered after a restart


async def read_staff(session: Session) -> set[str]:
    """Return the names of the staff; none if the chat is not opted in."""
    while not session.stopping:
        try:
            members = await session.pythbots.staff(CHAT)
            return {member.username.casefold() for member in members if member.username}
        except ApiError as error:
            logger.warning("every user is moderated: %s", error)
            break
        except PythpeerError as error:
            if not may_pass(error):
                raise
            logger.warning("the staff is requested again: %s", error)
            await session.wait_stopping(PAUSE)
    return set()


async def warn(session: Session, name: str) -> bool:
    """Warn a user in the chat, and send the report. Return whether the bot can continue."""
    warning, report = f"{name}: please do not repeat yourself", f"{name} repeats the same message"
    return await send(session, partial(session.peerbet.post, warning, bot=True)) and await send(
        session, partial(session.pythbots.send_mail, REPORT_TO, report)
    )


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
    run(main, store=SqliteStore("moderator.sqlite"))
