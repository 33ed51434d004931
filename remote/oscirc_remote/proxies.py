"""Proxies as a user writes them: checked once, then handed to the libraries in the environment, as everybody does it.

`proxy` and `no_proxy` of the preferences stand behind the variables `http_proxy`, `https_proxy` and `no_proxy`, of
which a spelling in capitals means the same; `OSCIRC_PROXY` and `OSCIRC_NO_PROXY` stand before them. `proxy = "none"`
means a direct way. Only `http://` proxies are spoken to; what is https goes through them as a tunnel.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from urllib.parse import urlsplit

from oscirc_blockstore.errors import UsageError

DIRECT = "none"
MAX_CHARS = 2000
_SCHEMES = ("http_proxy", "https_proxy")


def parse_proxy(text: str) -> str:
    """`http://[USER:PASSWORD@]HOST[:PORT]`, `HOST:PORT`, or `none`; the address in full comes back."""
    wanted = text.strip()
    if wanted.lower() == DIRECT:
        return DIRECT
    address = wanted if "://" in wanted else f"http://{wanted}"
    refused = UsageError(  # not shown whole: it may hold a password
        f"this is not a proxy that can be used: …{wanted.rpartition('@')[2][:80]!r}",
        hint=f"write http://HOST:PORT, or {DIRECT}",
    )
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise refused from None
    strange = len(wanted) > MAX_CHARS or not wanted.isascii() or not wanted.isprintable() or " " in wanted
    if strange or parts.scheme != "http" or not parts.hostname or port == 0 or parts.path.strip("/") or parts.query:
        raise refused
    return f"http://{parts.netloc}"


def parse_exceptions(text: str) -> str:
    """Hosts and domains with commas between them, or `*`, for which no proxy is used."""
    names = [name.strip() for name in text.split(",")]
    if len(text) > MAX_CHARS or not text.isascii() or any(" " in name or not name.isprintable() for name in names):
        raise UsageError(f"{text[:80]!r} is not a list of hosts", hint="write names with commas between them")
    return ",".join(name for name in names if name)


def changes(environment: Mapping[str, str], proxy: str, exceptions: str, *, own: bool = False) -> dict[str, str]:
    """What to set in the environment for these preferences; `own`: they are said by a variable of this program."""
    found: dict[str, str] = {}
    if proxy:
        for name in _SCHEMES:
            if own or not _is_set(environment, name):
                found[name] = "" if proxy == DIRECT else proxy
    if exceptions and (own or not _is_set(environment, "no_proxy")):
        found["no_proxy"] = exceptions
    return found


def apply(environment: MutableMapping[str, str], found: Mapping[str, str]) -> None:
    """Set them, in the spelling that wins, and take the other away."""
    for name, value in found.items():
        environment.pop(name.upper(), None)
        environment[name] = value


def _is_set(environment: Mapping[str, str], name: str) -> bool:
    return bool(environment.get(name) or environment.get(name.upper()))
