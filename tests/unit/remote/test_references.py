import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore.errors import NameRefusedError
from oscirc_remote.references import Reference, parse

DIGEST = "ab" * 32

names = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True).filter(
    lambda name: name not in ("root", "targets", "snapshot", "timestamp")
)
versions = st.from_regex(r"[a-z0-9][a-z0-9.+_-]{0,20}", fullmatch=True)
selectors = st.one_of(
    versions.map(lambda label: {"version": label}),
    names.map(lambda name: {"channel": name}),
    st.binary(min_size=32, max_size=32).map(lambda digest: {"digest": digest}),
)
references = st.builds(
    lambda publisher, image, remote, selector: Reference(publisher, image, remote, **selector),
    names,
    names,
    st.one_of(st.just(""), names),
    selectors,
)


@given(references)
def test_every_reference_reads_back_what_it_prints(reference):
    assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice/debian", Reference("alice", "debian", channel="stable")),
        ("home:alice/debian", Reference("alice", "debian", "home", channel="stable")),
        ("alice/debian@12.1+rc_2", Reference("alice", "debian", version="12.1+rc_2")),
        ("alice/debian#testing", Reference("alice", "debian", channel="testing")),
        (f"alice/debian@sha256:{DIGEST}", Reference("alice", "debian", digest=bytes.fromhex(DIGEST))),
        (f"home:alice/debian@sha256:{DIGEST}", Reference("alice", "debian", "home", digest=bytes.fromhex(DIGEST))),
    ],
)
def test_each_form_means_what_the_documentation_says(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "debian",
        "alice/",
        "/debian",
        "alice/debian@",
        "alice/debian#",
        "alice/debian@1#stable",
        "alice/debian#stable@1",
        "alice/debian@1@2",
        "alice/debian@sha256:abc",
        f"alice/debian@sha256:{DIGEST.upper()}",
        f"alice/debian#stable@sha256:{DIGEST}",
        f"alice/debian@1@sha256:{DIGEST}",
        f"alice/debian@sha256:{DIGEST}#stable",
        ":alice/debian",
        "a:b:alice/debian",
        "../debian",
        "alice/../debian",
        "alice/debian/x",
        "?lice/debian",
        "a*/debian",
        "root/debian",
        "Alice/debian",
        "alice/debian@../../x",
        "..:alice/debian",
        "alice/debian ",
        "a" * 600 + "/debian",
    ],
)
def test_anything_else_is_refused_with_a_hint(text):
    with pytest.raises(NameRefusedError) as refusal:
        parse(text)
    assert refusal.value.hint


def test_a_reference_has_exactly_one_selector():
    with pytest.raises(NameRefusedError):
        Reference("alice", "debian")
    with pytest.raises(NameRefusedError):
        Reference("alice", "debian", version="1", channel="stable")
