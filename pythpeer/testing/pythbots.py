"""The PythBots API: users, staff, statistics and mail, served by four PHP pages.

An API error is ``{"error": "..."}``, with status 400 where a parameter is missing. If there are API
keys, every request must carry one.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .directory import Chats, Users
from .keys import ApiKeys
from .mail import FakeMail, Mailbox
from .quirks import Quirks
from .requests import IncomingRequest
from .responses import RejectedError, as_php_list, renamed

__all__ = ["FakePythBots"]


class FakePythBots:
    """Answers requests with the contents of the directory and of the mailboxes."""

    def __init__(
        self,
        users: Users,
        chats: Chats,
        mail: FakeMail,
        api_keys: ApiKeys,
        quirks: Callable[[], Quirks],
    ) -> None:
        self._users = users
        self._chats = chats
        self._mail = mail
        self._api_keys = api_keys
        self._quirks = quirks

    def answer(self, call: IncomingRequest) -> object:
        """Return the JSON document for one request. Raises `RejectedError`."""
        self._api_keys.check(call.api_key, call.endpoint, call.at)
        match call.endpoint:
            case "pythbots.userinfo":
                return self._userinfo(call)
            case "pythbots.crank":
                return self._wrapped(self._crank(call))
            case "pythbots.cstats":
                return self._cstats(call)
            case _:
                return self._answer_mail(call)

    def _userinfo(self, call: IncomingRequest) -> object:
        person = self._users.find(_required(call, "user"))
        if person is None:
            raise _rejected("User not found")
        return renamed(msgspec.to_builtins(person), self._quirks())

    def _crank(self, call: IncomingRequest) -> object:
        chat = self._chats.by_id(_required(call, "chatid"))
        if chat is None or not chat.opted_in:
            raise _rejected("Chat has not opted in")
        quirks = self._quirks()
        return as_php_list(
            [renamed(msgspec.to_builtins(member), quirks) for member in chat.staff], quirks
        )

    def _cstats(self, call: IncomingRequest) -> object:
        chat = self._chats.by_id(_required(call, "chatid"))
        if chat is None:
            raise _rejected("Chat not found")
        return renamed(chat.stats, self._quirks())

    def _answer_mail(self, call: IncomingRequest) -> object:
        mailbox = self._mail.opened_by(call.params.get(self._quirks().personal_key_param))
        if mailbox is None:
            raise _rejected("Invalid personal key")
        if "readnew" in call.params:
            return self._wrapped(self._mail.read_new(mailbox))
        if "readall" in call.params:
            return self._wrapped(self._mail.read_all(mailbox))
        return self._send(call, mailbox)

    def _wrapped(self, document: object) -> object:
        return {"data": document} if self._quirks().wrapped else document

    def _send(self, call: IncomingRequest, mailbox: Mailbox) -> object:
        text = _required(call, "message")
        if "user" in call.params:
            recipient = self._users.by_name(_required(call, "user"))
        else:
            recipient = self._users.by_id(_required(call, "id"))
        if recipient is None:
            raise _rejected("User not found")
        self._mail.send(mailbox, recipient, text)
        return {"success": True}


def _rejected(message: str, status: int | None = None) -> RejectedError:
    return RejectedError({"error": message}, status=status)


def _required(call: IncomingRequest, name: str) -> str:
    value = call.params.get(name)
    if not value:
        raise _rejected(f"Missing {name}", status=400)
    return value
