"""Signing requests and signature files: bytes between machines, refused unless they are exactly what they should be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore import canonical, keys
from oscirc_blockstore.errors import DocumentRefusedError, OscircError, SignatureRefusedError
from oscirc_blockstore.signing_request import (
    RequestPart,
    SigningRequest,
    parse_request,
    read_signatures,
    sign_request,
)

REQUEST = SigningRequest(
    "https://images.example/repo",
    (RequestPart("root", b'{"version":2}', b"in force", b"in force"), RequestPart("targets", b'{"version":9}')),
    {"repository.json": b"{}"},
    "",
)


@pytest.fixture(scope="module")
def anna():
    return keys.generate()


def test_a_request_travels_unchanged():
    assert parse_request(REQUEST.serialise()) == REQUEST
    assert parse_request(REQUEST.serialise()).digest == REQUEST.digest


def test_signatures_are_those_of_the_bytes_themselves(anna):
    raw = sign_request(REQUEST, [(anna, ("root", "targets"))])
    found = read_signatures(REQUEST, raw, "it")
    assert [(item.role, keys.fingerprint(item.key)) for item in found] == [
        ("root", keys.fingerprint(anna.public_key())),
        ("targets", keys.fingerprint(anna.public_key())),
    ]
    anna.public_key().verify(found[0].signature, b'{"version":2}')


def test_the_same_key_makes_the_same_file_again(anna):
    assert sign_request(REQUEST, [(anna, ("root",))]) == sign_request(REQUEST, [(anna, ("root",))])


def test_a_signature_of_another_request_is_not_counted(anna):
    other = SigningRequest("elsewhere", REQUEST.parts, REQUEST.documents)
    with pytest.raises(SignatureRefusedError, match="another signing request"):
        read_signatures(REQUEST, sign_request(other, [(anna, ("root",))]), "it")


def changed(raw, change):
    document = json.loads(raw)
    change(document)
    return canonical.serialise(document)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["signatures"][0].update(role="targets"),
        lambda d: d["signatures"][0].update(role="snapshot"),
        lambda d: d["signatures"][0].update(signature="00" * 64),
        lambda d: d["signatures"][0].update(signature="00" * 63),
        lambda d: d["signatures"][0].update(signature=d["signatures"][0]["signature"].upper()),
        lambda d: d["signatures"][0].update(key="ff" * 32),
        lambda d: d["signatures"][0].update(extra=1),
        lambda d: d.update(format="oscirc-signatures-2"),
        lambda d: d.update(signatures=d["signatures"] * 101),
    ],
)
def test_a_signature_file_that_was_changed_is_refused(anna, change):
    raw = sign_request(REQUEST, [(anna, ("root",))])
    with pytest.raises(OscircError) as caught:
        read_signatures(REQUEST, changed(raw, change), "it")
    assert caught.value.exit_code in (4, 7)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(parts=[]),
        lambda d: d.update(parts=[d["parts"][0]] * 2),
        lambda d: d.update(parts=d["parts"] + d["parts"]),
        lambda d: d["parts"][0].update(payload="?"),
        lambda d: d["parts"][0].update(payload=""),
        lambda d: d["parts"][0].update(payload=7),
        lambda d: d["parts"][0].update(role=""),
        lambda d: d["parts"][0].pop("current"),
        lambda d: d.update(documents={"": ""}),
        lambda d: d.update(repository="\x1b[2J"),
        lambda d: d.update(unknown=True),
    ],
)
def test_a_malformed_request_is_refused(change):
    with pytest.raises(DocumentRefusedError):
        parse_request(changed(REQUEST.serialise(), change))


@given(st.binary(max_size=300))
def test_bytes_that_are_no_request_are_refused(raw):
    with pytest.raises(DocumentRefusedError):
        parse_request(raw)
