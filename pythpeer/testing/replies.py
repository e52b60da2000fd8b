"""How the fake services say yes and no: as PHP does."""

from __future__ import annotations

import json

__all__ = ["RefusedError", "php_json"]


class RefusedError(Exception):
    """A service says no: ``document`` is the body, ``status`` the HTTP status around it."""

    def __init__(self, document: object, *, status: int = 200) -> None:
        super().__init__(document)
        self.document = document
        self.status = status


def php_json(document: object) -> bytes:
    r"""Encode *document* as PHP's ``json_encode`` does: ASCII only, compact, ``/`` as ``\/``."""
    return json.dumps(document, separators=(",", ":")).replace("/", "\\/").encode()
