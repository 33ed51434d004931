import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError
from oscirc_remote.pins import Pins

from .fakes import BLOCK_SIZE, block, make_image


def manifest(number):
    made, _ = make_image({0: block(number)}, BLOCK_SIZE)
    return digest_of(made.serialise()), made


def test_pins_come_back_with_their_manifests(tmp_path):
    pins = Pins(tmp_path)
    for number in (1, 2):
        assert pins.add(*manifest(number), f"home:alice/debian@{number}", str(number))
    assert not pins.add(*manifest(1), "called otherwise now", "1")
    found = Pins(tmp_path).list()
    assert {(pin.digest, pin.manifest) for pin in found} == {manifest(1), manifest(2)}
    assert {pin.reference for pin in found} == {"home:alice/debian@1", "home:alice/debian@2"}


def test_a_pin_is_removed_once(tmp_path):
    pins = Pins(tmp_path)
    digest, made = manifest(1)
    pins.add(digest, made, "alice/debian", "1")
    assert pins.remove(digest)
    assert not pins.remove(digest)
    assert pins.list() == []


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json", b'{"format":"oscirc-pin-1"}'])
def test_a_pin_that_cannot_be_read_is_an_error_and_not_no_pin(tmp_path, damage):
    pins = Pins(tmp_path)
    digest, made = manifest(1)
    pins.add(digest, made, "alice/debian", "1")
    (file,) = tmp_path.glob("*.json")
    file.write_bytes(damage)
    with pytest.raises(LocalError):
        pins.list()


def test_a_manifest_under_another_digest_is_refused(tmp_path):
    pins = Pins(tmp_path)
    pins.add(*manifest(1), "alice/debian", "1")
    (file,) = tmp_path.glob("*.json")
    file.rename(tmp_path / f"{manifest(2)[0].hex()}.json")
    with pytest.raises(LocalError):
        pins.list()
