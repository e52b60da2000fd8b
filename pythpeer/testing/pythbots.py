"""The PythBots API: users, staff, statistics and mail behind four PHP pages.

A refusal is ``{"error": "..."}``, with status 400 where a parameter is missing. Where there are API
keys, every request has to carry one.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .directory import Chats, Users
from .habits import Quirks
from .incoming import IncomingRequest
from .keys import ApiKeys
from .mail import FakeMail, Mailbox
from .replies import RefusedError, as_php_list, renamed

__all__ = ["FakePythBots"]


class FakePythBots:
    """Answers requests from what the directory and the mailboxes hold."""

    def __init__(
        self,
        users: Users,
        chats: Chats,
        mail: FakeMail,
        api_keys: ApiKeys,
        habits: Callable[[], Quirks],
    ) -> None:
        self._users = users
        self._chats = chats
        self._mail = mail
        self._api_keys = api_keys
        self._habits = habits

    def answer(self, call: IncomingRequest) -> object:
        """Answer one request. Raises `RefusedError`."""
        self._api_keys.check(call.api_key, call.endpoint, call.at)
        match call.endpoint:
            case "pythbots.userinfo":
                return self._userinfo(call)
            case "pythbots.crank":
                return self._in_a_list(self._crank(call))
            case "pythbots.cstats":
                return self._cstats(call)
            case _:
                return self._answer_mail(call)

    def _userinfo(self, call: IncomingRequest) -> object:
        person = self._users.find(_required(call, "user"))
        if person is None:
            raise _refusal("User not found")
        return renamed(msgspec.to_builtins(person), self._habits())

    def _crank(self, call: IncomingRequest) -> object:
        chat = self._chats.by_id(_required(call, "chatid"))
        if chat is None or not chat.opted_in:
            raise _refusal("Chat has not opted in")
        habits = self._habits()
        return as_php_list(
            [renamed(msgspec.to_builtins(one), habits) for one in chat.staff], habits
        )

    def _cstats(self, call: IncomingRequest) -> object:
        chat = self._chats.by_id(_required(call, "chatid"))
        if chat is None:
            raise _refusal("Chat not found")
        return renamed(chat.stats, self._habits())

    def _answer_mail(self, call: IncomingRequest) -> object:
        mailbox = self._mail._opened_by(call.params.get(self._habits().personal_key_param))
        if mailbox is None:
            raise _refusal("Invalid personal key")
        if "readnew" in call.params:
            return self._in_a_list(self._mail._read_new(mailbox))
        if "readall" in call.params:
            return self._in_a_list(self._mail._read_all(mailbox))
        return self._send(call, mailbox)

    def _in_a_list(self, answer: object) -> object:
        return {"data": answer} if self._habits().wrapped else answer

    def _send(self, call: IncomingRequest, mailbox: Mailbox) -> object:
        text = _required(call, "message")
        if "user" in call.params:
            recipient = self._users.by_name(_required(call, "user"))
        else:
            recipient = self._users.by_id(_required(call, "id"))
        if recipient is None:
            raise _refusal("User not found")
        self._mail._send(mailbox, recipient, text)
        return {"success": True}


def _refusal(words: str, status: int | None = None) -> RefusedError:
    return RefusedError({"error": words}, status=status)


def _required(call: IncomingRequest, name: str) -> str:
    value = call.params.get(name)
    if not value:
        raise _refusal(f"Missing {name}", status=400)
    return value
