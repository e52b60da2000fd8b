"""Connectivity checks of one service: DNS, TCP, TLS.

No request is made and no key is sent: each connection is closed as soon as it is open.
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
"""Seconds within which each step must succeed."""

EXPIRY_WARNING_DAYS: Final = 14
"""Days before its expiry from which a certificate is a warning."""

REASONS: Final = {
    9: "it is not valid yet: this machine's clock may be wrong",
    10: "it has expired, or this machine's clock is wrong",
    18: "it is self-signed",
    19: "it is signed by an authority that is not trusted on this machine",
    20: "it is signed by an authority that is not trusted on this machine",
    21: "it is signed by an authority that is not trusted on this machine",
    62: "it is the certificate of another host",
    64: "it is the certificate of another host",
}
"""OpenSSL's codes for why a certificate is not trusted; its own texts contain host names."""


async def check_connectivity(
    service: str, url: str, context: ssl.SSLContext | None
) -> list[Finding]:
    """Resolve the name, connect, check the certificate; stop at the first problem."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme.lower() == "https"
    port = parts.port or (443 if secure else 80)
    findings = [await _check_dns(service, host, port)]
    if findings[-1].status is Status.OK:
        findings.append(await _connect(service, host, port))
    if findings[-1].status is Status.PROBLEM:
        return findings
    if secure:
        tls = await _check_tls(service, host, port, context or ssl.create_default_context())
    else:
        tls = Finding(f"{service}.tls", Status.NOTE, "no TLS: plain http to this machine")
    return [*findings, tls]


async def _check_dns(service: str, host: str, port: int) -> Finding:
    check = f"{service}.dns"
    try:
        with anyio.fail_after(STEP_TIMEOUT):
            resolved = await asyncio.get_running_loop().getaddrinfo(host, port)
    except (OSError, UnicodeError):  # a TimeoutError is an OSError
        resolved = []
    addresses = len({address[4][0] for address in resolved})
    if addresses:
        number = "an address" if addresses == 1 else f"{addresses} addresses"
        return Finding(check, Status.OK, f"{host} has {number}")
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
        text = f"no connection to {host}:{port} within {STEP_TIMEOUT:.0f} s"
    except OSError:
        text = f"no connection to {host}:{port}"
    else:
        seconds = loop.time() - started
        await _close(writer)
        return Finding(check, Status.OK, f"{host}:{port} accepts connections ({seconds:.2f} s)")
    return Finding(
        check,
        Status.PROBLEM,
        text,
        "the service is down, or a firewall blocks it; proxies of the environment are not used",
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
            "an ssl_context that trusts it; otherwise do not continue",
        )
    except (OSError, EOFError):
        text = "no TLS connection: it was closed, or there is no common version"
        return Finding(check, Status.PROBLEM, text, "check whether this is the right port")
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
    text = f"{version}, the certificate is trusted, and expires in {days} days ({end:%Y-%m-%d})"
    if days > EXPIRY_WARNING_DAYS:
        return Finding(check, Status.OK, text)
    advice = "the service must renew it; after that day nothing works"
    return Finding(check, Status.WARNING, text, advice)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        with anyio.move_on_after(1.0):
            await writer.wait_closed()
