"""Streams: their items, gaps, acknowledgement and merging."""

from __future__ import annotations

from typing import assert_type

from pythpeer import (
    ChatMessage,
    ChatStream,
    Gap,
    GapError,
    Mail,
    MailStream,
    MergedStream,
    Session,
    Stream,
    merge,
)
from pythpeer.testing import FakeServices


async def answer_the_chat(session: Session, fake: FakeServices) -> None:
    fake.chat.say("alice", "!ping")
    async for message in session.peerbet.chat_stream(after=0):
        assert_type(message, ChatMessage)
        if message.text == "!ping":
            await session.peerbet.post("pong", bot=True)
        break


async def follow_the_chat(session: Session, fake: FakeServices) -> None:
    fake.chat.say("alice", "hello")
    stream = session.peerbet.chat_stream(after=0, name="mine", on_gap="raise")
    assert_type(stream, ChatStream)
    async with stream as entered:
        assert_type(entered, ChatStream)
        try:
            assert_type(await anext(stream), ChatMessage)
        except GapError as error:
            assert_type(error.after, int)
        assert_type(await stream.ack(), None)
        assert_type(stream.skipped, int)
        assert_type(stream.restarts, int)
        for gap in assert_type(stream.gaps, tuple[Gap, ...]):
            assert_type(gap.after, int)
            assert_type(gap.before, int)
    assert_type(await stream.aclose(), None)


async def follow_the_mail(session: Session, fake: FakeServices) -> None:
    fake.mail.deliver("alice", "hello")
    async with session.pythbots.mail_stream(name="mine") as stream:
        assert_type(stream, MailStream)
        async for mail in stream:
            assert_type(mail, Mail)
            break
        assert_type(stream.gaps, tuple[Gap, ...])
        assert_type(stream.skipped, int)
        assert_type(stream.restarts, int)


async def follow_both(session: Session, fake: FakeServices) -> None:
    fake.chat.say("alice", "hello")
    chat, mail = session.peerbet.chat_stream(after=0), session.pythbots.mail_stream()
    async with merge(chat, mail) as both:
        assert_type(both, MergedStream[ChatMessage | Mail])
        async for item in both:
            assert_type(item, ChatMessage | Mail)
            if isinstance(item, Mail):
                assert_type(item.sender, str | None)
            else:
                assert_type(item, ChatMessage)
            break
        assert_type(await both.ack(), None)
        assert_type(both.gaps, tuple[Gap, ...])
        assert_type(both.skipped, int)
        assert_type(both.restarts, int)
    assert_type(await both.aclose(), None)


async def merge_any_number(session: Session, fake: FakeServices) -> None:
    fake.chat.say("alice", "hello")
    messages, other_messages = (
        session.peerbet.chat_stream(after=0),
        session.peerbet.chat_stream(after=0),
    )
    assert_type(merge(messages), MergedStream[ChatMessage])
    assert_type(merge(messages, other_messages), MergedStream[ChatMessage])
    assert_type(
        merge(messages, other_messages, session.pythbots.mail_stream()),
        MergedStream[ChatMessage | Mail],
    )
    assert_type(merge(*[messages, other_messages]), MergedStream[ChatMessage])


async def take_any_stream(session: Session, fake: FakeServices) -> None:
    fake.chat.say("alice", "hello")
    streams: list[Stream[ChatMessage | Mail]] = [
        session.peerbet.chat_stream(after=0),
        session.pythbots.mail_stream(),
    ]
    async with merge(*streams) as read_all:
        assert_type(await anext(read_all), ChatMessage | Mail)
