import os
import time

import pytest

from oscirc_blockstore.accelerators import BUNDLE, PROFILE, Accelerator, Listing
from oscirc_blockstore.digests import digest_of
from oscirc_remote import readiness
from oscirc_remote.accelerator_files import AT_WORK_S, leftovers


@pytest.fixture
def remembered(tmp_path):
    """Listing, index, profile and stream file of two images, an hour and more ago: all names, by image."""
    names = {}
    for image in (b"one", b"two"):
        digest, bundle, profile = digest_of(image), digest_of(image + b"bundle"), digest_of(image + b"profile")
        each = (Accelerator(BUNDLE, "boot", bundle, 2000, 1000), Accelerator(PROFILE, "boot", profile, 100))
        readiness.keep_listing(tmp_path, Listing(digest, each).serialise(), digest)
        readiness.keep_profile(tmp_path, b"positions", profile)
        index = readiness.index_file(tmp_path, bundle)
        index.write_bytes(b"index")
        index.with_suffix(".stream").write_bytes(b"")
        names[digest] = {f"{digest.hex()}.json", index.name, f"{bundle.hex()}.stream", f"{profile.hex()}.profile"}
    (tmp_path / "accel" / ".left.tmp").write_bytes(b"half")
    return tmp_path, names


def found(directory, kept, *, later_s=AT_WORK_S + 10):
    return {path.name for path in leftovers(directory, kept, time.time() + later_s)}


def test_what_no_kept_image_needs_is_left_over(remembered):
    directory, names = remembered
    one, two = names
    assert found(directory, {one}) == {*names[two], ".left.tmp"}
    assert found(directory, {one, two}) == {".left.tmp"}
    assert found(directory, set()) == {*names[one], *names[two], ".left.tmp"}


def test_what_somebody_may_be_at_stays(remembered):
    directory, names = remembered
    assert found(directory, set(), later_s=60) == set()
    young = next(iter(next(iter(names.values()))))
    os.utime(directory / "accel" / young, (time.time() + AT_WORK_S, time.time() + AT_WORK_S))
    assert young not in found(directory, set())


def test_a_listing_that_cannot_be_read_keeps_only_itself(remembered):
    directory, names = remembered
    one, two = names
    readiness.listing_file(directory, one).write_bytes(b"nonsense")
    assert found(directory, {one, two}) == {*names[one], ".left.tmp"} - {f"{one.hex()}.json"}


def test_without_a_directory_nothing_is_left_over(tmp_path):
    assert found(tmp_path, set()) == set()
