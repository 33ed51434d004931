"""Screenshots at the server: taken when they are plain pictures of that disk, listed, shown, and never more than that."""

import hashlib
import re
import zlib
from xml.etree import ElementTree as ET

import pytest
from support.pictures import HEIGHT, WIDTH, chunk, header, picture

from oscirc_blockstore import accelerators as documents
from oscirc_blockstore import package_list, png, screenshot
from oscirc_blockstore.accelerators import SCREENSHOT

from .server_world import Api, block

pytestmark = pytest.mark.usefixtures("no_block_lengths")

VERSION = "images/alice/debian/versions/1.0"
PAGE = "/images/alice/debian"
ALT = "Console of alice/debian 1.0 at its login prompt"


@pytest.fixture
def disk(api, alice):
    """Released as debian@1.0 and `stable`."""
    built = alice.build("debian", [block("a"), None, block("b")])
    assert api.publish(alice, "debian", "1.0", built).status_code == 200
    return built


def put(api, raw, name="console", *, version=VERSION):
    stated = hashlib.sha256(raw).hexdigest()
    return api.call("PUT", f"{version}/accelerators/screenshot/{name}", params={"sha256": stated}, content=raw)


def forged(disk, raw, alt="x", width=WIDTH, height=HEIGHT):
    """The file of a picture that `build` would not make."""
    head = screenshot.build(disk.digest, "x", picture()).partition(b"\n")[0]
    changed = head.replace(b'"alt":"x"', b'"alt":"' + alt.replace('"', '\\"').encode() + b'"')
    changed = changed.replace(b'"height":%d' % HEIGHT, b'"height":%d' % height)
    return changed.replace(b'"width":%d' % WIDTH, b'"width":%d' % width) + b"\n" + raw


def test_a_screenshot_is_listed_and_shown_with_words_and_size(world, http, api, disk):
    raw = screenshot.build(disk.digest, ALT, picture())
    digest = hashlib.sha256(raw).hexdigest()
    answer = put(api, raw)
    assert answer.status_code == 200, answer.text
    shown = {"path": f"screenshots/{digest}.png", "width": WIDTH, "height": HEIGHT, "alt": ALT}
    assert answer.json()["picture"] == shown
    (listed,) = http.get(f"/api/v1/{VERSION}/accelerators").json()["accelerators"]
    assert (listed["kind"], listed["name"], listed["picture"]) == ("screenshot", "console", shown)
    public = documents.parse_listing((world.tree / documents.listing_path(disk.digest)).read_bytes())
    assert public.find(SCREENSHOT, "console").sha256.hex() == digest
    (image,) = re.findall(r"<img [^>]*>", http.get(PAGE).text)
    assert f'src="../../screenshots/{digest}.png"' in image
    assert f'alt="{ALT}" width="{WIDTH}" height="{HEIGHT}"' in image


def test_the_picture_is_served_as_a_picture_and_as_nothing_else(http, api, disk):
    raw = screenshot.build(disk.digest, ALT, picture())
    path = f"/{put(api, raw).json()['picture']['path']}"
    answer = http.get(path)
    assert (answer.status_code, answer.content) == (200, picture())
    for name, value in {
        "content-type": "image/png",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cache-control": "public, max-age=31536000, immutable",
        "cross-origin-resource-policy": "same-origin",
    }.items():
        assert answer.headers[name] == value
    assert http.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    head = http.head(path)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(picture())))
    file = http.get(f"/accel/{hashlib.sha256(raw).hexdigest()}")
    assert (file.headers["content-type"], file.headers["x-content-type-options"]) == (
        "application/octet-stream",
        "nosniff",
    )
    assert file.content.startswith(b"{")


@pytest.mark.parametrize(
    "address", ["x", "../secret", f"{'0' * 64}.png", f"{'0' * 64}", f"{'A' * 64}.png", f"{'0' * 64}.png/x", "0.svg"]
)
def test_another_address_is_not_found_and_not_kept(http, disk, address):
    answer = http.get(f"/screenshots/{address}")
    assert answer.status_code == 404
    assert answer.headers["cache-control"] == "no-store"


def test_a_file_of_another_kind_is_no_picture(http, api, disk):
    raw = b"{}"
    assert http.get(f"/screenshots/{hashlib.sha256(raw).hexdigest()}.png").status_code == 404
    listed = package_list.of(disk.digest, {"bash": "1"}).serialise()
    stated = hashlib.sha256(listed).hexdigest()
    path = f"{VERSION}/accelerators/packages/installed"
    assert api.call("PUT", path, params={"sha256": stated}, content=listed).status_code == 200
    assert http.get(f"/screenshots/{stated}.png").status_code == 404


