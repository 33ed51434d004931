"""The copy of a repository's tree that lies, and does not touch what it was copied from."""

import mirrors
import pytest
from mirrors import EVERY, STRETCH, Damage


@pytest.fixture
def tree(tmp_path):
    """Forty block files and a bundle of 25 stretches."""
    made = tmp_path / "tree"
    for number in range(40):
        file = made / "blocks" / "sha256" / f"{number:02}" / f"{number:064}.zst"
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes([number]) * 100)
    (made / "accel").mkdir()
    (made / "accel" / "b0").write_bytes(b"OSCBNDL1" + bytes(25 * STRETCH - 8))
    (made / "accel" / "b1").write_bytes(b"OSCPROF")
    return made


def content(tree):
    return {file.relative_to(tree): file.read_bytes() for file in tree.rglob("*") if file.is_file()}


def bits(one, other):
    assert len(one) == len(other)
    return [at for at, pair in enumerate(zip(one, other, strict=True)) if (pair[0] ^ pair[1]).bit_count() == 1]


def test_one_bit_is_flipped_in_every_tenth_block_file_and_stretch_of_the_bundle(tree, tmp_path):
    before = content(tree)
    assert mirrors.lying_copy(tree, tmp_path / "lies") == Damage(4, 40, 3)
    after = content(tmp_path / "lies")
    assert after.keys() == before.keys()
    changed = {path: bits(before[path], after[path]) for path in before if before[path] != after[path]}
    bundle = mirrors.bundle_of(tree).relative_to(tree)
    assert [at // STRETCH for at in changed.pop(bundle)] == [0, EVERY, 2 * EVERY]
    assert len(changed) == 4
    assert {len(places) for places in changed.values()} == {1}


def test_what_it_was_copied_from_stays_as_it_was(tree, tmp_path):
    before = content(tree)
    mirrors.lying_copy(tree, tmp_path / "lies")
    assert content(tree) == before


def test_two_copies_that_begin_elsewhere_lie_about_different_blocks(tree, tmp_path):
    right = content(tree)
    found = []
    for first in (0, EVERY // 2):
        mirrors.lying_copy(tree, tmp_path / f"lies{first}", first)
        lies = content(tmp_path / f"lies{first}")
        found.append({(path, at) for path in right for at in bits(right[path], lies[path])})
    assert found[0]
    assert not found[0] & found[1]
    blocks = [{path for path, _ in each if path.parts[0] == "blocks"} for each in found]
    assert not blocks[0] & blocks[1]
