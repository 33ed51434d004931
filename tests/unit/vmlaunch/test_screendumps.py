"""What QEMU wrote of a display becomes pixels within bounds, and leaves no file."""

import asyncio
from types import SimpleNamespace

import pytest

from oscirc_blockstore.errors import LocalError
from oscirc_blockstore.png_making import Picture
from oscirc_vmlaunch import qmp, screendumps

PIXELS = bytes(range(18))
PPM = b"P6\n3 2\n255\n" + PIXELS


def machine_of(qemu, directory):
    instance = SimpleNamespace(directory=directory)
    return SimpleNamespace(instance=instance, monitor=lambda: qmp.connect(qemu.path))


def test_the_display_is_asked_for_and_its_file_removed(fake_qemu, tmp_path):
    async def go():
        async with fake_qemu() as qemu:
            qemu.answers["screendump"] = {}
            (tmp_path / "screen.ppm").write_bytes(PPM)
            return await screendumps.take(machine_of(qemu, tmp_path)), qemu.asked

    picture, asked = asyncio.run(go())
    assert picture == Picture(3, 2, PIXELS)
    assert asked == ["screendump"]
    assert not (tmp_path / "screen.ppm").exists()


def test_a_guest_without_a_display_is_an_error_in_qemus_words(fake_qemu, tmp_path):
    async def go():
        async with fake_qemu() as qemu:
            await screendumps.take(machine_of(qemu, tmp_path))

    with pytest.raises(LocalError, match="no screendump here"):
        asyncio.run(go())


def test_a_file_that_is_not_there_is_an_error_of_ours(tmp_path):
    with pytest.raises(LocalError, match="cannot read"):
        screendumps.read(tmp_path / "none")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"P5" + PPM[2:],
        PPM[:-1],
        PPM + b"\0",
        b"P6\n0 2\n255\n",
        b"P6\n3841 2161\n255\n",
        b"P6\n99999 99999\n255\n",
        b"P6\n3 2\n65535\n" + PIXELS,
        b"P6\n-3 2\n255\n" + PIXELS,
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_another_file_is_refused(raw):
    with pytest.raises(LocalError):
        screendumps.parse(raw)
