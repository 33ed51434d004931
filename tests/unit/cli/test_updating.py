"""What `oscirc update` refuses before it asks anybody; what `oscirc reset` asks."""

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from oscirc import updates
from oscirc.__main__ import main
from oscirc.commands import systems
from oscirc_vmlaunch import layers


@pytest.mark.parametrize(
    "options",
    [("--download-only",), ("--no-download",), ("--policy", "keep"), ("--policy", "refuse"), ("--limit-rate", "2M")],
)
def test_what_means_nothing_without_a_name_is_refused(options, capsys):
    assert main(["update", *options]) == 2
    assert "say what is to be updated" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--policy", "keep"), ("--policy", "refuse"), ("--no-download",)])
def test_what_means_nothing_for_an_image_is_refused(options, capsys):
    assert main(["update", "home:alice/debian", *options]) == 2
    assert "is for instances" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "code", "done"), [("n\n", 1, False), ("y\n", 0, True)])
def test_a_person_is_asked_before_a_system_is_thrown_away(monkeypatch, answer, code, done):
    thrown = []
    instance = SimpleNamespace(record=SimpleNamespace(version="1", data_disk_bytes=0))
    monkeypatch.setattr(updates, "load_instance", lambda _name: instance)
    monkeypatch.setattr(layers, "occupied_bytes", lambda _instance: 5 << 20)
    monkeypatch.setattr(layers, "reset", lambda each: thrown.append(each) or each)
    monkeypatch.setattr(systems, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    ran = CliRunner().invoke(systems.reset, ["web"], input=answer)
    assert ran.exit_code == code
    assert "5.0 MiB that web wrote" in ran.output
    assert bool(thrown) is done
    assert CliRunner().invoke(systems.reset, ["web", "--yes"]).exit_code == 0