def test_what_changed_at_rest_is_not_shown(world, http, api, disk, installation):
    raw = screenshot.build(disk.digest, ALT, picture())
    path = put(api, raw).json()["picture"]["path"]
    installation.storage.replace(f"accel/{hashlib.sha256(raw).hexdigest()}", raw[:-1] + b"\0")
    assert http.get(f"/{path}").status_code >= 400


def test_one_that_was_replaced_or_removed_is_shown_no_more(http, api, disk):
    first = put(api, screenshot.build(disk.digest, "one", picture())).json()["picture"]
    second = put(api, screenshot.build(disk.digest, "two", picture())).json()["picture"]
    assert http.get(f"/{first['path']}").status_code == 404
    assert 'alt="two"' in http.get(PAGE).text
    assert api.call("DELETE", f"{VERSION}/accelerators/screenshot/console").status_code == 204
    assert http.get(f"/{second['path']}").status_code == 404
    assert "<img" not in http.get(PAGE).text


def test_a_page_shows_a_few_and_names_are_in_order(http, api, disk):
    for number in range(9):
        put(api, screenshot.build(disk.digest, f"number {number}", picture()), f"n{number}")
    found = re.findall(r'<img [^>]*alt="number (\d)"', http.get(PAGE).text)
    assert found == ["0", "1", "2", "3", "4", "5"]
    assert len(http.get(f"/api/v1/{VERSION}/accelerators").json()["accelerators"]) == 9


def test_a_card_of_the_list_shows_the_first_of_the_version_that_stands_for_the_image(http, api, alice, disk):
    assert "<img" not in http.get("/").text
    for name in ("b", "a"):
        put(api, screenshot.build(disk.digest, f"<{name}>", picture()), name)
    newer = alice.build("debian", [block("n")])
    assert api.publish(alice, "debian", "2.0", newer).status_code == 200
    assert "<img" not in http.get("/").text
    path = put(api, screenshot.build(newer.digest, "new", picture()), version=VERSION.replace("1.0", "2.0")).json()
    (image,) = re.findall(r"<img [^>]*>", http.get("/").text)
    assert f'src="{path["picture"]["path"]}" alt="new" width="{WIDTH}" height="{HEIGHT}" loading="lazy"' in image
    assert "<img" not in http.get("/?view=table").text


def test_one_file_may_stand_under_two_names(http, api, disk):
    raw = screenshot.build(disk.digest, ALT, picture())
    path = put(api, raw, "a").json()["picture"]["path"]
    put(api, raw, "b")
    api.call("DELETE", f"{VERSION}/accelerators/screenshot/a")
    assert http.get(f"/{path}").status_code == 200


def test_hostile_pictures_are_refused(http, api, alice, disk):
    other = alice.build("debian", [block("z")])
    bomb = chunk(b"IDAT", zlib.compress(bytes(8 << 20), 9))
    for raw in (
        picture(),
        screenshot.build(other.digest, ALT, picture()),
        forged(disk, picture(behind=b"<html><script>alert(1)</script>")),
        forged(disk, picture(between=chunk(b"tEXt", b"Comment\0<script>"))),
        forged(disk, picture(head=header(width=4000)), width=3840),
        forged(disk, picture(), width=WIDTH + 1),
        forged(disk, picture(data=bomb)),
        forged(disk, b"GIF89a" + picture()),
        forged(disk, b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        forged(disk, picture(), alt="\u202egnp"),
        forged(disk, picture(), alt=""),
        forged(disk, picture(), alt="a" * 301),
    ):
        answer = put(api, raw)
        assert answer.status_code == 422, answer.text
    assert put(api, forged(disk, bytes(png.MAX_BYTES + 5000))).status_code == 413
    assert put(api, screenshot.build(disk.digest, ALT, picture()), "<b>").status_code == 400
    assert http.get(f"/api/v1/{VERSION}/accelerators").json()["accelerators"] == []


def test_markup_in_the_words_is_text(http, api, disk):
    hostile = "\"'><img src=x onerror=alert(1)></figure>&amp;" + "w" * 200
    put(api, screenshot.build(disk.digest, hostile, picture()))
    text = http.get(PAGE).text
    assert "onerror=alert(1)>" not in text
    start = text.index('<section class="screenshots"')
    drawn = ET.fromstring(text[start : text.index("</section>", start) + 10].replace("></a>", "/></a>", 1))  # noqa: S314
    assert [each.get("alt") for each in drawn.iter("img")] == [hostile]
    assert [each.text for each in drawn.iter("figcaption")] == [hostile]


def test_another_publisher_sends_none(world, http, disk):
    world.add_publisher("bob")
    bob = Api(http, world.token("publish:bob"))
    assert put(bob, screenshot.build(disk.digest, ALT, picture())).status_code == 403
