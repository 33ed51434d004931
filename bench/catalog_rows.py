"""A catalog of a given size, always the same: rows of versions as releases would have left them.

Skewed as catalogs are: few images have hundreds of versions and most have three, a few publishers and families have
most images, some versions are withdrawn. Written through the models, past every signature: for reading lists only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, Yank
from oscirc_server.database import Database
from oscirc_server.models import Document, ImageRow, PublisherUsage, VersionRow
from oscirc_server.services import catalog_changes

FAMILIES = ("debian", "ubuntu", "fedora", "alpine", "arch", "opensuse", "rocky", "freebsd", "openbsd", "nixos", "void")
ARCHITECTURES = ("x86_64", "aarch64", "riscv64", "ppc64le", "s390x")
FLAVOURS = ("minimal", "server", "desktop", "cloud", "router", "builder", "database", "kiosk", "rescue", "lab", "edge")
KINDS = ("desktop", "server")
PUBLISHERS = 240
MOST_VERSIONS = 500
_START = datetime(2022, 1, 1, tzinfo=UTC)
_IMAGES_AT_ONCE = 200


def version_counts(images: int, versions: int, chance: random.Random) -> list[int]:
    """How many versions each image has, `versions` in all: one at least, the first of them many."""
    weights = [1 / (1 + rank) ** 0.8 for rank in range(images)]
    spare = versions - images
    counts = [1 + min(MOST_VERSIONS - 1, int(spare * weight / sum(weights))) for weight in weights]
    while sum(counts) < versions:
        at = chance.randrange(images)
        counts[at] += counts[at] < MOST_VERSIONS
    return counts


def rows(images: int, versions: int) -> Iterator[tuple[dict[str, object], list[dict[str, object]]]]:
    """An image and its versions."""
    chance = random.Random(6)  # noqa: S311  # the same in every run
    family_weights = [1 / (1 + rank) for rank in range(len(FAMILIES))]
    publishers = [f"{chance.choice(FLAVOURS)}-{number}" for number in range(PUBLISHERS)]
    publisher_weights = [1 / (1 + rank) ** 0.7 for rank in range(PUBLISHERS)]
    for number, count in enumerate(version_counts(images, versions, chance)):
        publisher = chance.choices(publishers, publisher_weights)[0]
        family = chance.choices(FAMILIES, family_weights)[0]
        image = f"{family}-{chance.choice(FLAVOURS)}-{number}"
        architecture = chance.choices(ARCHITECTURES, (60, 25, 8, 4, 3))[0]
        made = list(_versions(chance, publisher, image, family, architecture, count))
        said = f"{_title(family, image)} {_summary(family, image)}".lower()
        text = f"{publisher}/{image} {family} {made[-1]['system_version']} {architecture} {said}"
        yield (
            {
                "publisher": publisher,
                "image": image,
                "index_path": f"index/{number}",
                "listed": True,
                "version_count": count,
                "title": _title(family, image),
                "summary": _summary(family, image),
                "search_text": text,
                "updated_s": int(_START.timestamp()),
            },
            made,
        )


def _versions(
    chance: random.Random, publisher: str, image: str, family: str, architecture: str, count: int
) -> Iterator[dict[str, object]]:
    firmware = chance.choices(("uefi", "bios"), (70, 30))[0]
    major, released = chance.randrange(1, 30), _START + timedelta(minutes=chance.randrange(700_000))
    memory = chance.choice((128, 256, 512, 512, 1024, 2048, 4096))
    said = f"{_title(family, image)} {_summary(family, image)}".lower()
    for position in range(count):
        released += timedelta(minutes=chance.randrange(600, 20_000))
        shown = position == count - 1
        yanked = not shown and chance.random() < 0.03
        major += chance.random() < 0.05
        label, disk_size = f"{major}.{position}", chance.randrange(1, 40) << 28
        system_version = f"{major}.{position // 10}"
        yield {
            "publisher": publisher,
            "image": image,
            "label": label,
            "name": f"{publisher}/{image}",
            "position": position,
            "manifest": digest_of(f"{publisher}/{image}@{label}".encode()),
            "state": "yanked" if yanked else "released",
            "state_date": "2026-11-01T00:00:00Z" if yanked else "",
            "state_why": "does not boot on machines with one processor" if yanked else "",
            "security": False,
            "released": released.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "changelog": "Security updates of the base system. " * chance.randrange(1, 9),
            "shown": shown,
            "searched": shown or not yanked,
            "family": family,
            "system_version": system_version,
            "architecture": architecture,
            "firmware": firmware,
            "minimum_memory_mib": memory,
            "default_login": "root without a password",
            "kind": next((kind for kind in KINDS if kind in image), ""),
            "end_of_life": f"{2024 + major % 6}-06-30" if major % 3 else "",
            "block_size": 65536,
            "disk_size": disk_size,
            "data_bytes": disk_size // 3,
            "download_bytes": disk_size // 8,
            "search_text": f"{publisher}/{image} {label} {family} {system_version} {architecture} {firmware} {said}",
        }


def _title(family: str, image: str) -> str:
    return f"{family.capitalize()} {image.rpartition('-')[0].rpartition('-')[2]}"


def _summary(family: str, image: str) -> str:
    return f"{family.capitalize()}, prepared for trying it out: {image} starts without questions and needs no network."


def _document(image: dict[str, object], made: list[dict[str, object]]) -> dict[str, object]:
    """The index that these rows would follow from."""
    versions = tuple(
        ImageVersion(
            str(row["label"]),
            Digest(row["manifest"]),  # type: ignore[arg-type]  # bytes in every row
            str(row["released"]),
            str(row["changelog"]),
            Yank(str(row["state_why"]), str(row["state_date"])) if row["state"] == "yanked" else None,
        )
        for row in made
    )
    index = ImageIndex(str(image["publisher"]), str(image["image"]), versions)
    return {"path": image["index_path"], "raw": index.serialise(), "created_s": image["updated_s"]}


def fill(database: Database, images: int, versions: int) -> None:
    """Write them all, in one transaction; every publisher counts as counted, since there are no tables to count."""
    with database.write() as session:
        for some in batched(rows(images, versions)):
            session.execute(insert(ImageRow), [image for image, _ in some])
            session.execute(insert(Document), [_document(image, made) for image, made in some])
            session.execute(insert(VersionRow), [row for _, made in some for row in made])
        publishers = session.scalars(select(ImageRow.publisher).distinct()).all()
        counted = [{"publisher": name, "unique_bytes": 0, "recount_due": False} for name in publishers]
        session.execute(insert(PublisherUsage), counted)


def batched(
    made: Iterator[tuple[dict[str, object], list[dict[str, object]]]],
) -> Iterator[list[tuple[dict[str, object], list[dict[str, object]]]]]:
    """Images with their versions, some at once."""
    while some := list(islice(made, _IMAGES_AT_ONCE)):
        yield some


def release(session: Session, number: int) -> None:
    """One version more of the image with that number, as a release writes it."""
    newest = session.scalars(
        select(VersionRow).where(VersionRow.shown).order_by(VersionRow.name).offset(number)
    ).first()
    assert newest is not None
    values = {column.name: getattr(newest, column.name) for column in VersionRow.__table__.columns}
    label = f"{newest.label}.1"
    text = newest.search_text.replace(newest.label, label, 1)
    newest.shown = False
    changed = {"label": label, "position": newest.position + 1, "search_text": text}
    session.add(VersionRow(**(values | changed)))
    catalog_changes.note(session, newest.publisher, newest.image)
