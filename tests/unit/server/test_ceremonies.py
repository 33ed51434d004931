"""Roles that several people sign: whose signatures count, what is refused before it is signed, what clients make of it."""

import contextlib
import copy
import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical
from tuf.api.metadata import Metadata, Root, Targets

from oscirc_blockstore import keys
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    LocalError,
    OscircError,
    SignatureRefusedError,
    TrustError,
    UsageError,
)
from oscirc_blockstore.repository_facts import TARGET, RepositoryFacts
from oscirc_blockstore.signing_request import RequestPart, SigningRequest, parse_request, read_signatures, sign_request
from oscirc_server import ceremonies, ceremony_facts, ceremony_making
from oscirc_server.administration import Administration
from oscirc_server.ceremony_making import KeySet
from oscirc_server.initialising import initialise_signed, prepare
from oscirc_server.services.roles import SignedTogether

from .server_world import DAY_S, MovableClock
from .tuf_client import updater

FACTS = RepositoryFacts("Together", "https://images.example/repo/api/v1")


class Holder:
    """Somebody with a key of their own, on a machine of their own."""

    def __init__(self):
        self.key = keys.generate()
        self.public = self.key.public_key()
        self.fingerprint = keys.fingerprint(self.public)

    def sign(self, request):
        """What travels is bytes, both ways."""
        received = parse_request(request.serialise())
        raw = sign_request(received, [(self.key, ceremonies.roles_for(received, self.public))])
        return read_signatures(request, raw, "a signature file")


@pytest.fixture(scope="module")
def people():
    return [Holder() for _ in range(4)]


@pytest.fixture
def clock():
    return MovableClock(time.time())


@pytest.fixture
def first(people, tmp_path, clock):
    """Anna, Boris and Carla hold root keys, two of which sign; Boris and Dora hold targets keys, both sign."""
    anna, boris, carla, dora = people
    return ceremony_making.first_request(
        FACTS,
        prepare(tmp_path / "data"),
        KeySet((anna.public, boris.public, carla.public), 2),
        KeySet((boris.public, dora.public), 2),
        clock(),
    )


def assembled(request, *holders):
    signatures = [signature for holder in holders for signature in holder.sign(request)]
    return ceremonies.assemble(request, signatures)


@pytest.fixture
def together(first, people, tmp_path, clock):
    """A repository that four people made, and how a client of it starts."""
    anna, boris, _, dora = people
    signed = assembled(first, anna, boris, dora)
    initialise_signed(tmp_path / "data", signed, first.documents[TARGET], clock=clock)
    return Administration(tmp_path / "data", clock=clock)


def refreshed(tmp_path, name="state"):
    tree = tmp_path / "data" / "tree"
    client = updater(tree, tmp_path / name, (tree / "metadata/1.root.json").read_bytes())
    client.refresh()
    return client


def test_a_repository_whose_offline_keys_never_touched_its_server(together, tmp_path):
    client = refreshed(tmp_path)
    assert client._trusted_set.root.roles["root"].threshold == 2
    assert client.get_targetinfo(TARGET) is not None
    facts = together.status()
    assert (facts.offline_keys_here, facts.alarms, facts.public_url) == ((), (), "https://images.example/repo")
    assert not list((tmp_path / "data").rglob("root*.pem"))


def test_the_order_of_signatures_leaves_no_trace(first, people):
    anna, boris, carla, dora = people
    results = {
        tuple(made.raw for made in assembled(first, *order).values())
        for order in itertools.permutations((anna, boris, carla, dora))
    }
    assert len(results) == 1


@pytest.mark.parametrize("holders", [(), (0,), (0, 1), (0, 2, 3), (3, 3, 1), (0, 0, 1)])
def test_too_few_signatures_make_nothing_and_say_whose_are_missing(first, people, holders):
    with pytest.raises(SignatureRefusedError) as caught:
        assembled(first, *(people[at] for at in holders))
    assert "not signed yet" in caught.value.hint


def test_a_key_that_is_not_asked_signs_nothing(first, people):
    with pytest.raises(UsageError, match="not asked"):
        Holder().sign(first)
    stranger = keys.generate()
    raw = sign_request(first, [(stranger, ("root", "targets"))])
    with pytest.raises(SignatureRefusedError):
        ceremonies.assemble(first, [*people[0].sign(first), *read_signatures(first, raw, "it")])


def test_a_new_root_needs_the_keys_before_it_and_its_own(together, people, tmp_path, clock):
    """Boris leaves, Erik comes: two of the old keys and two of the new ones sign; a client follows."""
    anna, boris, carla, _ = people
    erik = Holder()
    root, targets = together.roles_in_force()
    request = ceremony_making.root_request(
        root, targets, clock(), "it", root_keys=KeySet((anna.public, carla.public, erik.public), 2)
    )
    for too_few in ((anna, erik), (boris, carla), (erik,)):
        with pytest.raises(SignatureRefusedError):
            assembled(request, *too_few)
    refreshed(tmp_path)
    accepted = together.accept_together(SignedTogether(assembled(request, anna, carla)["root"].raw))
    assert accepted.version == 2
    assert refreshed(tmp_path)._trusted_set.root.version == 2
    again = together.accept_together(SignedTogether(assembled(request, anna, carla)["root"].raw))
    assert again.version == 2
    with pytest.raises(UsageError, match="not asked"):
        boris.sign(ceremony_making.root_request(*together.roles_in_force(), clock(), "it"))


