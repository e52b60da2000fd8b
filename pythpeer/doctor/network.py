"""Getting as far as a service's door: its name, its port, its certificate.

No request is made here, and no key goes anywhere: the connection is closed once it stands.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import anyio

from .report import Finding, Status

__all__ = ["check_connectivity"]

STEP_TIMEOUT: Final = 10.0
"""Seconds for each step."""

EXPIRY_WARNING_DAYS: Final = 14
"""Days before its end from which on a certificate is worth a warning."""

REASONS: Final = {
    9: "it is not valid yet: this machine's clock may be wrong",
    10: "it has expired, or this machine's clock is wrong",
    18: "it is self-signed",
    19: "it is signed by an authority that is not trusted here",
    20: "it is signed by an authority that is not trusted here",
    21: "it is signed by an authority that is not trusted here",
    62: "it is another host's",
    64: "it is another host's",
}
"""OpenSSL's numbers for why a certificate is not trusted: its own words name hosts."""


async def check_connectivity(
    service: str, url: str, context: ssl.SSLContext | None
) -> list[Finding]:
    """Look up, connect, and check the certificate. Ends with the first problem."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme.lower() == "https"
    port = parts.port or (443 if secure else 80)
    found = [await _check_dns(service, host, port)]
    if found[-1].status is Status.OK:
        found.append(await _connect(service, host, port))
    if found[-1].status is Status.PROBLEM:
        return found
    if secure:
        tls = await _check_tls(service, host, port, context or ssl.create_default_context())
    else:
        tls = Finding(f"{service}.tls", Status.NOTE, "no TLS: plain http to this machine")
    return [*found, tls]


async def _check_dns(service: str, host: str, port: int) -> Finding:
    check = f"{service}.dns"
    try:
        with anyio.fail_after(STEP_TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(host, port)
    except (OSError, UnicodeError):  # a TimeoutError is an OSError
        found = []
    addresses = len({address[4][0] for address in found})
    if addresses:
        return Finding(check, Status.OK, f"{host} has {addresses} address(es)")
    return Finding(
        check,
        Status.PROBLEM,
        f"{host} cannot be resolved",
        "check the network, the name server, and the service's address in the settings",
    )


async def _connect(service: str, host: str, port: int) -> Finding:
    check = f"{service}.tcp"
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        with anyio.fail_after(STEP_TIMEOUT):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        why = f"no connection to {host}:{port} within {STEP_TIMEOUT:.0f} s"
    except OSError:
        why = f"no connection to {host}:{port}"
    else:
        taken = loop.time() - started
        await _close(writer)
        return Finding(check, Status.OK, f"{host}:{port} accepts connections ({taken:.2f} s)")
    return Finding(
        check,
        Status.PROBLEM,
        why,
        "the service is down, or a firewall is between; proxies of the environment are not used",
    )


async def _check_tls(service: str, host: str, port: int, context: ssl.SSLContext) -> Finding:
    check = f"{service}.tls"
    try:
        with anyio.fail_after(STEP_TIMEOUT):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as error:
        reason = REASONS.get(error.verify_code, "it cannot be verified")
        return Finding(
            check,
            Status.PROBLEM,
            f"the certificate is not trusted: {reason}",
            "no key was sent. Behind a company's proxy, or with a private authority, give Session "
            "an ssl_context that knows it; else do not go on",
        )
    except (OSError, EOFError):
        text = "no TLS connection: it broke off, or the versions do not fit"
        return Finding(check, Status.PROBLEM, text, "see whether this is the right port")
    certificate: dict[str, object] = writer.get_extra_info("peercert") or {}
    version = writer.get_extra_info("ssl_object").version()
    await _close(writer)
    return _expiry(check, str(version), str(certificate.get("notAfter", "")))


def _expiry(check: str, version: str, ends: str) -> Finding:
    try:
        end = datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC)
    except ValueError:
        return Finding(check, Status.OK, f"{version}, the certificate is trusted")
    days = (end - datetime.now(UTC)).days
    text = f"{version}, the certificate is trusted, and ends in {days} days ({end:%Y-%m-%d})"
    if days > EXPIRY_WARNING_DAYS:
        return Finding(check, Status.OK, text)
    advice = "it is the service's to renew; after that day nothing works"
    return Finding(check, Status.WARNING, text, advice)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        with anyio.move_on_after(1.0):
            await writer.wait_closed()
