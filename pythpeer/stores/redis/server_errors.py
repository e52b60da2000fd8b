"""What the errors of a server mean: whether waiting may help, and what to do otherwise."""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "ERRORS",
    "NO_SCRIPT",
    "REJECTIONS",
    "denied",
    "denied_command",
    "error_code",
    "is_about_data",
    "is_response",
    "is_reusable",
]

NO_SCRIPT: Final = "the server does not have the script"

REJECTED: Final = "rejects the user name or the password"

REJECTIONS: Final = frozenset({"NOAUTH", "WRONGPASS"})
"""The codes that are transient only if the server has accepted the credentials before."""

ERRORS: Final = {
    "NOAUTH": (REJECTED, False, False),
    "WRONGPASS": (REJECTED, False, False),
    "NOPERM": ("does not permit the user what the store needs", False, False),
    "LOADING": ("is still loading its data", True, True),
    "READONLY": ("is a replica now, and cannot be written", True, True),
    "MASTERDOWN": ("is a replica that has no connection to its primary", True, True),
    "NOREPLICAS": ("accepts no writes, because too few replicas are connected", True, True),
    "BUSY": ("is busy with a slow script of another program", True, True),
    "KILLED": ("has ended a script that took too long", True, True),
    "UNBLOCKED": ("has changed its role", True, True),
    "MAXCLIENTS": ("accepts no more connections: raise its maxclients", True, True),
    "OOM": ("has no memory left: raise its maxmemory", True, False),
    "MISCONF": ("cannot save to its disk, and accepts no writes", True, False),
    "MOVED": ("is a cluster that redirects repeatedly", True, True),
    "ASK": ("is a cluster that is moving the keys to another node", True, True),
    "CLUSTERDOWN": ("is a cluster that is not complete now", True, True),
    "SALT": ("was emptied, and has another salt now", True, False),  # of the scripts
    "TRYAGAIN": ("is a cluster that is moving the keys to another node", True, True),
}
"""For each code of an error: its meaning, whether it is transient, and whether to retry."""

CODES_OF_TEXTS: Final = {
    "OOM command not allowed": "OOM",
    "max number of clients reached": "MAXCLIENTS",
    "Script killed by user": "KILLED",
    "ACL failure in script": "NOPERM",
    "can't run this command": "NOPERM",
    "can't access at least one of the keys": "NOPERM",
    "NOREPLICAS": "NOREPLICAS",
    "MISCONF": "MISCONF",
}
"""The codes of errors that do not begin with one, by a part of their text: a script reports the
error of a command with a text of its own."""


MALFORMED_TEXTS: Final = ("user_script", "WRONGTYPE", "Error running script")
"""What the errors of a script contain that failed itself."""


def error_code(error: Exception) -> str:
    """Return the code of an error: the first word of its text, or the class that replaces it.

    Versions of redis-py differ in which codes they convert to classes. A class comes before those
    that it is derived from.
    """
    from redis import exceptions as e

    classes: dict[str, type[Exception]] = {
        "NOSCRIPT": e.NoScriptError,
        "NOAUTH": e.AuthenticationError,
        "NOPERM": e.NoPermissionError,
        "LOADING": e.BusyLoadingError,
        "OOM": e.OutOfMemoryError,
        "READONLY": e.ReadOnlyError,
        "MOVED": e.MovedError,
        "ASK": e.AskError,
        "MASTERDOWN": e.MasterDownError,
        "CLUSTERDOWN": e.ClusterDownError,
        "TRYAGAIN": e.TryAgainError,
    }
    for code, error_class in classes.items():
        if isinstance(error, error_class):
            return code
    text = str(error)
    if not isinstance(error, e.RedisError):
        return ""
    return next(
        (code for part, code in CODES_OF_TEXTS.items() if part in text), text.partition(" ")[0]
    )


def denied_command(text: str) -> str:
    """Return the command that the user has no right to run, ``""`` if the error does not name it.

    The rest of the text may contain the name of the user, or of a key.
    """
    match = re.search(r"permissions to run the '([a-z]+(?:\|[a-z]+)?)' command", text)
    return "" if match is None else match[1].replace("|", " ").upper()


def denied(commands: str) -> str:
    """Return the reason where the user has no right to run *commands*, ``""`` if unknown."""
    missing = f"{commands}, which the store needs" if commands else "what the store needs"
    where = "" if commands else " (ACL LOG of the server shows it)"
    return f"does not permit the user {missing}{where}: see the rights in the guide on workers"


def is_about_data(error: Exception) -> bool:
    """Return whether a script failed because of what is stored: another writer has changed it."""
    text = str(error)
    if not is_response(error) or error_code(error) in ERRORS:
        return False
    return any(part in text for part in MALFORMED_TEXTS)


def is_response(error: Exception) -> bool:
    """Return whether the error is a response of the server."""
    from redis.exceptions import ResponseError

    return isinstance(error, ResponseError)


def is_reusable(error: Exception) -> bool:
    """Return whether the connection can be used again after the error."""
    return is_response(error) and error_code(error) not in ("READONLY", "UNBLOCKED", "MASTERDOWN")
