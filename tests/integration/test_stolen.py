"""Attackers with something stolen, against a server process, seen by real clients: what they accept does not change.

A token of every scope tries every call that writes (the OpenAPI document names them, so that a new call is tried as
soon as there is one); a publisher's key, alone and with an administrator's token, reaches for other names; an online
key, and a server's operator, for what publishers signed.
"""

import base64
import contextlib
import select
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from support import thief
from support.fault_server import FaultServer
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "server"))
from server_world import PASSPHRASE, Api, block, fork, make_world, offer_of, signed

from oscirc_blockstore import image_index, keys
from oscirc_blockstore.digests import block_path, digest_of
from oscirc_blockstore.errors import (
    IntegrityError,
    NotFoundError,
    RollbackError,
    SignatureRefusedError,
)
from oscirc_blockstore.frame import decode_verified
from oscirc_remote.deadlines import Deadline
from oscirc_remote.fetching import HttpDocumentSource
from oscirc_remote.remotes import Remotes
from oscirc_remote.session import Session
from oscirc_server.clock import system_clock

TIMEOUT_S = 60
PROGRAM = """
import sys
from pathlib import Path
from oscirc_server.running import run
from oscirc_server.settings import Listen, Settings
run(Settings(data_dir=Path(sys.argv[1]), listen=Listen.parse("127.0.0.1:0"), log_level="error"))
"""


