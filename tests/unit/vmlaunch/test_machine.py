import ast
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore.errors import UsageError
from oscirc_vmlaunch import machine
from oscirc_vmlaunch.machine import Endpoint, Flash, PortForward, build_arguments


def values(arguments, option):
    return [after for before, after in itertools.pairwise(arguments) if before == option]


def nodes(arguments):
    return {node["node-name"]: node for node in map(json.loads, values(arguments, "-blockdev"))}


def test_the_disk_is_a_chain_of_named_nodes_that_ignores_every_header(make_spec):
    chain = nodes(build_arguments(make_spec()))
    assert chain["overlay"] == {
        "driver": "qcow2",
        "node-name": "overlay",
        "file": "overlay-file",
        "backing": "base",
        "discard": "unmap",
    }
    assert chain["base"]["driver"] == "raw"
    assert chain["base"]["file"] == "base-file"
    assert chain["base-file"]["read-only"] is True
    assert chain["base-file"]["cache"] == {"direct": False, "no-flush": False}


def test_a_data_disk_is_a_second_disk_with_nothing_below_and_a_name_of_its_own(make_spec):
    assert "data-disk" not in nodes(build_arguments(make_spec()))
    arguments = build_arguments(make_spec(data_disk=Path("/data/data.qcow2")))
    data = nodes(arguments)["data-disk"]
    assert (data["driver"], data["file"], data["backing"]) == ("qcow2", "data-disk-file", None)
    system, second = [value for value in values(arguments, "-device") if value.startswith("virtio-blk")]
    assert "bootindex=0" in system
    assert "bootindex" not in second
    assert "serial=oscirc-data" in second
    assert "werror=stop" in second


def test_the_guest_pauses_when_its_disk_fails(make_spec):
    (disk,) = [value for value in values(build_arguments(make_spec()), "-device") if value.startswith("virtio-blk")]
    assert "rerror=stop" in disk
    assert "werror=stop" in disk
    assert "bootindex=0" in disk


def test_commas_in_paths_stay_part_of_the_path(make_spec):
    spec = make_spec(
        base=Path("/mnt/a,b/disk.raw"),
        console=Endpoint(Path("/d,e/console.sock")),
        console_log=Path("/d,readonly=on/console.log"),
    )
    arguments = build_arguments(spec)
    assert nodes(arguments)["base-file"]["filename"] == "/mnt/a,b/disk.raw"
    console = values(arguments, "-chardev")[0]
    assert "path=/d,,e/console.sock" in console
    assert "logfile=/d,,readonly=on/console.log" in console


def test_a_base_that_was_opened_is_inherited_not_opened(make_spec):
    arguments = build_arguments(make_spec(base_descriptor=7))
    assert values(arguments, "-add-fd") == ["fd=7,set=1"]
    assert nodes(arguments)["base-file"]["filename"] == "/dev/fdset/1"
    assert arguments.index("-add-fd") < arguments.index("-blockdev")
    assert "-add-fd" not in build_arguments(make_spec())


def test_port_forwards_listen_on_the_loopback_address_only(make_spec):
    spec = make_spec(port_forwards=(PortForward(2222, 22), PortForward(5353, 53, "udp")))
    (network,) = values(build_arguments(spec), "-netdev")
    assert network == "user,id=network,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp:127.0.0.1:5353-:53"


def test_qemu_is_confined_and_brings_nothing_of_its_own(make_spec):
    arguments = build_arguments(make_spec())
    assert {"-nodefaults", "-no-user-config"} <= set(arguments)
    sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    assert values(arguments, "-sandbox") == [sandbox]
    assert values(arguments, "-display") == ["none"]
    assert "-S" not in arguments


def test_listening_descriptors_are_handed_over_by_number(make_spec):
    spec = make_spec(monitors=(Endpoint(Path("/a"), 7), Endpoint(Path("/b"), 8)), console=Endpoint(Path("/c"), 9))
    listeners = values(build_arguments(spec), "-chardev")
    assert [part for one in listeners for part in one.split(",") if part.startswith("fd=")] == ["fd=9", "fd=7", "fd=8"]


@pytest.mark.parametrize(("accelerator", "expected"), [("tcg", "tcg,thread=multi"), ("kvm", "kvm")])
def test_accelerators_and_their_cpu_models(make_spec, accelerator, expected):
    arguments = build_arguments(make_spec(accelerator=accelerator))
    assert values(arguments, "-accel") == [expected]
    assert values(arguments, "-cpu")[0].split(",")[0] == {"tcg": "max", "kvm": "host"}[accelerator]


def test_flash_is_code_to_read_and_variables_to_write(make_spec):
    flash = Flash(Path("/fw/code.fd"), "raw", Path("/data/vars.fd"), "raw")
    arguments = build_arguments(make_spec(machine_type="q35", flash=flash))
    assert values(arguments, "-machine") == ["q35,pflash0=firmware-code,pflash1=firmware-variables"]
    assert nodes(arguments)["firmware-code"]["read-only"] is True
    assert nodes(arguments)["firmware-variables"]["read-only"] is False


def test_secure_boot_firmware_gets_smm_and_a_locked_flash(make_spec):
    flash = Flash(Path("/fw/code.fd"), "raw", Path("/data/vars.fd"), "raw", requires_smm=True)
    arguments = build_arguments(make_spec(machine_type="q35", flash=flash))
    assert "smm=on" in values(arguments, "-machine")[0]
    assert any("secure" in value for value in values(arguments, "-global"))


def test_a_screen_comes_with_a_pointer(make_spec):
    arguments = build_arguments(make_spec(display="gtk", paused=True))
    assert {"VGA", "usb-tablet"} <= set(values(arguments, "-device"))
    assert arguments[-1] == "-S"


def test_a_display_that_nobody_sees_is_an_adapter_alone(make_spec):
    arguments = build_arguments(make_spec(graphics=True))
    assert values(arguments, "-display") == ["none"]
    assert "VGA" in values(arguments, "-device")
    assert "usb-tablet" not in values(arguments, "-device")
    assert "VGA" not in values(build_arguments(make_spec()), "-device")


@given(st.integers(1, 65535), st.integers(1, 65535), st.sampled_from(["tcp", "udp"]))
def test_port_forwards_are_read_as_they_are_written(host, guest, protocol):
    forward = PortForward(host, guest, protocol)
    assert PortForward.parse(str(forward)) == forward


@pytest.mark.parametrize("text", ["", "22", "0:22", "22:65536", "22:22,hostfwd=tcp::1-:1", "a:b", "1:2/icmp", "-1:2"])
def test_malformed_port_forwards_are_refused(text):
    with pytest.raises(UsageError):
        PortForward.parse(text)


def test_defaults_follow_the_manifest_and_the_host():
    assert machine.default_memory_mib() == 1024
    assert machine.default_memory_mib(2048) == 2048
    assert 1 <= machine.default_cpus() <= 2


@pytest.mark.parametrize("module", ["machine", "records"])
def test_the_pure_modules_know_no_process_and_no_socket(module):
    tree = ast.parse(Path(machine.__file__).with_name(f"{module}.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not imported & {"asyncio", "socket", "subprocess", "shutil", "signal"}
