"""A bot for chat and mail that survives every error which a call or a stream can raise."""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from pythpeer import (
    AccessDeniedError,
    ApiError,
    ChatMessage,
    DecodeError,
    GapError,
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
    merge,
    run,
)

logger = logging.getLogger("bot")

PAUSE = 5.0
"""Seconds until something is sent again that was certainly not sent."""

MAX_AGE = timedelta(days=2)
"""The age up to which recovered mail is answered: longer than any difference of time zones."""

MAX_TEXT = 250
"""The longest text of a message, in characters."""

Write = Callable[[], Awaitable[object]]
"""Sends a message or a mail."""


async def main(session: Session) -> None:
    """Answer commands and mail until the session stops."""
    chat = session.peerbet.chat_stream(name="bot", on_gap="raise")
    mail = session.pythbots.mail_stream(name="bot")
    async with merge(chat, mail) as stream:
        while True:
            try:
                item = await anext(stream)
            except StopAsyncIteration:
                return  # the session is stopping
            except GapError as gap:  # the chat has more messages than the service still shows
                logger.warning("messages between %d and %d were missed", gap.after, gap.before)
                continue
            # A stream raises any other error only where waiting does not help: it ends the bot.
            write = await plan(session, item)
            if write is not None and not await send(session, write):
                return  # not asking for the next item, so this one is redelivered after a restart


async def plan(session: Session, item: ChatMessage | Mail) -> Write | None:
    """Return what is to be sent for an item; ``None`` for nothing."""
    try:
        if isinstance(item, Mail):
            return answer_mail(session, item)
        return await answer_message(session, item)
    except Exception:  # a mistake must not end the bot, or the item is redelivered each time
        logger.exception("an item is skipped")
        return None


def answer_mail(session: Session, mail: Mail) -> Write | None:
    """Thank the sender."""
    sender = mail.sender or mail.sender_id
    if not sender or was_perhaps_answered(mail):
        logger.warning("to be checked manually: mail %s from %r", mail.id, sender)
        return None
    return partial(session.pythbots.send_mail, sender, f"Thank you, {sender}.")


def was_perhaps_answered(mail: Mail) -> bool:
    """Return whether mail may have been answered before: recovered mail without an id, or old mail.

    After a lost response, the stream returns all mail of the history that the store has never had,
    also what was read before the store existed.
    """
    if not mail.recovered:
        return False
    now = datetime.now(UTC).replace(tzinfo=None)  # dates of mail have no time zone
    return mail.id is None or mail.sent_at is None or now - mail.sent_at > MAX_AGE


async def answer_message(session: Session, message: ChatMessage) -> Write | None:
    """Answer a command of another user."""
    command, _, rest = message.text.partition(" ")
    if message.is_mine or message.is_bot:
        return None
    if command == "!ping":
        text = f"pong, {message.sender}"
    elif command == "!who":
        text = await look_up(session, rest.strip() or message.sender)
    else:
        return None
    return partial(session.peerbet.post, text[:MAX_TEXT], bot=True)


async def look_up(session: Session, name: str) -> str:
    """Return a line about a user; a read that fails must not end the bot."""
    try:
        user = await session.pythbots.user(name)
    except ApiError as error:  # such as "User not found"
        return f"{name}: {error.message}"
    except PythpeerError as error:  # the library has repeated the read already
        logger.warning("a look-up failed: %s", error)
        return f"{name}: PythBots does not respond, please try again later"
    return f"{user.username} is {user.rank or 'without a rank'}"


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
    run(main, store=SqliteStore("bot.sqlite"))
