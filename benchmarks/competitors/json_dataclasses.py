"""json of the standard library with dataclasses, without a check of types."""

from __future__ import annotations

import dataclasses
import json
from typing import Final

from .decoding import Candidate

__all__ = ["CANDIDATES", "Message", "Roll"]


@dataclasses.dataclass(frozen=True, slots=True)
class Roll:
    status: int
    id: int
    user: str
    roll: float
    bet: str


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    id: int
    by: str
    to: str
    msg: str
    date: str
    bot: bool
    my: bool
    me: bool


def _roll(body: bytes) -> Roll:
    return Roll(**json.loads(body))


def _page(body: bytes) -> list[Message]:
    return [Message(**item) for item in json.loads(body)["message_list"]]


CANDIDATES: Final = (Candidate("json + dataclass", _roll, _page, dataclasses.asdict),)
