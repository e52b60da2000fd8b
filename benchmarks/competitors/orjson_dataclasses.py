"""orjson with dataclasses, without a check of types."""

from __future__ import annotations

import dataclasses
from typing import Final

import orjson

from .decoding import Candidate
from .json_dataclasses import Message, Roll

__all__ = ["CANDIDATES"]


def _roll(body: bytes) -> Roll:
    return Roll(**orjson.loads(body))


def _page(body: bytes) -> list[Message]:
    return [Message(**item) for item in orjson.loads(body)["message_list"]]


CANDIDATES: Final = (Candidate("orjson + dataclass", _roll, _page, dataclasses.asdict),)
