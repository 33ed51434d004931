"""References: what a user types to name an image, `[remote:]publisher/name[@version | #channel | @sha256:digest]`.

Without a selector a reference means the channel `stable`. Every part is checked against the names that the whole
project allows before anything is looked up, so no part can climb out of a directory or match as a pattern.
"""

from __future__ import annotations

from dataclasses import dataclass

from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, NameRefusedError
from oscirc_blockstore.image_index import DEFAULT_CHANNEL
from oscirc_blockstore.names import check_channel, check_image, check_local_name, check_publisher, check_version

FORM = "[remote:]publisher/image[@version | #channel | @sha256:digest]"
MAX_REFERENCE_CHARS = 512
_DIGEST_PREFIX = "sha256:"


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference. At most one of `version`, `channel` and `digest` is set; `remote` may be empty."""

    publisher: str
    image: str
    remote: str = ""
    version: str = ""
    channel: str = ""
    digest: Digest | None = None

    def __post_init__(self) -> None:
        check_publisher(self.publisher)
        check_image(self.image)
        if self.remote:
            check_local_name(self.remote, "remote")
        if self.version:
            check_version(self.version)
        if self.channel:
            check_channel(self.channel)
        if bool(self.version) + bool(self.channel) + (self.digest is not None) != 1:
            raise NameRefusedError("a reference has exactly one of version, channel and digest", hint=f"write {FORM}")

    @property
    def name(self) -> str:
        """`publisher/image`."""
        return f"{self.publisher}/{self.image}"

    def __str__(self) -> str:
        remote = f"{self.remote}:" if self.remote else ""
        if self.digest is not None:
            return f"{remote}{self.name}@{_DIGEST_PREFIX}{self.digest.hex()}"
        return f"{remote}{self.name}@{self.version}" if self.version else f"{remote}{self.name}#{self.channel}"


def parse(text: str) -> Reference:
    """The reference in `text`; raise `NameRefusedError` that says which part is wrong and what would be right."""
    if len(text) > MAX_REFERENCE_CHARS:
        raise NameRefusedError(f"a reference of {len(text)} characters is not allowed", hint=f"write {FORM}")
    digest_at = text.find("@" + _DIGEST_PREFIX)
    body = text if digest_at < 0 else text[:digest_at]
    remote, colon, rest = body.rpartition(":")
    if colon and not remote:
        raise NameRefusedError(f"{text!r} has no remote before its colon", hint=f"write {FORM}")
    named, version_mark, version = rest.partition("@")
    named, channel_mark, channel = named.partition("#")
    publisher, slash, image = named.partition("/")
    if not slash:
        raise NameRefusedError(f"{text!r} is not a reference: it has no '/'", hint=f"write {FORM}")
    if (version_mark and (not version or digest_at >= 0)) or (channel_mark and not channel):
        raise NameRefusedError(f"{text!r} says nothing after its last mark, or too much", hint=f"write {FORM}")
    if channel_mark and (version_mark or digest_at >= 0):
        raise NameRefusedError(f"{text!r} names a channel and a version", hint="a reference has one of the two")
    if digest_at >= 0:
        try:
            digest = parse_hex(text[digest_at + 1 + len(_DIGEST_PREFIX) :])
        except DocumentRefusedError as error:
            raise NameRefusedError(str(error), hint="after sha256: stand 64 lower-case hexadecimal digits") from None
        return Reference(publisher, image, remote, digest=digest)
    if version_mark:
        return Reference(publisher, image, remote, version=version)
    return Reference(publisher, image, remote, channel=channel or DEFAULT_CHANNEL)
