"""docs/trust-operations.md, line by line: every command of the page, on the machine that it names, beside a real server.

Machines are homes of their own; the commands run in this process, the server in another. What the page leaves to
people is done here: copying the line and the tokens, playing the thief, losing the store.
"""

import contextlib
import io
import json
import random
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support import thief
from support.commands import PASSPHRASE, Workstation, end, free_port, wait_for_line

from oscirc.__main__ import main
from oscirc_blockstore import image_index, keys

PAGE = Path(__file__).parents[2] / "docs" / "trust-operations.md"
SHOWN = ["1", "1", "1", "2", "2", "2", "1", "1", "3"]  # what the reader finds, each time the page has it look


def sections():
    """(title, lines of its console blocks) in the page's order."""
    for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        lines = "".join(re.findall(r"^```console\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL)).splitlines()
        yield part.partition("\n")[0], lines


class Site:
    """The machines of the page, and what people carry between them."""

    def __init__(self, directory, monkeypatch):
        self.directory = directory
        self.monkeypatch = monkeypatch
        self.port = free_port()
        self.stick, self.data = directory / "stick", directory / "srv"
        self.stick.mkdir()
        self.machines = {}
        self.server = None
        self.line = ""
        self.shown = []

    def machine(self, name):
        if name not in self.machines:
            self.machines[name] = Workstation(self.directory / name)
            for number in (1, 2, 3):
                content = random.Random(number).randbytes(300_000)
                (self.machines[name].home / f"disk-{number}.raw").write_bytes(content.ljust(1 << 20, b"\0"))
        return self.machines[name]

    def main(self, name, arguments):
        """(exit code, standard output) of a command on a machine."""
        station = self.machine(name)
        for variable, value in station.environment.items():
            self.monkeypatch.setenv(variable, value)
        self.monkeypatch.chdir(station.home)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = main(arguments)
        return code, out.getvalue()

    def run(self, text):
        """One line of the page, as a shell would run it."""
        name, command = re.fullmatch(r"(\w+)\$ (oscirc .*)", text).groups()
        command, _, remark = command.partition("  # ")
        expected = int(re.match(r"exit code (\d+)", remark)[1]) if remark else 0
        command, _, target = command.partition(" > ")
        command = command.replace("/media/stick", str(self.stick)).replace("/srv/oscirc", str(self.data))
        command = command.replace("https://images.example/repo", f"http://127.0.0.1:{self.port}")
        arguments = [part for word in shlex.split(command)[1:] for part in self.expanded(word)]
        arguments = [self.line if word == "LINE" else word for word in arguments]
        if arguments[0] == "serve" and arguments[1].startswith("--"):
            self.start(arguments)
            return
        code, out = self.main(name, arguments)
        assert code == expected, (text, code, out)
        if target:
            Path(target.replace("/media/stick", str(self.stick))).write_text(out)
        self.carry(name, arguments, out)

    def expanded(self, word):
        """A pattern below the stick, as a shell expands it."""
        place = Path(word)
        found = sorted(map(str, self.stick.glob(place.name))) if "*" in word and place.parent == self.stick else []
        return found or [word]

    def start(self, arguments):
        self.stop()
        command = self.machine("server").command(
            *arguments, "--listen", f"127.0.0.1:{self.port}", "--log-level", "error", "--jobs", "off"
        )
        environment = self.machine("server").environment
        self.server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        wait_for_line(self.server, "listening on")

    def stop(self):
        if self.server is not None:
            end(self.server)
            self.server = None

    def carry(self, name, arguments, out):
        """What the page says people do with what they read."""
        if arguments[:2] == ["serve", "init"]:
            self.line = re.search(r"oscirc remote add NAME '(.*)'", out)[1]
            (self.stick / "admin.token").write_text(re.search(r"^ +(oscirc_\w+)$", out, flags=re.MULTILINE)[1])
        elif arguments[:2] == ["token", "create"]:
            (self.stick / "alice.token").write_text(json.loads(out)["token"])
        elif name == "reader" and arguments[0] == "show":
            self.shown.append(json.loads(out)["version"])
        for path in (self.machine("alice").home).glob("team-*.*"):
            _, _, kind = path.name.partition(".")
            shutil.copy(path, self.stick / f"team-release.{kind}")
            path.unlink()

    def key_of(self, name):
        ring = self.machine("alice").home / "data" / "oscirc" / "keys"
        return keys.load_private((ring / f"{name}.pem").read_bytes(), PASSPHRASE, name)

    def steal(self):
        """Online keys and alice's key in the hands of a thief; a reader sees what these sign."""
        kept = self.machine("reader").home / "data/oscirc/remotes/images/indexes/alice/debian.json"
        evil = thief.evil_index(image_index.parse(kept.read_bytes(), "alice", "debian"))
        for attempt in range(5):  # the server puts its own timestamp back, once a minute
            thief.jump(self.data, "alice", self.key_of("alice-3"), evil, version=thief.FAR + attempt)
            code, out = self.main("reader", ["show", "alice/debian", "--json"])
            if code == 0 and json.loads(out)["version"] == "evil":
                return
        raise AssertionError("the reader never saw the thief's version")

    def lose(self):
        """Version 3 is published and read, copied to a mirror, and then the server's whole directory put back."""
        shutil.copytree(self.data, self.directory / "backup")
        code, out = self.main("alice", ["publish", "disk-3.raw", "alice/debian@3", "--key", "alice-4", "--deltas", "0"])
        assert code == 0, out
        assert self.main("reader", ["show", "alice/debian", "--json"])[0] == 0
        shutil.copytree(self.data / "tree", self.stick / "mirror")
        self.stop()
        shutil.rmtree(self.data)
        shutil.copytree(self.directory / "backup", self.data)


@pytest.fixture
def site(tmp_path, monkeypatch):
    made = Site(tmp_path, monkeypatch)
    yield made
    made.stop()


def test_every_command_of_the_page_does_what_the_page_says(site):
    before = {"Somebody jumped versions ahead": site.steal, "An older database was restored": site.lose}
    titles = []
    for title, lines in sections():
        titles.append(title)
        before.pop(title, lambda: None)()
        for line in lines:
            site.run(line)
    assert len(titles) == 9
    assert before == {}
    assert site.shown == SHOWN
    status = json.loads(site.main("server", ["serve", "status", "--data", str(site.data), "--json"])[1])
    places = {role["role"]: role for role in status["keys"]}
    assert (places["root"]["threshold"], len(places["root"]["keys"])) == (2, 3)
    assert not any(key["file"] for key in places["root"]["keys"] + places["targets"]["keys"])
    assert status["healthy"] is True
