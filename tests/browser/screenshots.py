"""`make screenshots`: renders the main pages, light and dark, into docs/screenshots/ from the demonstration catalog.

All are of fixed sizes. The repository calls itself by an address that nobody has, and all that is in it is made up, the
picture of a guest's console, too. They are written with a palette (by Pillow, which matplotlib brings).
"""

from __future__ import annotations

import base64
import html
import io
import sys
import tempfile
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from PIL import Image  # noqa: E402
from playwright.sync_api import Browser  # noqa: E402

from oscirc_blockstore import png_making  # noqa: E402
from oscirc_blockstore.png_making import Picture  # noqa: E402
from tests.browser import demo_catalog  # noqa: E402
from tests.browser.browsing import NOBODY, Browsing, Setting, launched, usable_chromium  # noqa: E402
from tests.browser.demo_catalog import ADMINISTRATOR, PUBLISHER  # noqa: E402

PAGES = {
    "list": ("/", NOBODY, 900),
    "image": ("/images/alice/debian", NOBODY, 1500),
    "updates": ("/images/alice/debian/updates", NOBODY, 1300),
    "publisher": ("/publishers/alice", PUBLISHER, 900),
    "storage": ("/admin/storage", ADMINISTRATOR, 900),
}
WIDTH = 1200
SCALE = 10
COLOURS = 128
PUBLIC_URL = "https://images.example/repo"
CONSOLE = """\
[    1.204417] virtio_blk virtio1: [vda] 4194304 512-byte logical blocks
[    1.219803]  vda: vda1 vda2
[    1.587311] EXT4-fs (vda2): mounted filesystem with ordered data mode
[    2.310944] random: crng init done
 * Network: 10.0.2.15, gateway 10.0.2.2
 * Started: sshd

Welcome to {0} (tty1)

{0} login: █"""
STYLE = "margin: 0; padding: 6px; background: #000; color: #bbb; font: 14px/17px monospace; white-space: pre-wrap"


def console(browser: Browser, image: str) -> bytes:
    """A picture of a guest's text console."""
    page = browser.new_page(viewport={"width": 720, "height": 400})
    page.set_content(f'<body style="{STYLE}">{html.escape(CONSOLE.format(image))}')
    seen = page.evaluate(PIXELS, base64.b64encode(page.screenshot()).decode())
    page.close()
    return png_making.encode(Picture(720, 400, base64.b64decode(seen)))


# A PNG's pixels without their transparency, decoded by the browser that made it.
PIXELS = """async (png) => {
  const picture = await createImageBitmap(await (await fetch("data:image/png;base64," + png)).blob());
  const canvas = new OffscreenCanvas(picture.width, picture.height), pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0);
  const from = pen.getImageData(0, 0, picture.width, picture.height).data;
  let text = "";
  for (let at = 0; at < from.length; at += 4) text += String.fromCharCode(from[at], from[at + 1], from[at + 2]);
  return btoa(text);
}"""


def main() -> None:
    """Render all of them."""
    target = ROOT / "docs" / "screenshots"
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="oscirc-screenshots-") as name, launched(usable_chromium()) as browser:
        facts = {"scale": SCALE, "hostile": False, "public_url": PUBLIC_URL, "picture": partial(console, browser)}
        with demo_catalog.served(demo_catalog.made(Path(name), **facts)) as catalog:
            render(Browsing(browser, catalog), target)


def render(browsing: Browsing, target: Path) -> None:
    """Each page, light and dark."""
    for name, (path, visitor, height) in PAGES.items():
        for scheme in ("light", "dark"):
            with browsing.open(Setting(scheme=scheme, size=(WIDTH, height)), visitor) as (page, watch):
                page.goto(browsing.catalog.url + path, wait_until="networkidle")
                picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                picture.quantize(COLOURS, dither=Image.Dither.NONE).save(target / f"{name}-{scheme}.png", optimize=True)
                if watch.wrong:
                    raise SystemExit("\n".join(watch.wrong))
            print(f"{name}-{scheme}.png: {(target / f'{name}-{scheme}.png').stat().st_size} bytes")


if __name__ == "__main__":
    main()
