"""The page of one image: how to run it, what that costs, who signed it and how to check that by hand, its versions."""

from __future__ import annotations

import shlex
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from oscirc_blockstore import accelerators
from oscirc_blockstore.digests import parse_hex
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.images import image_document
from oscirc_server.clock import date_text
from oscirc_server.models import AcceleratorRow
from oscirc_server.services import catalog, screenshots
from oscirc_server.services.catalog import ImageFacts, PublisherFacts, VersionFacts
from oscirc_server.services.screenshots import Picture
from oscirc_server.web import readme, rendering, version_pages
from oscirc_server.web.drawings import Bar, scaled_bars
from oscirc_server.web.ways import ways

_PROFILE: Final = "boot"

router = APIRouter(include_in_schema=False)


@router.api_route("/images/{publisher}/{image}", methods=["GET", "HEAD"])
def image_page(publisher: str, image: str, request: Request, installation: CurrentInstallation) -> Response:
    """One image with all its versions, or the same as JSON."""
    with installation.database.read() as session:
        facts = catalog.image(session, publisher, image)
        if rendering.wants_json(request):
            return JSONResponse(image_document(facts).model_dump(), headers={"Vary": "Accept"})
        signer = catalog.publisher(session, publisher)
        shown = next((version for version in facts.versions if version.label == facts.shown), None)
        boot_bytes = None if shown is None else _boot_bytes(session, shown)
        pictures = [] if shown is None else _pictures(session, shown)
        values = rendering.common(session, request, "../../")
        versions = version_pages.timeline(session, publisher, image)
    base, _, root = str(values["remote"]).partition("#sha256=")
    found = {**values, "image": facts, "signer": signer, "shown": shown, "boot_bytes": boot_bytes}
    found |= {"versions": versions, "pictures": pictures}
    found["bars"] = [] if shown is None else _bars(shown, boot_bytes)
    found["ways"] = [] if shown is None else ways(facts, shown, str(values["remote"]), str(values["local_name"]))
    found["checks"] = [] if shown is None else checks(facts, shown, signer, base.rstrip("/"), root)
    ends = "" if shown is None else facts.about.ends(shown.system.version)
    found |= {"about": facts.about, "ends": ends, "ended": bool(ends) and ends < date_text(installation.clock())[:10]}
    found["readme"] = readme.rendered(facts.about.readme) if facts.about.readme else ""
    found["homepage_host"] = readme.host_of(facts.about.homepage)
    return rendering.page("image.html", found)


def _boot_bytes(session: Session, version: VersionFacts) -> int | None:
    """What a recorded boot fetches: its bundle's length; None where none was recorded."""
    row = session.get(AcceleratorRow, (parse_hex(version.manifest), accelerators.BUNDLE, _PROFILE))
    return None if row is None else row.length


def _pictures(session: Session, version: VersionFacts) -> list[Picture]:
    digest = parse_hex(version.manifest)
    return screenshots.of_manifests(session, [digest])[digest]


def _bars(version: VersionFacts, boot_bytes: int | None) -> list[Bar]:
    sizes = [
        ("to boot it", boot_bytes),
        ("to hold all of it", version.download_bytes),
        ("the disk's size", version.disk_size),
    ]
    return scaled_bars([(label, size) for label, size in sizes if size is not None])


def checks(
    image: ImageFacts, version: VersionFacts, signer: PublisherFacts, base: str, root: str
) -> list[tuple[str, str, str]]:
    """(what, what it must be, the command that shows it) of what can be checked without this program."""
    return [
        ("the root of trust", root, f"curl -fs {shlex.quote(f'{base}/roots/{root}.json')} | sha256sum"),
        (
            f"the manifest of {version.label}",
            version.manifest,
            f"curl -fs {shlex.quote(f'{base}/manifests/{version.manifest}.json')} | sha256sum",
        ),
        *(
            (f"a key of {image.publisher}, as its owner tells it", fingerprint, "oscirc key show NAME")
            for fingerprint in signer.fingerprints
        ),
    ]
