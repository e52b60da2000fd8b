"""The text of a failure, with the host, and without any text of aiohttp or of a response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .aiohttp_names import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientPayloadError,
    ClientSSLError,
)
from .connection import HeaderTooLargeError, NotHttpError

__all__ = ["FAILURES", "UntrustedError", "describe", "is_untrusted"]


class UntrustedError(Exception):
    """Nothing may be sent over a connection: the text is the reason."""


FAILURES: Final = (
    ClientError,
    HeaderTooLargeError,
    NotHttpError,
    UntrustedError,
    OSError,
    ValueError,
    RuntimeError,
    EOFError,
)
"""What is raised where a connection or a response fails."""

_CERTIFICATE_ERRORS: Final[Mapping[int | None, str]] = {
    9: "is not valid yet",
    10: "has expired",
    62: "is for another name",
    64: "is for another address",
}
"""By OpenSSL's error number, why a certificate is rejected."""


def is_untrusted(error: BaseException) -> bool:
    """Return whether the service was rejected, and not the request: nothing was sent."""
    return isinstance(error, (ClientConnectorCertificateError, UntrustedError))


def describe(error: BaseException, host: str, max_header: int) -> str:
    """Return a text for *error*, which is one of `FAILURES`, of a request to *host*."""
    if isinstance(error, ClientConnectorDNSError):
        return f"the host name {host} cannot be resolved"
    if isinstance(error, ClientConnectorCertificateError):
        code = getattr(error.certificate_error, "verify_code", None)
        return f"the certificate of {host} {_CERTIFICATE_ERRORS.get(code, 'is not trusted')}"
    if isinstance(error, UntrustedError):
        return f"no connection to {host}: {error}"
    if isinstance(error, ClientSSLError):
        return f"no TLS connection to {host}"
    if isinstance(error, ClientConnectorError):
        return f"no connection to {host}"
    if isinstance(error, ClientPayloadError):
        return f"the connection to {host} broke within the body"
    if isinstance(error, HeaderTooLargeError):
        return f"a header is larger than {max_header} bytes (max_header)"
    if isinstance(error, (NotHttpError, ValueError)):
        return f"the response of {host} is not HTTP"
    return f"the connection to {host} broke before the response"
