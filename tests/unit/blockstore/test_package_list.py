import pytest

from oscirc_blockstore import canonical, package_list
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError

DISK = digest_of(b"a disk")


def document(**changes):
    plain = {"format": package_list.FORMAT, "manifest": DISK.hex(), "packages": {"bash": "5.2-2"}}
    return canonical.serialise(plain | changes)


def test_a_list_is_read_as_it_was_written():
    made = package_list.of(DISK, {"bash": "5.2-2", "libc6:i386": "2.36"})
    assert package_list.parse(made.serialise()) == made


def test_what_cannot_be_shown_is_left_out_when_a_list_is_made():
    made = package_list.of(DISK, {"bash": "5", "x\x1b[2J": "1", "y": "\u202e1", "z" * 201: "1"})
    assert made.packages == {"bash": "5"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        document(format="oscirc-packages-2"),
        document(manifest="00"),
        document(packages=["bash"]),
        document(packages={"bash": 5}),
        document(packages={"bash": "5\n6"}),
        document(packages={"\u202ehsab": "5"}),
        document(packages={"b" * 201: "5"}),
        document(packages={f"p{number}": "1" for number in range(package_list.MAX_LISTED + 1)}),
        document(more=1),
        document() + b" ",
        b" " * (package_list.MAX_BYTES + 1),
    ],
)
def test_another_document_is_refused(raw):
    with pytest.raises(DocumentRefusedError):
        package_list.parse(raw)
