"""Puts a picture of a released version beside it: made into one file with its words, uploaded, listed by the server."""

from __future__ import annotations

from oscirc_blockstore import screenshot
from oscirc_blockstore.accelerators import SCREENSHOT
from oscirc_blockstore.digests import Digest, digest_of
from oscirc_publisher.accelerating import VersionName, listed_accelerators
from oscirc_publisher.rest import Body, RestClient


def add(client: RestClient, name: VersionName, manifest: Digest, called: str, alt: str, png: bytes) -> bool:
    """Whether it was sent: the very same may be there already. What stood there under that name is replaced."""
    raw = screenshot.build(manifest, alt, png)
    digest = digest_of(raw)
    there = {(each.kind, each.name, each.sha256) for each in listed_accelerators(client, name)}
    if (SCREENSHOT, called, digest) in there:
        return False
    client.call("PUT", f"{name.path}/accelerators/{SCREENSHOT}/{called}?sha256={digest.hex()}", Body.of(raw))
    return True
