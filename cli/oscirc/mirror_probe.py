"""Whether what a user adds as a mirror is one: it is asked for the root of trust that its repository is pinned to.

A mirror is read without trust, so this protects nobody; it spares who mistyped an address a list of mirrors that never
answer, or that answer with something else. One that is down now may be up when it is needed: that is only told.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import (
    NotFoundError,
    NotServedError,
    OversizedResponseError,
    SignatureRefusedError,
    TransportError,
)
from oscirc_remote.deadlines import Deadline
from oscirc_remote.fetching import HttpDocumentSource
from oscirc_remote.remotes import MAX_ROOT_BYTES

if TYPE_CHECKING:
    from oscirc_remote.remotes import Remote
    from oscirc_remote.sources import OpenDocuments

TIMEOUT_S = 5.0
SERVES, UNREACHABLE = "serves it", "unreachable"
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Probed:
    """What became of one address: `outcome` is `SERVES` or `UNREACHABLE`, with the `problem` in words."""

    url: str
    outcome: str
    problem: str = ""


def probe_all(
    remote: Remote, urls: Sequence[str], *, open_documents: OpenDocuments = HttpDocumentSource
) -> tuple[Probed, ...]:
    """Ask all of them, at most `TIMEOUT_S` seconds each.

    Raises `NotFoundError` for one that answers and does not have the root, `SignatureRefusedError` for one that has
    something else under its name: both serve another repository, or none.
    """
    if not urls:
        return ()
    with ThreadPoolExecutor(min(_AT_ONCE, len(urls))) as pool:
        return tuple(pool.map(lambda url: _probe(remote, url, open_documents), urls))


def _probe(remote: Remote, url: str, open_documents: OpenDocuments) -> Probed:
    documents = open_documents(url)
    try:
        path = f"roots/{remote.root_digest.hex()}.json"
        root = documents.fetch_document(path, MAX_ROOT_BYTES, Deadline.after(TIMEOUT_S))
    except NotServedError:
        raise NotFoundError(
            f"{url} answers, but does not serve the repository {remote.name}: it has no {path}",
            hint="look for a typing error; a replica that is still empty can be added after its first sync",
        ) from None
    except OversizedResponseError:
        root = b""
    except TransportError as error:
        return Probed(url, UNREACHABLE, str(error))
    finally:
        documents.close()
    if digest_of(root) != remote.root_digest:
        raise SignatureRefusedError(
            f"{url} serves something else than the repository {remote.name}",
            hint="is it a page that asks to log in, or another repository's mirror?",
        )
    return Probed(url, SERVES)
