import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_server.mirroring.tree_objects import Kind, recognise
from oscirc_server.tree_paths import is_tree_path

HEX = digest_of(b"x").hex()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("metadata/timestamp.json", Kind.TIMESTAMP),
        ("metadata/3.root.json", Kind.ROOT),
        ("metadata/3.alice.json", Kind.ROLE),
        ("metadata/12.snapshot.json", Kind.ROLE),
        (f"targets/{HEX}.repository.json", Kind.DOCUMENT),
        (f"targets/alice/{HEX}.debian-12.json", Kind.DOCUMENT),
        (f"roots/{HEX}.json", Kind.DOCUMENT),
        (f"manifests/{HEX}.json", Kind.DOCUMENT),
        (f"blocks/sha256/{HEX[:2]}/{HEX}.zst", Kind.BLOCK),
        (f"accel/{HEX}", Kind.ACCELERATOR),
        (f"accel/{HEX}.json", Kind.LISTING),
        ("accel/hints/alice/debian.json", Kind.HINT),
    ],
)
def test_each_path_of_the_tree_is_known_by_its_form(path, kind):
    assert is_tree_path(path)
    found = recognise(path)
    assert found is not None
    assert found.kind is kind
    if HEX in path:
        assert found.digest is not None
        assert found.digest.hex() == HEX


@pytest.mark.parametrize(
    "path",
    [
        f"blocks/sha256/00/{HEX}.zst",
        f"blocks/sha256/{HEX[:2]}/{HEX}",
        f"blocks/{HEX}.zst",
        "manifests/x.json",
        f"manifests/{HEX.upper()}.json",
        f"targets/a/b/{HEX}.x.json",
        "targets/alice/debian.json",
        "accel/x",
        "accel/hints/alice/a/b.json",
        "metadata/0.root.json",
        "metadata/x.json",
    ],
)
def test_nothing_else_is_fetched(path):
    assert recognise(path) is None