def test_other_targets_keys_take_force_together_with_the_root_that_names_them(together, people, tmp_path, clock):
    anna, _, carla, _ = people
    erik = Holder()
    request = ceremony_making.root_request(
        *together.roles_in_force(), clock(), "it", targets_keys=KeySet((erik.public,), 1)
    )
    assert {part.role for part in request.parts} == {"root", "targets"}
    made = assembled(request, anna, carla, erik)
    with pytest.raises(SignatureRefusedError):
        together.accept_together(SignedTogether(made["root"].raw))
    together.accept_together(SignedTogether(made["root"].raw, made["targets"].raw))
    client = refreshed(tmp_path)
    assert (client._trusted_set.root.version, client._trusted_set.targets.version) == (2, 2)


def test_online_keys_are_replaced_by_a_root_that_others_sign(together, people, tmp_path, clock):
    anna, _, carla, _ = people
    before = together.online_keys(new=False)
    new = together.online_keys(new=True)
    assert together.online_keys(new=True) == new
    assert set(new.fingerprints.values()).isdisjoint(before.fingerprints.values())
    refreshed(tmp_path)
    together.resign_online()  # the new ones only wait
    request = ceremony_making.root_request(*together.roles_in_force(), clock(), "it", online=new)
    together.accept_together(SignedTogether(assembled(request, anna, carla)["root"].raw))
    assert together.online_keys(new=False) == new
    assert refreshed(tmp_path)._trusted_set.root.version == 2
    assert len(list((tmp_path / "data" / "keys").glob("*.retired"))) == 2
    assert together.status().alarms == ()


def test_a_root_with_online_keys_of_another_server_is_refused(together, people, tmp_path, clock):
    anna, _, carla, _ = people
    request = ceremony_making.root_request(
        *together.roles_in_force(), clock(), "it", online=prepare(tmp_path / "other")
    )
    with pytest.raises(TrustError, match="does not hold"):
        together.accept_together(SignedTogether(assembled(request, anna, carla)["root"].raw))


def test_the_targets_role_is_renewed_with_other_facts(together, people, tmp_path, clock):
    _, boris, _, dora = people
    facts = RepositoryFacts("Renamed", mirrors=("https://mirror.example/repo",))
    request = ceremony_making.targets_request(*together.roles_in_force(), clock(), "it", facts=facts)
    with pytest.raises(SignatureRefusedError):
        assembled(request, boris)
    made = assembled(request, boris, dora)
    with pytest.raises(TrustError, match="not here"):
        together.accept_together(SignedTogether(targets=made["targets"].raw))
    together.accept_together(SignedTogether(targets=made["targets"].raw, facts=request.documents[TARGET]))
    assert refreshed(tmp_path)._trusted_set.targets.version == 2


def test_a_server_without_the_online_keys_is_not_made(first, people, tmp_path, clock):
    anna, boris, _, dora = people
    prepare(tmp_path / "elsewhere")
    with pytest.raises((UsageError, LocalError)):
        initialise_signed(
            tmp_path / "elsewhere", assembled(first, anna, boris, dora), first.documents[TARGET], clock=clock
        )


def payload_with(part, kind, change):
    role = ceremonies.payload_of(part, kind)
    change(role)
    return replace(part, payload=Metadata(role).signed_bytes)


def add_online_key_to_root(root):
    root.add_key(root.keys[root.roles["snapshot"].keyids[0]], "root")


def name_no_key(root):
    root.roles["targets"].keyids.clear()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: setattr(root, "version", 3),
        lambda root: setattr(root, "version", 1),
        lambda root: setattr(root, "expires", root.expires + timedelta(days=9)),
        lambda root: setattr(root, "expires", root.expires - timedelta(days=9000)),
        lambda root: setattr(root, "consistent_snapshot", False),
        lambda root: setattr(root.roles["root"], "threshold", 4),
        lambda root: root.keys.pop(root.roles["targets"].keyids[0]),
        add_online_key_to_root,
        name_no_key,
    ],
)
def test_a_root_that_breaks_a_rule_is_not_offered_for_signing(together, clock, change):
    request = ceremony_making.root_request(*together.roles_in_force(), clock(), "it")
    bad = replace(request, parts=(payload_with(request.parts[0], Root, change),))
    with pytest.raises(TrustError):
        ceremonies.judge(bad, clock())


def test_what_is_not_in_the_form_that_tuf_signs_is_refused(together, clock):
    request = ceremony_making.root_request(*together.roles_in_force(), clock(), "it")
    part = request.parts[0]
    for payload in (part.payload + b" ", b"[]", b"{", part.payload.replace(b'"root"', b'"targets"', 1)):
        with pytest.raises(OscircError) as caught:
            ceremonies.judge(replace(request, parts=(replace(part, payload=payload),)), clock())
        assert isinstance(caught.value, DocumentRefusedError)


