"""What is sent arrives at PHP, with which both services are written: its own decoder reads it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from typing import Final

import pytest
from helpers import DEEP

from pythpeer import Endpoint, Secret
from pythpeer.wire.query import render_query
from pythpeer.wire.request import Request

pytestmark = pytest.mark.skipif(not shutil.which("php"), reason="there is no PHP on this machine")

COUNT: Final = 100_000 if DEEP else 2_000
"""How many queries are decoded, by one process."""

SPECIAL: Final = " +%&=#?/\\\"'<>;[].~\t\r\n\x01\x7fàé€あ👩‍👩‍👧\u202e\ufeff\U0010ffff"
"""Characters with a meaning in a URL, in HTML or in PHP, and some of every length in UTF-8."""

DECODE: Final = """
    foreach (json_decode(stream_get_contents(STDIN)) as $query) {
        parse_str($query, $fields);
        $decoded[] = [$fields['msg'], $fields['key'], count($fields)];
    }
    echo json_encode($decoded);
"""


def random_text(rng: random.Random) -> str:
    """Return a text of special and of any other characters that can be sent."""
    return "".join(
        rng.choice(SPECIAL)
        if rng.random() < 0.5
        else chr(rng.choice((97, rng.randrange(1, 0xD800))))
        for _ in range(rng.randrange(1, 12))
    )


def test_php_decodes_every_query() -> None:
    """Texts and keys are what they were, and no text adds a field."""
    rng = random.Random(COUNT)
    endpoint = Endpoint("mine", "https://example.com")
    sent: list[tuple[str, str]] = []
    queries: list[str] = []
    for _ in range(COUNT):
        text, key = random_text(rng), f"k{rng.randrange(10**9)}{rng.choice(SPECIAL[:16])}é"
        request = Request(endpoint, {"msg": text, "key": Secret(key)})
        sent.append((text, key))
        queries.append(render_query(request.segments))
    run = subprocess.run(
        ["php", "-d", "memory_limit=-1", "-r", DECODE],
        input=json.dumps(queries).encode(),
        capture_output=True,
        check=True,
    )
    received = json.loads(run.stdout)
    assert len(received) == COUNT
    for (text, key), (msg, key_field, count) in zip(sent, received, strict=True):
        assert (msg, key_field, count) == (text, key, 2)
