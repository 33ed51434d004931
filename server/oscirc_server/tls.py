"""TLS for a server without a web server in front: TLS 1.2 and 1.3, forward secrecy only, certificates renewed in place.

`read` gives the context or says in words what is wrong with the files. `read_anew` loads renewed files into a context
in use: connections that stand go on, new ones get the new certificate; files that do not fit change nothing.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from oscirc_blockstore.errors import LocalError, UsageError

_CIPHERS_OF_TLS_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for path, what in ((certificate, "certificate"), (key, "key")):
        try:
            path.read_bytes()
        except OSError as error:
            raise LocalError(f"cannot read the {what} {path}: {error.strerror}") from None
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")  # never asks on the terminal
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        raise UsageError(
            f"{certificate} and {key} cannot be used: {reason.lower().replace('_', ' ')}",
            hint="a PEM certificate with its chain, and its own key without a passphrase",
        ) from None


def read(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS_OF_TLS_1_2)
    context.set_alpn_protocols(["http/1.1"])
    _load(context, certificate, key)
    return context


def read_anew(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Take renewed files; raises as `read` does, and the context stays as it was."""
    read(certificate, key)  # a pair that does not fit would leave the context with half of it
    _load(context, certificate, key)
