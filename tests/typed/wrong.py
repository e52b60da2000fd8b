"""Programs that both type checkers must reject, each line with the expected errors.

An ignore comment without an error is an error in both checkers. Nothing here is run.
"""

# Errors that only follow from another error.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from pythpeer import (
    ApiError,
    ChatMessage,
    Endpoint,
    Mail,
    OutcomeUnknownError,
    Rate,
    Retry,
    Secret,
    Session,
    merge,
    split_text,
)
from pythpeer.testing import FakeServices, Fault


async def forget_async(session: Session) -> None:
    with session:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with FakeServices():  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with session.peerbet.chat_stream():  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    for message in session.peerbet.chat_stream():  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        print(message)
    for mail in session.pythbots.mail_stream():  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        print(mail)
    for item in merge(session.peerbet.chat_stream(), session.pythbots.mail_stream()):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        print(item)
    print(list(session.peerbet.chat_stream()))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


async def forget_await(session: Session) -> None:
    session.peerbet.post("hello")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    session.pythbots.send_mail("tiro", "hello")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    session.peerbet.chat_stream().ack()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    session.aclose()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    print(session.peerbet.messages().messages)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    print(session.pythbots.all_mail()[0])  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    print(session.pythbots.user("tiro").username)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    id: int = session.peerbet.post("hello")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    for mail in session.pythbots.unread_mail():  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        print(mail)
    if session.peerbet.post("hello"):  # type: ignore[truthy-bool]  # pyright: ignore[reportUnnecessaryComparison]
        print(id)


async def spend_floats(session: Session) -> None:
    await session.peerbet.roll(0.1, target=50, side="low")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.peerbet.roll("0.1", target=49.5, side="low")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.peerbet.roll("0.1", target=50, side="up")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.peerbet.roll("0.1", 50, "low")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def await_sync_calls(session: Session) -> None:
    await session.peerbet.chat_stream()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await session.limiters["peerbet.chat.get"].pause(1.0)  # type: ignore[func-returns-value, misc]  # pyright: ignore[reportGeneralTypeIssues]
    async for message in session.peerbet.messages():  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        print(message)


async def pass_wrong_arguments(session: Session) -> None:
    await session.peerbet.post(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.peerbet.post("hello", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await session.peerbet.post(text=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.peerbet.messages(after="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.pythbots.user(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.pythbots.user(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.pythbots.staff("tiro")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.pythbots.stats(220531305, 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await session.pythbots.send_mail("tiro")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await session.call("peerbet.chat.get")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.call(Endpoint("mine", "https://example.org"), key=b"key")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    session.peerbet.chat_stream(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    session.peerbet.chat_stream(on_gap="panic")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    session.pythbots.mail_stream(after=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    merge(session)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    split_text(b"text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def set_wrong_options(session: Session) -> None:
    Session("key")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Session(timeout="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Session(peerbet_key=b"key")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Session(rates={"peerbet.chat.get": 1.0})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    Session(time_out=5.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Session.from_env(time_out=5.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Session.from_env(store="memory")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Rate("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Retry(attempts="4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Secret(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Endpoint("mine", "https://example.org", answer=5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    FakeServices(order="sideways")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Fault.slow()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    session.limiters["mine"] = session.limiters["peerbet.chat.get"]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    session.limiters["peerbet.chat.get"].rate = Rate(0.0)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def use_wrong_attributes(
    message: ChatMessage, mail: Mail, error: ApiError, lost: OutcomeUnknownError
) -> None:
    message.text = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    print(message.author)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    print(message.sent_at.year)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    print(message.recipient.lower())  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    print(mail.id + 1)  # type: ignore[operator]  # pyright: ignore[reportOptionalOperand]
    print(mail.raw["id"] + 1)  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
    print(error.retry_after)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    print(lost.status + 1)  # type: ignore[operator]  # pyright: ignore[reportOptionalOperand]
