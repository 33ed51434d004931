"""The commands of an image's page: whole as they stand, quoted, and none that cannot work."""

import shlex
from types import SimpleNamespace

import pytest

from oscirc_blockstore.manifest import SystemFacts
from oscirc_server.web.ways import ways

REMOTE = "https://images.example/a&b#sha256=" + "ab" * 32


def steps_of(kind="", label="12.8+x", **system):
    image = SimpleNamespace(
        publisher="alice", image="debian", reference="alice/debian", about=SimpleNamespace(kind=kind)
    )
    version = SimpleNamespace(label=label, system=SystemFacts(**system))
    return {
        way.key: (way, [shlex.split(line) for _, line in way.steps]) for way in ways(image, version, REMOTE, "here")
    }


def test_one_line_adds_the_repository_and_boots():
    _, (first, again) = steps_of()["oscirc"]
    assert first == ["oscirc", "remote", "add", "here", REMOTE, "&&", "oscirc", "boot", "here:alice/debian"]
    assert again == ["oscirc", "boot", "debian"]


def test_plain_qemu_boots_the_file_that_was_downloaded_with_its_console_in_the_terminal():
    _, (fetch, boot) = steps_of()["qemu"]
    url = "https://images.example/a&b/api/v1/images/alice/debian/versions/12.8+x/disk.qcow2"
    assert fetch == ["curl", "-fo", "alice-debian-12.8+x.qcow2", url]
    assert boot[:5] == ["qemu-system-x86_64", "-accel", "kvm", "-accel", "tcg"]
    assert f"file={fetch[2]},if=virtio,format=qcow2" in boot
    assert "-nographic" in boot
    assert "-bios" not in boot
    assert boot[boot.index("-m") + 1] == "1024"


def test_uefi_memory_and_a_desktop_are_heeded():
    way, (_, boot) = steps_of(kind="desktop", firmware="uefi", minimum_memory_mib=4096)["qemu"]
    assert tuple(boot[boot.index("-machine") :][:2]) == ("-machine", "q35")
    assert boot[boot.index("-bios") + 1].endswith("OVMF.fd")
    assert boot[boot.index("-m") + 1] == "4096"
    assert "-nographic" not in boot
    assert tuple(boot[boot.index("-serial") :][:2]) == ("-serial", "mon:stdio")
    assert "package ovmf" in way.note


@pytest.mark.parametrize("key", ["oscirc", "qemu", "download"])
def test_for_a_processor_that_oscirc_cannot_run_no_command_says_that_it_boots(key):
    _, steps = steps_of(architecture="aarch64")[key]
    assert steps
    assert all("boot" not in words and not words[0].startswith("qemu") for words in steps)
