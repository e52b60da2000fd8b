"""The PythBots API: users, staff, statistics and mail behind four PHP pages.

A refusal is ``{"error": "..."}``, with status 400 where a parameter is missing. With an API key
configured, every request has to carry it.
"""

from __future__ import annotations

import msgspec

from .directory import Chats, Users
from .incoming import Incoming
from .mail import FakeMail
from .replies import RefusedError

__all__ = ["FakePythBots"]


class FakePythBots:
    """Answers requests from what the directory and the mailbox hold."""

    def __init__(
        self,
        users: Users,
        chats: Chats,
        mail: FakeMail,
        *,
        personal_key: str,
        personal_key_param: str,
        api_key: str | None,
    ) -> None:
        self._users = users
        self._chats = chats
        self._mail = mail
        self._personal_key = personal_key
        self._personal_key_param = personal_key_param
        self._api_key = api_key

    def answer(self, call: Incoming) -> object:
        """Answer one request. Raises `RefusedError`."""
        if self._api_key is not None and call.api_key != self._api_key:
            raise _no("no access")
        match call.endpoint:
            case "pythbots.userinfo":
                return self._userinfo(call)
            case "pythbots.crank":
                return self._crank(call)
            case "pythbots.cstats":
                return self._cstats(call)
            case _:
                return self._answer_mail(call)

    def _userinfo(self, call: Incoming) -> object:
        person = self._users.find(_required(call, "user"))
        if person is None:
            raise _no("User not found")
        return msgspec.to_builtins(person)

    def _crank(self, call: Incoming) -> object:
        chat = self._chats.by_id(_required(call, "chatid"))
        if chat is None or not chat.opted_in:
            raise _no("Chat has not opted in")
        return msgspec.to_builtins(chat.staff)

    def _cstats(self, call: Incoming) -> object:
        chat = self._chats.by_id(_required(call, "chatid"))
        if chat is None:
            raise _no("Chat not found")
        return chat.stats

    def _answer_mail(self, call: Incoming) -> object:
        if call.params.get(self._personal_key_param) != self._personal_key:
            raise _no("Invalid personal key")
        if "readnew" in call.params:
            return self._mail.read_new()
        if "readall" in call.params:
            return self._mail.read_all()
        return self._send(call)

    def _send(self, call: Incoming) -> object:
        text = _required(call, "message")
        if "user" in call.params:
            recipient = self._users.by_name(_required(call, "user"))
        else:
            recipient = self._users.by_id(_required(call, "id"))
        if recipient is None:
            raise _no("User not found")
        self._mail.send(recipient, text)
        return {"success": True}


def _no(words: str, status: int = 200) -> RefusedError:
    return RefusedError({"error": words}, status=status)


def _required(call: Incoming, name: str) -> str:
    value = call.params.get(name)
    if not value:
        raise _no(f"Missing {name}", status=400)
    return value
