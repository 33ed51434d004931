"""The command's manners: help that can be copied, errors that scripts can read, documented exit codes, no traceback."""

import json
import os
import pathlib
import re
import subprocess
import sys

import click
import pytest

from oscirc import output
from oscirc.__main__ import COMMANDS, cli, main


def every_command(command=cli, path=()):
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from every_command(command.get_command(context, name), (*path, name))


@pytest.mark.parametrize(
    ("path", "command"), list(every_command()), ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_every_help_is_readable(path, command, capsys):
    assert main([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "\\" not in shown
    assert "\x08" not in shown
    if "Example:" in shown:
        after = shown.split("Example:")[1].splitlines()[1]
        assert after.strip().startswith("oscirc") or "&&" in after


def every_leaf():
    for path, command in every_command():
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield path, command


@pytest.mark.parametrize(
    ("path", "command"), list(every_leaf()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_an_example_of_itself(path, command):
    _, _, example = (command.help or "").partition("Example:\n")
    assert f"oscirc {' '.join(path)}" in example


PRINTS_NO_FACTS = {
    ("serve",): "runs until it is ended, and logs",
    ("serve", "work"): "runs until it is ended, and logs",
    ("mirror", "serve"): "runs until it is ended, and logs",
    ("metrics",): "prints Prometheus' format",
    ("console",): "is a terminal",
    ("log",): "prints what the guest printed",
    ("key", "export"): "prints a key in PEM",
}


def test_every_command_that_prints_facts_prints_them_as_json_where_that_is_asked_for():
    without = {path for path, command in every_leaf() if not any("--json" in option.opts for option in command.params)}
    assert without == set(PRINTS_NO_FACTS)


def test_the_overview_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_a_near_miss_is_named(capsys):
    assert main(["mout"]) == 2
    assert "Did you mean 'mount'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (["show", "--json"], 2, "UsageError"),
        (["show", "alice", "--json"], 2, "NameRefusedError"),
        (["show", "alice/x", "--json"], 3, "NotFoundError"),
        (["key", "show", "nobody", "--json"], 3, "NotFoundError"),
        (["status", "/nowhere/at/all", "--json"], 3, "NotFoundError"),
        (["remote", "add", "x", "http://127.0.0.1:1/#nothing", "--json"], 2, "UsageError"),
    ],
)
def test_errors_are_json_where_json_was_asked_for(arguments, code, name, capsys):
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["error"] == name


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon", "1e9"])
def test_a_time_is_finite_and_positive(seconds, tmp_path, capsys):
    assert main(["mount", "a/b", str(tmp_path), "--deadline", seconds]) == 2
    assert "not a time" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["record", "a/b", "--until", "("],
        ["boot", "a/b", "--wait-for", "("],
        ["publish", "disk", "a/b@1", "--key", "k", "--profile", "auto", "--record-until", "("],
    ],
)
def test_what_is_no_regular_expression_is_refused_before_anything_starts(arguments, capsys):
    assert main(arguments) == 2  # 3, were it looked for before
    assert "'(' is not a regular expression: missing )" in capsys.readouterr().err


def test_a_boot_that_would_print_no_facts_refuses_to_be_asked_for_them(capsys):
    assert main(["boot", "a/b", "--json"]) == 2
    assert "--detach, or --wait-for" in json.loads(capsys.readouterr().err)["hint"]
    assert main(["boot", "nobody", "--json", "--detach"]) == 3  # looked for, then


def test_a_profile_without_profile_only_would_mean_nothing_to_pull(capsys):
    assert main(["pull", "a/b", "--profile", "desktop"]) == 2
    assert "--profile-only" in capsys.readouterr().err
    assert main(["pull", "a/b", "--profile-only", "--profile", "desktop"]) == 3


def test_a_pull_that_is_interrupted_while_it_resolves_says_that_it_goes_on(monkeypatch, capsys):
    from oscirc_remote import resolving

    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(resolving, "resolve", interrupted)
    assert main(["pull", "a/b"]) == 130
    assert "run it again to go on" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_one_line(tmp_path):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "oscirc", "key", "list", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 6
    assert "Traceback" not in done.stderr


def test_a_reader_that_hangs_up_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "oscirc", "--help"], stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == ""


def test_starting_a_command_does_not_load_the_other_rooms():
    code = "import sys, oscirc.__main__ as m; m.main(['mount', '--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & {"fastapi", "sqlalchemy", "tuf", "httpx", "pyfuse3", "trio", "qemu", "cryptography", "asyncio"}


def test_the_cancellation_of_a_loop_is_an_interruption(monkeypatch, capsys):
    import asyncio

    def cancelled(*_arguments, **_options):
        raise asyncio.CancelledError

    monkeypatch.setattr(cli, "main", cancelled)
    assert main(["ps"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (70_000_000, "66.8 MiB"),
        (3 << 40, "3.0 TiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_sizes_are_readable(count, text):
    assert output.human_bytes(count) == text


def test_hints_and_messages_name_only_commands_that_there_are():
    root = pathlib.Path(__file__).parents[3]
    known = {" ".join(path) for path, _ in every_command()}
    named = set()
    for room in ("blockstore", "remote", "publisher", "server", "fusedriver", "vmlaunch", "cli"):
        for file in root.joinpath(room).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            named |= set(re.findall(r"(?:run|with|by|see|first): oscirc ([a-z]+(?: [a-z]+)?)", text))
    groups = {path[0] for path, command in every_command() if isinstance(command, click.Group) and path}
    assert named
    for words in named:
        first = words.split()[0]
        assert first in known, words
        if first in groups and first != "serve":
            assert words in known, words
