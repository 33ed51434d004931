"""The services of docker-compose.yml by hand: its commands, its environment and its nginx, with a real PostgreSQL and S3.

Only addresses and places are changed. rclone stands in for the store: once as the server writes to it, with a key from
a credentials file, and once as everybody reads it.
"""

import contextlib
import random
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml
from support import front as fronts
from support import postgresql
from support.certificates import certificate
from support.commands import Repository, Workstation, add_publisher, end, free_port, wait_for_line
from support.s3 import ACCESS_KEY, SECRET_KEY, s3_server

ROOT = Path(__file__).resolve().parents[2]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
MIB = 1 << 20


def environment(changes):
    """deploy/compose.env with these values in place of its own; each must be there."""
    lines = (ROOT / "deploy" / "compose.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(changes) <= set(given)
    return {**given, **{name: str(value) for name, value in changes.items()}}


@contextlib.contextmanager
def service(station, name, ready):
    process = station.start(*SERVICES[name]["command"], stdout=subprocess.PIPE, text=True)
    try:
        wait_for_line(process, ready)
        yield process
    finally:
        end(process, timeout=60)


@pytest.mark.long
@pytest.mark.fuse
def test_an_image_goes_from_its_publisher_to_a_mount_through_all_the_services(tmp_path):
    pem = certificate(tmp_path)
    front = fronts.new_front(tmp_path / "front")
    port, metrics = free_port(), free_port()
    credentials = tmp_path / "s3_credentials"
    credentials.write_text(f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n")
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(postgresql.cluster())
        store = stack.enter_context(s3_server(tmp_path / "store"))
        (store.root / "oscirc").mkdir()
        public = stack.enter_context(s3_server(tmp_path / "store", anonymous=True))
        given = environment(
            {
                "OSCIRC_DATA": tmp_path / "server-data",
                "OSCIRC_LISTEN": f"127.0.0.1:{port}",
                "OSCIRC_METRICS_LISTEN": f"127.0.0.1:{metrics}",
                "OSCIRC_DATABASE": cluster.url(cluster.create()),
                "OSCIRC_BLOCKS": f"s3://oscirc?endpoint={store.endpoint}",
                "AWS_SHARED_CREDENTIALS_FILE": credentials,
                "FORWARDED_ALLOW_IPS": "127.0.0.1",
                "TMPDIR": tmp_path,
            }
        )
        server = Workstation(tmp_path / "server", extra=given)
        made = server.json("serve", "init", "--public-url", front.url, "--keys", tmp_path / "keys")
        stack.enter_context(service(server, "server", "listening on"))
        stack.enter_context(service(server, "worker", "working on jobs"))
        changes = fronts.compose_changes(front, port, public.port, "oscirc", pem)
        stack.enter_context(fronts.running(front, "compose", changes))
        repository = Repository(
            tmp_path / "server-data", tmp_path / "keys", made["remote_url"], made["admin_token"], port
        )
        disk = tmp_path / "disk.raw"
        disk.write_bytes(random.Random(3).randbytes(2 * MIB).ljust(4 * MIB, b"\0"))

        alice = Workstation(tmp_path / "alice", extra={"SSL_CERT_FILE": str(pem)})
        add_publisher(alice, repository, "alice")
        alice.run("publish", disk, "test:alice/debian@1", "--key", "alice")
        reader = Workstation(tmp_path / "reader", extra={"SSL_CERT_FILE": str(pem)})
        reader.run("remote", "add", "test", made["remote_url"])
        place = tmp_path / "mnt"
        place.mkdir()
        reader.run("mount", "test:alice/debian", place)
        try:
            assert (place / "disk.raw").read_bytes() == disk.read_bytes()
        finally:
            reader.run("umount", place)

        assert list((store.root / "oscirc" / "blocks").rglob("*.zst"))
        assert not (tmp_path / "server-data" / "tree" / "blocks").exists()
        read = [line for line in front.log() if str(line["path"]).startswith("/blocks/")]
        assert {line["cache"] for line in read} <= {"MISS", "HIT"}
        assert read
        page = httpx.get(f"http://127.0.0.1:{metrics}/metrics").text
        assert 'route="/blocks"' not in page  # blocks do not pass through the server
        assert "oscirc_server_up_to_date 1.0" in page
        assert server.run("serve", "health", f"http://127.0.0.1:{port}") == "well\n"
        assert server.json("serve", "status")["images"] == 1
