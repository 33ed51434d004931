"""`oscirc publish instance:NAME` against a real server: what it reads, sends and refuses. No guest runs here."""

import asyncio
import subprocess
from datetime import UTC, datetime

import pytest
from support.commands import Workstation, add_publisher, initialise, serving

from oscirc_vmlaunch import overlays
from oscirc_vmlaunch.instances import Instances
from oscirc_vmlaunch.records import InstanceRecord

MIB, BLOCK = 1 << 20, 256 << 10


@pytest.fixture(scope="module")
def station(tmp_path_factory):
    """A publisher who is also a user, with alice/debian@1 of 600 MiB released."""
    home = tmp_path_factory.mktemp("station")
    operator = Workstation(home / "operator")
    repository = initialise(operator, home / "repository")
    station = Workstation(home / "alice")
    with serving(operator, repository):
        add_publisher(station, repository, "alice")
        base = home / "base.raw"
        with base.open("wb") as file:
            for at in range(0, 600, 3):
                file.seek(at * MIB)
                file.write(b"%d" % at * 4096)
            file.truncate(600 * MIB)
        station.base = base
        station.first = station.json(
            *("publish", base, "test:alice/debian@1", "--key", "alice"),
            *("--memory", "256", "--os", "debian", "--os-version", "12", "--login", "root, no password"),
        )
        yield station


@pytest.fixture
def instance(station, request):
    """A stopped instance of that version, and a way to write to its disk as a guest would."""
    name = f"one-{abs(hash(request.node.name)) % 10**8}"
    instances = Instances(station.home / "data" / "oscirc" / "instances")
    made = instances.create(
        InstanceRecord(
            name=name,
            remote="test",
            reference="alice/debian",
            manifest_digest=station.first["manifest"],
            version="1",
            firmware="bios",
            architecture="x86_64",
            memory_mib=256,
            cpus=1,
            accelerator="tcg",
            mount_point="/nowhere",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    )
    asyncio.run(overlays.create(made.overlay, station.base))
    yield made
    instances.remove(name)


def write(instance, *commands):
    arguments = [word for command in commands for word in ("-c", command)]
    subprocess.run(
        ["qemu-io", "-d", "unmap", "-f", "qcow2", *arguments, instance.overlay], check=True, capture_output=True
    )


def publish(station, instance, version, *options):
    return station.json(
        *("publish", f"instance:{instance.name}", f"test:alice/debian@{version}", "--key", "alice"), *options
    )


def flat(instance, tmp_path):
    """The disk as QEMU reads it."""
    out = tmp_path / "flat.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", instance.overlay, out], check=True)
    return out


def test_work_follows_what_was_written_not_what_the_disk_holds(station, instance, tmp_path):
    costs = []
    for version, mebibytes in (("small", 8), ("double", 16)):
        write(instance, *(f"write -P {at + mebibytes} {100 + at * 10}M 1M" for at in range(mebibytes)))
        costs.append(publish(station, instance, version, "--keep-secrets", "--no-channel"))
    for cost, mebibytes in zip(costs, (8, 16), strict=True):
        assert cost["changed_bytes"] == cost["overlay_bytes_read"] == mebibytes * MIB
        assert cost["base_blocks_loaded"] == cost["base_bytes_read"] == 0
        assert cost["base_nodes_loaded"] <= 4
        assert cost["new_blocks"] <= mebibytes
    whole = station.json("publish", flat(instance, tmp_path), "test:alice/whole@1", "--key", "alice", "--no-channel")
    shown = station.json("show", "test:alice/debian@double")
    assert whole["new_blocks"] == 0  # the same blocks, whichever way they are read
    assert shown["data_blocks"] == whole["data_blocks"]
