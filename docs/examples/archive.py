"""A program that keeps every message of the chat in a file."""

from pythpeer import Session, SqliteStore, run


async def main(session: Session) -> None:
    """Archive until the session stops. The store keeps each message before it is returned."""
    async for message in session.peerbet.chat_stream(after=0, name="archive"):
        print(f"{message.id} {message.sender!r}: {message.text!r}")


if __name__ == "__main__":
    run(main, store=SqliteStore("archive.sqlite", max_length=None))
