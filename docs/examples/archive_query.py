"""Prints the ten senders with the most messages in the archive."""

import sqlite3

QUERY = """
    SELECT json_extract(item, '$.by') AS sender, count(*) AS messages,
           max(json_extract(item, '$.date')) AS last
    FROM entry JOIN log ON log.id = entry.log
    WHERE log.topic LIKE 'peerbet.chat %' AND item IS NOT NULL
    GROUP BY sender ORDER BY messages DESC LIMIT 10
"""
archive = sqlite3.connect("file:archive.sqlite?mode=ro", uri=True)
for sender, messages, last in archive.execute(QUERY):
    print(f"{messages:6} {sender!r:20} {last!r}")  # both texts come from the service
archive.close()