@contextlib.contextmanager
def serving(data):
    command = [sys.executable, "-c", PROGRAM, str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert select.select([server.stdout], [], [], TIMEOUT_S)[0], "the server said nothing"
            yield server.stdout.readline().removeprefix("listening on ").strip()
        finally:
            server.terminate()
            server.wait(TIMEOUT_S)


class Site:
    """A repository in which alice and bob have released, and two clients: one that knows it, and whoever comes new."""

    def __init__(self, directory, world, url, http):
        self.directory = directory
        self.world = world
        self.url = url
        self.admin = Api(http, world.made.admin_token)
        self.alice, self.bob = (world.add_publisher(name) for name in ("alice", "bob"))
        self.disks = {}
        for publisher in (self.alice, self.bob):
            for version in ("1", "2"):
                disk = publisher.build("debian", [block(f"{publisher.name} {version}"), None])
                assert self.admin.publish(publisher, "debian", version, disk).status_code == 200
                self.disks[publisher.name, version] = disk
        self.remotes = Remotes(directory / "remotes")
        self.line = f"{url}#sha256={world.made.root_digest}"
        self.remotes.add("known", self.line)
        self.newcomers = 0
        self.before = self.seen()

    @property
    def data(self):
        return self.world.data

    def session(self, name="known"):
        return Session(self.remotes.load(name))

    def seen(self):
        """What clients accept: roles above publishers, publishers, indexes, and the bytes of every released disk."""
        self.newcomers += 1
        newcomer = f"new-{self.newcomers}"
        self.remotes.add(newcomer, self.line)
        found = []
        for name in ("known", newcomer):
            with self.session(name) as session:
                found.append(
                    (
                        session.signed_roles(),
                        session.publishers(),
                        session.image_index("alice", "debian"),
                        session.image_index("bob", "debian"),
                    )
                )
        assert found[0] == found[1]
        return found[0]

    def check_unchanged(self):
        assert self.seen() == self.before
        for disk in self.disks.values():
            assert httpx.get(f"{self.url}/manifests/{disk.digest.hex()}.json").content == disk.raw
            for record in disk.records:
                frame = httpx.get(f"{self.url}/{block_path(record.digest)}").content
                decode_verified(frame, record.raw_size, record.digest)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stolen")
    world = make_world(directory, system_clock)
    with serving(world.data) as url, httpx.Client(base_url=url, timeout=TIMEOUT_S) as http:
        yield Site(directory, world, url, http)


def body_for(operation):
    """(media type, example) of what a call takes, from the OpenAPI document."""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        return media_type, content.get("example")
    return None, None


def calls(site):
    """Every call that writes, its path filled with names that are there: (method, path, query, media type, example)."""
    document = httpx.get(f"{site.url}/api/v1/openapi.json").json()
    names = {"publisher": "alice", "image": "debian", "version": "1", "target": "2", "kind": "bundle", "name": "boot"}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method == "get":
                continue
            parameters = {parameter["name"]: parameter for parameter in operation.get("parameters", [])}
            filled = {name: names.get(name, str(parameters[name].get("example", "x"))) for name in parameters}
            if path.endswith("/publishers/{name}/role"):
                filled["name"] = "alice"
            queries = {n: v for n, v in filled.items() if parameters[n]["in"] == "query" and parameters[n]["required"]}
            yield method.upper(), path.format(**filled).removeprefix("/api/v1/"), queries, *body_for(operation)


def forged_roles(site):
    """Roles of alice that she did not sign for now, though everything else about them is right."""
    alice = fork(site.alice)
    evil = {"debian": thief.evil_index(alice.indexes["debian"])}
    stranger = keys.generate()
    role = alice.role(evil)
    served = httpx.get(f"{site.url}/metadata/1.alice.json").content
    resigned = Metadata.from_bytes(signed(role, stranger))
    genuine = Metadata.from_bytes(served)
    genuine.signed = role  # her old signature under a new role
    return {
        "unsigned": Metadata(role).to_bytes(),
        "signed by a stranger": signed(role, stranger),
        "signed by bob": signed(role, site.bob.key),
        "an older one": served,
        "bob's own": httpx.get(f"{site.url}/metadata/2.bob.json").content,
        "her old signature": genuine.to_bytes(),
        "signed by a stranger twice": resigned.to_bytes(),
    }, evil


@pytest.mark.parametrize(
    "scope", ["admin", "manage:alice", "publish:alice", "read:alice", "manage:bob", "publish:bob", "publish:nobody"]
)
def test_a_stolen_token_changes_nothing_that_clients_accept(site, scope):
    api = site.admin.with_token(site.world.token(scope))
    tried = set()
    for method, path, query, media_type, example in calls(site):
        bodies = [{"json": example}] if media_type == "application/json" and example is not None else [{}]
        for body in (*bodies, {"content": b"{}"}, {"content": b"\0" * 100}):
            headers = {"Content-Type": media_type} if media_type and "content" in body else {}
            answer = api.call(method, path, params=query, headers=headers, **body)
            assert answer.status_code < 500, (method, path, answer.text)
            tried.add((method, path))
    assert len(tried) > 20
    roles, evil = forged_roles(site)
    for what, raw in roles.items():
        offered = offer_of(raw, evil)
        answer = api.call("PUT", "publishers/alice/role", json=offered)
        assert answer.status_code in (401, 403, 409, 422), (what, answer.text)
        with contextlib.suppress(AssertionError):  # most scopes may not even stage
            disk = site.alice.build("debian", [block(f"evil {scope}")])
            draft = api.stage(site.alice, "debian", f"evil-{scope.replace(':', '-')}", disk)
            answer = api.call("POST", f"drafts/{draft}/release", json=offered)
            assert answer.status_code in (403, 409, 422), (what, answer.text)
    for role in ("root", "targets"):
        served = httpx.get(f"{site.url}/metadata/1.{role}.json").content
        forged = Metadata.from_bytes(served)
        forged.signed.version = 50
        for raw in (served, forged.to_bytes(), signed(forged.signed, keys.generate())):
            for path, content in (
                (f"roles/{role}", {"content": raw}),
                ("roles", {"json": {role: base64.b64encode(raw).decode()}}),
            ):
                answer = api.call("PUT", path, **content)
                assert answer.status_code in (200, 401, 403, 409), (role, answer.text)
                # the role in force offered again is the only one that is taken, and changes nothing
                assert answer.status_code != 200 or raw == served
    site.check_unchanged()


STRANGE_TARGETS = [
    "bob/debian.json",
    "bob/new.json",
    "alice/../bob/debian.json",
    "../bob/debian.json",
    "/bob/debian.json",
    "alice//debian.json",
    "alice/sub/debian.json",
    "alice/.json",
    "alice/..json",
    "alice/DEBIAN.json",
    "alice/debian.json\n",
    "alice/deb\u0456an.json",  # a Cyrillic letter
    "alice/debian\u200b.json",
    "\u0430lice/debian.json",
    "ALICE/debian.json",
    "alice/%2e%2e/bob.json",
    "alice\\debian.json",
    "alice/debian.txt",
    "repository.json",
    "root.json",
    "targets",
    "*/*.json",
    "alice/*",
    "a" * 300,
]


@pytest.mark.parametrize("token", ["her own", "an administrator's"])
def test_a_stolen_publisher_key_reaches_no_other_name(site, token):
    """With her key and her token, or even an administrator's: names of others, paths, reserved roles, unicode."""
    api = site.admin if token == "an administrator's" else site.admin.with_token(site.world.token("publish:alice"))
    alice = fork(site.alice)
    raw_index = site.bob.indexes["debian"].serialise()
    for target in STRANGE_TARGETS:
        role = alice.role(alice.indexes)
        role.targets[target] = TargetFile(len(raw_index), {"sha256": digest_of(raw_index).hex()}, target)
        answer = api.call("PUT", "publishers/alice/role", json=offer_of(signed(role, alice.key), alice.indexes))
        assert answer.status_code in (403, 422), (target, answer.status_code, answer.text)
    others = [
        "bob",
        "root",
        "targets",
        "snapshot",
        "timestamp",
        "BOB",
        "bob%20",
        "b%C3%B6b",
        "bob%E2%80%8B",
        "b%6fb",
        "%2e%2e",
        "..%2fbob",
        "alice%2f..%2fbob",
        "?lice",
        "*",
        "alicf",
    ]
    for name in others:
        role = signed(alice.role(site.bob.indexes), alice.key)
        answer = api.call("PUT", f"publishers/{name}/role", json=offer_of(role, site.bob.indexes))
        assert 400 <= answer.status_code < 500, (name, answer.status_code, answer.text)
    delegating = alice.role(alice.indexes)
    delegating.delegations = Delegations(
        {}, {"helper": DelegatedRole("helper", [], 1, terminating=True, paths=["bob/*", "alice/*"])}
    )
    longer = alice.role(alice.indexes, expires=datetime.now(UTC).replace(microsecond=0) + timedelta(days=400))
    skipping = alice.role(alice.indexes, version=thief.FAR)
    for role in (delegating, longer, skipping):
        answer = api.call("PUT", "publishers/alice/role", json=offer_of(signed(role, alice.key), alice.indexes))
        assert answer.status_code in (403, 409), answer.text
    renamed = image_index.ImageIndex("bob", "debian", site.bob.indexes["debian"].versions)
    foreign = {"other": renamed}  # an index that says it is bob's, under a name of hers
    raw = renamed.serialise()
    role = alice.role(alice.indexes)
    role.targets["alice/other.json"] = TargetFile(len(raw), {"sha256": digest_of(raw).hex()}, "alice/other.json")
    answer = api.call(
        "PUT", "publishers/alice/role", json=offer_of(signed(role, alice.key), {**alice.indexes, **foreign})
    )
    assert answer.status_code in (403, 422), answer.text
    if token == "her own":
        for path, options in (
            ("drafts", {"json": {"publisher": "bob", "image": "debian", "version": "9", "block_size": 65536}}),
            (
                "images/bob/debian/versions/1/accelerators/bundle/boot",
                {"params": {"sha256": "0" * 64}, "content": b"x"},
            ),
        ):
            assert api.call("POST" if path == "drafts" else "PUT", path, **options).status_code == 403
    site.check_unchanged()


class Liar:
    """The repository as a thief of the online keys, or its operator, serves it, and a client that saw the honest one.

    A server of its own, since the real one, whose database is the truth, puts its own timestamp back within a minute.
    """

    def __init__(self, site, directory):
        tree = site.data / "tree"
        self.site = site
        self.files = {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
        self.server = FaultServer(self.files)
        self.remotes = Remotes(directory / "remotes")
        self.remotes.add("victim", f"{self.server.url}#sha256={site.world.made.root_digest}")
        with self.session() as session:
            assert session.image_index("alice", "debian") == site.alice.indexes["debian"]

    def session(self):
        return Session(self.remotes.load("victim"))

    def show(self, change):
        """A snapshot and a timestamp, rightly signed with the stolen keys, after `change` of what the snapshot names."""
        timestamp = Metadata[Timestamp].from_bytes(self.files["metadata/timestamp.json"]).signed
        before = self.files[f"metadata/{timestamp.snapshot_meta.version}.snapshot.json"]
        snapshot = Metadata[Snapshot].from_bytes(before).signed
        snapshot.version += 1
        timestamp.version += 1
        change(snapshot.meta)
        raw = signed(snapshot, thief.online_key(self.site.data, "snapshot"))
        self.files[f"metadata/{snapshot.version}.snapshot.json"] = raw
        timestamp.snapshot_meta = named(snapshot.version, raw)
        self.files["metadata/timestamp.json"] = signed(timestamp, thief.online_key(self.site.data, "timestamp"))

    def show_role(self, name, role, *private):
        """The same with another version of a role, signed with these keys."""
        raw = signed(role, *private)
        self.files[f"metadata/{role.version}.{name}.json"] = raw
        self.show(lambda meta: meta.update({f"{name}.json": named(role.version, raw)}))

    def put_index(self, publisher, image, index):
        raw = index.serialise()
        self.files[f"targets/{publisher}/{digest_of(raw).hex()}.{image}.json"] = raw
        return raw


def named(version, raw):
    return MetaFile(version, len(raw), {"sha256": digest_of(raw).hex()})


@pytest.fixture
def liar(site, tmp_path):
    lying = Liar(site, tmp_path)
    with lying.server:
        yield lying


def tells_strangers_role(liar, *private):
    evil = thief.evil_index(liar.site.alice.indexes["debian"])
    liar.put_index("alice", "debian", evil)
    liar.show_role("alice", fork(liar.site.alice).role({"debian": evil}), *private)


def tells_an_older_role(liar):
    raw = liar.files["metadata/1.alice.json"]
    liar.show(lambda meta: meta.update({"alice.json": named(1, raw)}))


def tells_a_targets_role_of_its_own(liar):
    role = Metadata[Targets].from_bytes(liar.site.before[0][1]).signed
    role.version += 1
    liar.show_role("targets", role, keys.generate(), thief.online_key(liar.site.data, "snapshot"))


def tells_a_root_of_its_own(liar):
    root = Metadata[Root].from_bytes(liar.site.before[0][0]).signed
    root.version += 1
    liar.files["metadata/2.root.json"] = signed(root, keys.generate())


def alters_an_index(liar):
    evil = thief.evil_index(liar.site.alice.indexes["debian"])
    role = fork(liar.site.alice).role({"debian": evil})
    raw = evil.serialise()
    liar.files[f"targets/alice/{digest_of(raw).hex()}.debian.json"] = raw.replace(b'"stable":"evil"', b'"stable":"1"')
    liar.show_role("alice", role, liar.site.alice.key)


@pytest.mark.parametrize(
    ("lie", "refusal"),
    [
        (lambda liar: tells_strangers_role(liar, keys.generate()), SignatureRefusedError),
        (lambda liar: tells_strangers_role(liar, liar.site.bob.key), SignatureRefusedError),
        (tells_strangers_role, SignatureRefusedError),
        (tells_an_older_role, RollbackError),
        (lambda liar: liar.show(lambda meta: meta.pop("alice.json")), RollbackError),
        (tells_a_targets_role_of_its_own, SignatureRefusedError),
        (tells_a_root_of_its_own, SignatureRefusedError),
        (alters_an_index, IntegrityError),
    ],
    ids=["stranger's", "bob's", "unsigned", "older role", "no role", "own targets", "own root", "altered index"],
)
def test_a_server_that_lies_is_refused_though_it_has_the_online_keys(liar, lie, refusal):
    """Whoever holds these and the whole store, the operator included, can say nothing in a publisher's name."""
    lie(liar)
    with liar.session() as session, pytest.raises(refusal):
        session.image_index("alice", "debian")


def test_a_thief_with_online_keys_and_one_publishers_key_touches_no_other(liar):
    """Alice's role may then say what the thief likes; bob's names stay bob's, whatever hers claims of them."""
    site = liar.site
    role = fork(site.alice).role(site.alice.indexes)
    raw = liar.put_index("bob", "debian", thief.evil_index(site.bob.indexes["debian"]))
    for image in ("debian", "new"):
        target = f"bob/{image}.json"
        role.targets[target] = TargetFile(len(raw), {"sha256": digest_of(raw).hex()}, target)
        liar.files[f"targets/bob/{digest_of(raw).hex()}.{image}.json"] = raw
    liar.show_role("alice", role, site.alice.key)
    with liar.session() as session:
        assert session.image_index("bob", "debian") == site.bob.indexes["debian"]
        with pytest.raises(NotFoundError):
            session.image_index("bob", "new")


def test_a_stolen_online_key_is_worthless_after_the_rotation(site, tmp_path):
    """Run last: the repository has other online keys afterwards, with the server running on."""
    stolen = {role: thief.online_key(site.data, role) for role in ("snapshot", "timestamp")}
    site.world.administration.rotate("online", site.world.keys, PASSPHRASE)
    assert site.admin.publish(site.bob, "debian", "3", site.bob.build("debian", [block("3")])).status_code == 200
    remotes = Remotes(tmp_path / "remotes")
    remotes.add("later", site.line)
    liar = Liar(site, tmp_path / "lying")
    timestamp = Metadata[Timestamp].from_bytes(liar.files["metadata/timestamp.json"]).signed
    timestamp.version += 1
    liar.files["metadata/timestamp.json"] = signed(timestamp, stolen["timestamp"])
    with liar.server, liar.session() as session, pytest.raises(SignatureRefusedError):
        session.refresh()
    with Session(remotes.load("later")) as session:
        assert session.image_index("bob", "debian").channels["stable"] == "3"
    documents = HttpDocumentSource(site.url)
    root = Metadata[Root].from_bytes(documents.fetch_document("metadata/2.root.json", 100_000, Deadline.after(30)))
    documents.close()
    assert keys.fingerprint(stolen["timestamp"].public_key()) not in str(root.signed.to_dict())
