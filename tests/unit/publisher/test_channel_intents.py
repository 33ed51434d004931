"""What a publication meant to do with a channel, kept until it is done."""

from oscirc_publisher import changing
from oscirc_publisher.channel_intents import ChannelIntents, Intent
from oscirc_publisher.publishing import publish

from .conftest import KIB, MIB, MemoryDisk, mixed_bytes

WHERE, VERSION = "https://host/repo", "alice/debian@2"
INTENT = Intent("stable", "1")


def test_an_intent_is_kept_for_its_version_and_repository_until_it_is_forgotten(tmp_path):
    intents = ChannelIntents(tmp_path / "publishing")
    assert intents.of(WHERE, VERSION) is None
    intents.note(WHERE, VERSION, INTENT)
    again = ChannelIntents(tmp_path / "publishing")
    assert again.of(WHERE, VERSION) == INTENT
    assert again.of("https://other/repo", VERSION) is None
    assert again.of(WHERE, "alice/debian@3") is None
    again.forget(WHERE, VERSION)
    again.forget(WHERE, VERSION)
    assert intents.of(WHERE, VERSION) is None


def test_a_damaged_intent_counts_as_none(tmp_path):
    intents = ChannelIntents(tmp_path)
    intents.note(WHERE, VERSION, INTENT)
    (place,) = tmp_path.iterdir()
    honest = place.read_bytes()
    for raw in (b"", b"{}", honest[:-2], honest.replace(b"intent-1", b"intent-2"), honest.replace(b'"1"', b"1")):
        assert raw != honest
        place.write_bytes(raw)
        assert intents.of(WHERE, VERSION) is None


def test_a_channel_advances_only_from_where_it_was(signatory):
    for number, version in enumerate(("1", "2", "3")):
        disk = MemoryDisk(mixed_bytes(MIB, number))
        publish(disk, signatory, "debian", version, block_size=64 * KIB, channel="stable" if version == "1" else None)
    assert not changing.advance_channel(signatory, "debian", "stable", "3", "2").changed
    assert changing.advance_channel(signatory, "debian", "stable", "2", "1").index.channels == {"stable": "2"}
    there = changing.advance_channel(signatory, "debian", "stable", "3", "1")
    assert (there.changed, there.index.channels) == (False, {"stable": "2"})
    assert changing.advance_channel(signatory, "debian", "new", "3", "").index.channels == {"stable": "2", "new": "3"}
