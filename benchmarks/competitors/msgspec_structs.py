"""msgspec: typed decoders, made once."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .decoding import Candidate

__all__ = ["CANDIDATES", "Message", "decode_page", "decode_roll", "plain"]


class Roll(msgspec.Struct, frozen=True):
    status: int
    id: int
    user: str
    roll: float
    bet: str


class Message(msgspec.Struct, frozen=True, gc=False):
    id: int
    by: str
    to: str
    msg: str
    date: str
    bot: bool
    my: bool
    me: bool


class Page(msgspec.Struct, frozen=True, gc=False):
    status: int
    users_online: int
    message_list: list[Message]


decode_roll: Final = msgspec.json.Decoder(Roll).decode
# As PHP sends them, 0 and 1 are booleans.
decode_page: Final = msgspec.json.Decoder(Page, strict=False).decode


def _page(body: bytes) -> list[Message]:
    return decode_page(body).message_list


def plain(answer: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(answer)


CANDIDATES: Final = (Candidate("msgspec", decode_roll, _page, plain),)
