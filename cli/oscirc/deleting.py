"""What `oscirc delete` and `oscirc retention apply` share: which versions, what that frees, a question, a signature.

A deletion cannot be taken back, so what it will do is said first, and asked about where a person is at the terminal;
a program says `--yes`. What is deleted is what was shown: another version that came meanwhile stays.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.output import human_bytes, print_json, say
from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError, TransportError, UsageError
from oscirc_blockstore.retention import Choice, Policy, choose

if TYPE_CHECKING:
    from oscirc.composition import VersionReference
    from oscirc_blockstore.image_index import ImageIndex
    from oscirc_publisher.rest import RestClient


@dataclass(frozen=True, slots=True)
class Authority:
    """Whose key signs, and where its passphrase and the token stand."""

    key: str
    passphrase_file: Path | None
    token_file: Path | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Versions of one image (its `reference` has no version of its own), or with `whole_image` the image."""

    reference: VersionReference
    versions: tuple[str, ...]
    whole_image: bool

    @property
    def name(self) -> str:
        """The image."""
        return f"{self.reference.publisher}/{self.reference.image}"


@dataclass(frozen=True, slots=True)
class Freed:
    """What the server says a deletion would free: bytes that nothing else needs; at most so many if not `is_exact`."""

    freed_bytes: int
    is_exact: bool

    def text(self) -> str:
        """For people."""
        return f"{'' if self.is_exact else 'at most '}{human_bytes(self.freed_bytes)}"


def parse(texts: Sequence[str], *, whole_image: bool) -> Wanted:
    """One image's versions, or one image; `UsageError` for anything else."""
    from oscirc.composition import VersionReference, only_remote
    from oscirc_remote import references

    parsed = [references.parse(text) for text in texts]
    first = parsed[0]
    if any(
        (each.remote, each.publisher, each.image) != (first.remote, first.publisher, first.image) for each in parsed
    ):
        raise UsageError("name versions of one image only", hint="delete those of another one with a further call")
    labels = tuple(dict.fromkeys(each.version for each in parsed if each.version))
    if whole_image and (labels or len(parsed) > 1):
        raise UsageError("--whole-image takes the image's name alone", hint="write [REMOTE:]PUBLISHER/IMAGE")
    if not whole_image and not all(each.version for each in parsed):
        raise UsageError(
            f"{first.publisher}/{first.image} names no version",
            hint="write PUBLISHER/IMAGE@VERSION, or --whole-image for all of it",
        )
    remote = only_remote(first.remote or None)
    reference = VersionReference(remote, first.publisher, first.image, labels[0] if labels else "")
    return Wanted(reference, labels, whole_image)


def freed_by(rest: RestClient, wanted: Wanted) -> Freed | None:
    """What the server says; None when it does not."""
    path = f"images/{wanted.name}/deletion"
    try:
        answer = rest.call_json("POST", path, {"labels": list(wanted.versions)})
    except (TransportError, NotFoundError):
        return None
    freed, is_exact = answer.get("freed_bytes"), answer.get("is_exact")
    if not isinstance(freed, int) or isinstance(freed, bool) or freed < 0:
        return None
    return Freed(freed, is_exact is True)


def policy_of(rest: RestClient, wanted: Wanted) -> Policy:
    """The image's policy as its server keeps it; a server may propose less to keep, and what follows is shown."""
    answer = rest.call_json("GET", f"images/{wanted.name}/retention")
    numbers: list[int | None] = []
    for name in ("keep_last", "keep_days"):
        value = answer.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise DocumentRefusedError(f"the server's answer states no usable {name}")
        numbers.append(value)
    try:
        return Policy(*numbers)
    except UsageError as error:
        raise DocumentRefusedError(f"the server's policy is none: {error}") from None


def choices_of(index: ImageIndex, policy: Policy) -> tuple[Choice, ...]:
    """What the policy keeps of what is signed, now."""
    return choose(index, policy, datetime.now(UTC))


def going(wanted: Wanted, choices: Sequence[Choice]) -> Wanted:
    """The versions that are not kept."""
    labels = tuple(each.version.label for each in choices if not each.is_kept)
    return replace(wanted, versions=labels, whole_image=False)


def carry_out(
    wanted: Wanted,
    authority: Authority,
    why: str,
    *,
    policy: Policy | None = None,
    dry_run: bool,
    asks: bool,
    as_json: bool,
) -> None:
    """Say what it is, ask, delete. With a policy: what that does not keep of the image."""
    from oscirc import composition
    from oscirc_publisher import changing

    with composition.signatory(
        wanted.reference, authority.key, authority.passphrase_file, authority.token_file
    ) as signatory:
        wanted, left = _decided(wanted, signatory.served_index(signatory.served_role(), wanted.reference.image), policy)
        freed = freed_by(signatory.rest, replace(wanted, versions=left)) if left else None
        if not as_json:
            _show(wanted, left, freed)
        goes_on = not dry_run and (bool(left) or policy is None)
        changed = False
        if goes_on:
            if asks and left:
                _ask(as_json=as_json)
            if wanted.whole_image:
                changed = changing.delete_image(signatory, wanted.reference.image, why).changed
            else:
                changed = changing.delete(signatory, wanted.reference.image, wanted.versions, why).changed
    if as_json:
        print_json(_document(wanted, left, freed, changed=changed))
    elif goes_on:
        say(f"deleted: {', '.join(left) or wanted.name}" if changed else "it was so already: nothing to do")


def _decided(wanted: Wanted, index: ImageIndex, policy: Policy | None) -> tuple[Wanted, tuple[str, ...]]:
    """What is to be deleted, and what of it is still there; raises now what would be refused later."""
    date = "2026-01-01T00:00:00Z"
    if policy is not None:
        wanted = going(wanted, choices_of(index, policy))
    if wanted.whole_image:
        wanted = replace(wanted, versions=tuple(version.label for version in index.versions))
        index.without_all(date=date)
    else:
        index.without_versions(wanted.versions, date=date)
    return wanted, tuple(label for label in wanted.versions if index.tombstone(label) is None)


def _ask(*, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise UsageError("a deletion cannot be taken back", hint="say --yes, or look with --dry-run")
    click.confirm("Delete for ever?", abort=True, err=True)


def _show(wanted: Wanted, left: Sequence[str], freed: Freed | None) -> None:
    what = "the whole image, " if wanted.whole_image else ""
    count = f"{len(left)} version{'' if len(left) == 1 else 's'}"
    say(f"{wanted.name}: {what}{count}: {', '.join(left) or 'none'}")
    if freed is not None:
        say(f"frees {freed.text()} on the server, about a month from now")


def _document(wanted: Wanted, left: Sequence[str], freed: Freed | None, *, changed: bool) -> dict[str, object]:
    return {
        "image": wanted.name,
        "versions": list(left),
        "whole_image": wanted.whole_image,
        "freed_bytes": None if freed is None else freed.freed_bytes,
        "is_exact": None if freed is None else freed.is_exact,
        "changed": changed,
    }