def test_roles_that_servers_sign_are_nobodys_to_sign(clock):
    with pytest.raises(TrustError):
        ceremonies.judge(SigningRequest("it", (RequestPart("timestamp", b"{}"),)), clock())


def test_a_document_that_the_role_does_not_name_is_refused(together, clock):
    facts = RepositoryFacts("Renamed")
    request = ceremony_making.targets_request(*together.roles_in_force(), clock(), "it", facts=facts)
    with pytest.raises(TrustError, match="does not ask"):
        ceremonies.judge(replace(request, documents={TARGET: RepositoryFacts("Other").serialise()}), clock())


def test_what_changes_is_told_from_the_bytes_with_whole_fingerprints(together, people, clock):
    anna, boris, carla, _ = people
    erik = Holder()
    root, targets = together.roles_in_force()
    clock.advance(10 * DAY_S)
    request = ceremony_making.root_request(
        root, targets, clock(), "words that nobody believes", root_keys=KeySet((anna.public, erik.public), 1)
    )
    (facts,) = ceremony_facts.describe(request)
    assert (facts.version_before, facts.version) == (1, 2)
    assert facts.expires > facts.expires_before
    assert "root: 1 of 2 keys must sign (were 2 of 3)" in facts.changes
    assert f"  + key {erik.fingerprint}" in facts.changes
    assert {f"  - key {boris.fingerprint}", f"  - key {carla.fingerprint}"} <= set(facts.changes)
    assert f"    key {anna.fingerprint}" in facts.changes
    assert ceremony_facts.trusted_root(request) == together.remote_url().rpartition("=")[2]


def test_what_becomes_of_publishers_is_told(together, people, clock):
    _, boris, _, dora = people
    alice, other = Holder(), Holder()

    def edit(targets):
        from oscirc_server.delegations import with_publisher

        return with_publisher(targets, "alice", [alice.public, other.public], threshold=2)

    request = ceremony_making.targets_request(*together.roles_in_force(), clock(), "it", edit)
    (facts,) = ceremony_facts.describe(request)
    assert facts.changes == (
        "new publisher alice: 2 of 2 keys must sign",
        f"  + key {alice.fingerprint}",
        f"  + key {other.fingerprint}",
    )
    together.accept_together(SignedTogether(targets=assembled(request, boris, dora)["targets"].raw))
    gone = ceremony_making.targets_request(
        *together.roles_in_force(), clock(), "it", lambda targets: (setattr(targets, "delegations", None), targets)[1]
    )
    assert "publisher alice is removed" in ceremony_facts.describe(gone)[0].changes[0]
    assert Metadata[Targets].from_bytes(together.roles_in_force()[1]).signed.delegations is not None


def places(document, path=()):
    """Every place in a JSON document."""
    yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from places(value, (*path, key))


def with_another(document, path, value):
    """The document with `value` at a place (`...`: nothing there any more)."""
    if not path:
        return value
    changed = copy.deepcopy(document)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


STRANGE = [..., None, True, -1, 1 << 70, "", "x", "\u202e", [], {}, [{}], {"a": []}, "9999-12-31T00:00:00Z"]


@pytest.fixture
def honest(together, clock):
    """Requests of several kinds."""
    in_force = together.roles_in_force()
    return [
        ceremony_making.root_request(*in_force, clock(), "it", targets_keys=KeySet((Holder().public,), 1)),
        ceremony_making.targets_request(*in_force, clock(), "it", facts=RepositoryFacts("Renamed")),
    ]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_a_hostile_request_is_refused_in_words_wherever_it_was_changed(honest, clock, data):
    """A holder reads what others wrote: no change to any of its documents may end in anything but a refusal."""
    request = data.draw(st.sampled_from(honest))
    at = data.draw(st.integers(0, len(request.parts) - 1))
    part = request.parts[at]
    name = data.draw(st.sampled_from([name for name in ("payload", "current", "delegator") if getattr(part, name)]))
    document = json.loads(getattr(part, name))
    path = data.draw(st.sampled_from(list(places(document))))
    value = data.draw(st.sampled_from(STRANGE))
    raw = json.dumps(None if value is ... and not path else with_another(document, path, value)).encode()
    if name == "payload" and isinstance(json.loads(raw), dict):
        with contextlib.suppress(Exception):  # as TUF signs it, where it is TUF metadata at all
            raw = encode_canonical(json.loads(raw)).encode()
    parts = [replace(item, **{name: raw}) if item is part else item for item in request.parts]
    hostile = replace(request, parts=tuple(parts))
    with contextlib.suppress(OscircError):
        ceremonies.judge(hostile, clock())
        ceremony_facts.describe(hostile)
        ceremonies.requirements(hostile)


def test_a_holders_machine_needs_neither_database_nor_server():
    modules = "oscirc_server.ceremonies, oscirc_server.ceremony_making, oscirc_server.ceremony_facts"
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"sqlalchemy", "fastapi", "uvicorn", "obstore", "alembic"}
