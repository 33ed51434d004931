import json
import os
from pathlib import Path

import pytest

from oscirc_blockstore.errors import MissingProgramError
from oscirc_vmlaunch import firmware


@pytest.fixture
def folders(tmp_path):
    made = [tmp_path / name for name in ("vendor", "administrator", "user")]
    for folder in made:
        folder.mkdir()
    return made


@pytest.fixture
def describe(tmp_path):
    code, template = tmp_path / "code.fd", tmp_path / "vars.fd"
    code.write_bytes(b"code")
    template.write_bytes(b"template")

    def write(path, *, features=(), machines=("pc-q35-*",), architecture="x86_64", mapping=None, interface="uefi"):
        flash = {
            "device": "flash",
            "executable": {"filename": str(code), "format": "raw"},
            "nvram-template": {"filename": str(template), "format": "raw"},
        }
        document = {
            "interface-types": [interface],
            "mapping": flash | (mapping or {}),
            "targets": [{"architecture": architecture, "machines": list(machines)}],
            "features": list(features),
        }
        path.write_text(json.dumps(document))

    return write


def find(folders, **options):
    return firmware.find("uefi", "x86_64", folders=folders, **options)


def test_bios_needs_no_firmware(folders):
    assert firmware.find("bios", "x86_64", folders=folders) is None
    assert firmware.prepare(None, Path("/nowhere")) is None


def test_names_decide_the_order_whatever_the_folder(folders, describe):
    describe(folders[0] / "50-b.json")
    describe(folders[2] / "60-c.json")
    describe(folders[1] / "40-a.json")
    assert find(folders).descriptor == folders[1] / "40-a.json"


def test_a_later_folder_masks_the_same_name_and_an_empty_file_only_masks(folders, describe):
    for folder in folders:
        describe(folder / "50-a.json")
    assert find(folders).descriptor == folders[2] / "50-a.json"
    (folders[2] / "50-a.json").write_text("")
    describe(folders[0] / "60-b.json")
    assert find(folders).descriptor == folders[0] / "60-b.json"


def test_firmware_that_demands_more_is_only_taken_when_asked_for(folders, describe):
    describe(folders[0] / "40.json", features=["secure-boot", "enrolled-keys", "requires-smm"])
    describe(folders[0] / "50.json", features=["secure-boot", "requires-smm"])
    describe(folders[0] / "60.json", features=["acpi-s3"])
    assert find(folders).descriptor.name == "60.json"
    chosen = find(folders, secure_boot=True)
    assert chosen.descriptor.name == "40.json"
    assert chosen.requires_smm


@pytest.mark.parametrize(
    "unfit",
    [
        {"architecture": "aarch64"},
        {"machines": ["pc-i440fx-*"]},
        {"interface": "bios"},
        {"mapping": {"device": "memory"}},
        {"mapping": {"mode": "combined"}},
        {"mapping": {"executable": {"filename": "/does/not/exist", "format": "raw"}}},
        {"mapping": {"executable": {"filename": "/etc/passwd", "format": "vmdk"}}},
        {"mapping": {"nvram-template": {}}},
        {"mapping": {"executable": 7}},
    ],
)
def test_what_does_not_fit_is_passed_over(folders, describe, unfit):
    describe(folders[0] / "40.json", **unfit)
    describe(folders[0] / "50.json")
    assert find(folders).descriptor.name == "50.json"


@pytest.mark.parametrize("content", ["[]", "7", "{", '{"features": 3}', "\x00", '{"features": [], "mapping": []}'])
def test_malformed_descriptors_are_passed_over_and_named_when_nothing_is_left(folders, content):
    (folders[0] / "40-broken.json").write_text(content)
    with pytest.raises(MissingProgramError, match=r"40-broken\.json") as missing:
        find(folders)
    assert "ovmf" in missing.value.hint


def test_the_older_board_needs_firmware_made_for_it(folders, describe):
    describe(folders[0] / "40.json", machines=["pc-q35-*"])
    describe(folders[0] / "50.json", machines=["pc-i440fx-*", "pc-q35-*"])
    assert find(folders, machine_type="pc").descriptor.name == "50.json"


def test_split_is_preferred_and_stateless_keeps_no_variables(folders, describe, tmp_path):
    describe(folders[0] / "40.json", mapping={"mode": "stateless"})
    stateless = find(folders)
    assert firmware.prepare(stateless, tmp_path / "mine.fd").variables is None
    describe(folders[0] / "50.json")
    assert find(folders).descriptor.name == "50.json"


def test_variables_are_copied_once_and_kept(folders, describe, tmp_path):
    describe(folders[0] / "40.json")
    variables = tmp_path / "instance" / "vars.fd"
    variables.parent.mkdir()
    flash = firmware.prepare(find(folders), variables)
    assert flash.variables == variables
    assert variables.read_bytes() == b"template"
    variables.write_bytes(b"written!")
    firmware.prepare(find(folders), variables)
    assert variables.read_bytes() == b"written!"
    assert [path.name for path in variables.parent.iterdir()] == ["vars.fd"]


def test_variables_of_firmware_that_was_replaced_are_set_aside(folders, describe, tmp_path):
    describe(folders[0] / "40.json")
    variables = tmp_path / "mine.fd"
    variables.write_bytes(b"of another size")
    firmware.prepare(find(folders), variables)
    assert variables.read_bytes() == b"template"
    assert (tmp_path / "mine.fd.old").read_bytes() == b"of another size"


def test_the_users_folder_comes_last_and_a_private_qemu_brings_its_own():
    folders = firmware.descriptor_folders(Path("/opt/qemu/bin/qemu-system-x86_64"))
    assert folders[-1] == Path(os.environ["XDG_CONFIG_HOME"]) / "qemu/firmware"
    assert Path("/opt/qemu/share/qemu/firmware") in folders
    assert folders.index(Path("/usr/share/qemu/firmware")) < folders.index(Path("/etc/qemu/firmware"))


def test_this_machines_own_firmware_is_found_when_it_is_installed():
    if not list(Path("/usr/share/qemu/firmware").glob("*.json")):
        pytest.skip("no firmware is installed (ovmf)")
    found = firmware.find("uefi", "x86_64")
    assert found.code.is_file()
    assert not found.requires_smm
