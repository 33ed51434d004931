"""What `oscirc publish` says at its end."""

import json

import pytest

from oscirc.publishing_text import report
from oscirc.screenshots import Sent
from oscirc_blockstore.digests import Digest
from oscirc_publisher.differencing import Packed
from oscirc_publisher.publishing import PublishResult

RESULT = PublishResult(
    publisher="alice",
    image="debian",
    version="2",
    manifest=Digest(b"2" * 32),
    role_version=3,
    changed=True,
    channels=["stable"],
    disk_size=2 << 30,
    block_size=256 << 10,
    data_blocks=4000,
    read_bytes=1 << 30,
    blocks=4000,
    new_blocks=300,
    nodes=5,
    new_nodes=2,
    uploaded_bytes=20 << 20,
    seconds=2.5,
)
PACK = Packed("1", 9 << 20, 1 << 10, made=True, blocks=300, records=250, whole_bytes=20 << 20)


def test_people_are_told_what_was_sent_and_what_is_beside_it(capsys):
    report(RESULT, 1 << 28, [], [PACK], 7, Sent("console", "A prompt", 1434, uploaded=True), None, as_json=False)
    said = capsys.readouterr().out
    assert "alice/debian@2 released\n" in said
    assert "channels  stable\n" in said
    assert "20.0 MiB: 300 of 4000 blocks, 2 table nodes, in 2.5 s" in said
    assert "delta     from 1: 9.0 MiB for 250 of 300 blocks, which cost 20.0 MiB whole" in said
    assert "packages  7 listed" in said
    assert "picture   console: 1.4 KiB, “A prompt”\n" in said


@pytest.mark.parametrize("stored", [None, 1 << 28])
def test_programs_are_told_the_same(capsys, stored):
    report(RESULT, stored, [], [PACK], 7, None, None, as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert (facts["image"], facts["channels"], facts["already_released"]) == ("alice/debian@2", ["stable"], False)
    assert (facts["stored_bytes"], facts["deltas"][0]["pack_bytes"]) == (stored, 9 << 20)
    assert (facts["packages"], facts["screenshot"]) == (7, None)
    assert "instance" not in facts
