"""pydantic models, which validate the JSON."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from .decoding import Candidate

__all__ = ["CANDIDATES", "Message", "Page", "Roll", "plain"]


class Roll(BaseModel):
    model_config = ConfigDict(frozen=True)

    status: int
    id: int
    user: str
    roll: float
    bet: str


class Message(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: int
    by: str
    to: str
    msg: str
    date: str
    bot: bool
    my: bool
    me: bool


class Page(BaseModel):
    model_config = ConfigDict(frozen=True)

    status: int
    users_online: int
    message_list: list[Message]


def _page(body: bytes) -> list[Message]:
    return Page.model_validate_json(body).message_list


def plain(answer: BaseModel) -> dict[str, Any]:
    return answer.model_dump()


CANDIDATES: Final = (Candidate("pydantic", Roll.model_validate_json, _page, plain),)
