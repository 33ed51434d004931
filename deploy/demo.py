"""`make demo`: the main job on real input, in under three minutes. Every line that starts with `$` is a real command.

Builds a small bootable disk, serves and publishes it, boots it over HTTP from a workstation that has nothing but the
repository's URL, then publishes a second version and shows what the update costs. It works in a temporary directory
with directories of its own, so nothing of the user's is read or written, and cleans up after itself, also on Ctrl-C.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OSCIRC = [sys.executable, "-m", "oscirc"]
MIB = 1 << 20


class Person:
    """Somebody with directories of their own, who runs oscirc."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {**os.environ, "OSCIRC_KEY_PASSPHRASE": secrets.token_urlsafe(16)}
        for variable, name in (
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_DATA_HOME", "data"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_RUNTIME_DIR", "run"),
        ):
            path = directory / name
            path.mkdir(mode=0o700, parents=True)
            self.environment[variable] = str(path)

    def run(self, *arguments: object, show: bool = True, given: str | None = None) -> str:
        """One oscirc command; its standard output. Shows the command as a user would type it."""
        words = [str(argument) for argument in arguments]
        if show:
            print(f"\n$ oscirc {shlex.join(word for word in words if word != '--json')}", flush=True)
        done = subprocess.run(
            [*OSCIRC, *words], env=self.environment, text=True, input=given, stdout=subprocess.PIPE, check=False
        )
        if done.returncode:
            print(done.stdout)
            raise SystemExit(f"the demo stops here: exit code {done.returncode}")
        return done.stdout

    def facts(self, *arguments: object, show: bool = True) -> dict[str, object]:
        """The same with --json, parsed."""
        value = json.loads(self.run(*arguments, "--json", show=show))
        return value if isinstance(value, dict) else {}

    def unmount_all(self) -> None:
        """Stop the guest and unmount what is mounted, whatever happened before."""
        self._quietly("rm", "--force", "demo")
        try:
            mounts = json.loads(self._quietly("status", "--json"))["mounts"]
        except (ValueError, KeyError):
            return
        for mount in mounts:
            self._quietly("umount", "--lazy", mount["mountpoint"])

    def _quietly(self, *words: str) -> str:
        command = [*OSCIRC, *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False).stdout


class Demo:
    """One run: its people, and the server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.publisher = Person(directory / "publisher")
        self.user = Person(directory / "user")
        self.server: subprocess.Popen[str] | None = None

    def serve(self, data: Path, port: int) -> None:
        """Start the server and wait until it says that it listens."""
        words = ["serve", "--data", str(data), "--listen", f"127.0.0.1:{port}"]
        print(f"\n$ oscirc {shlex.join(words)} &", flush=True)
        with (self.directory / "server.log").open("w", encoding="utf-8") as log:
            self.server = subprocess.Popen(
                [*OSCIRC, *words],
                env=self.publisher.environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        line = self.server.stdout.readline() if self.server.stdout else ""
        if "listening" not in line:
            raise SystemExit(f"the server did not start:\n{(self.directory / 'server.log').read_text()}")
        print(line.strip(), flush=True)

    def close(self) -> None:
        """End what was started, in reverse."""
        self.user.unmount_all()
        if self.server is not None:
            self.server.terminate()
            try:
                self.server.wait(20)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()


def mib(count: object) -> str:
    """Bytes as MiB with one digit."""
    return f"{float(str(count)) / MIB:.1f} MiB"


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def build(out: Path, version: int) -> None:
    """A version of the small guest's disk."""
    print(f"\nBuilding version {version} of a small bootable disk (kernel and boot loader inside it) …", flush=True)
    subprocess.run([sys.executable, str(ROOT / "guests" / "small.py"), str(out), "--version", str(version)], check=True)


def main() -> None:
    """The demonstration, step by step."""
    directory = Path(tempfile.mkdtemp(prefix="oscirc-demo-"))
    demo = Demo(directory)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        tell(demo, directory)
    except KeyboardInterrupt:
        raise SystemExit("interrupted") from None
    finally:
        demo.close()
        shutil.rmtree(directory, ignore_errors=True)


def tell(demo: Demo, directory: Path) -> None:
    """The steps themselves."""
    started = time.monotonic()
    publisher, user = demo.publisher, demo.user
    disk_1, disk_2, data = directory / "v1.raw", directory / "v2.raw", directory / "repository"
    build(disk_1, 1)
    port = free_port()
    made = publisher.facts("serve", "init", "--data", data, "--public-url", f"http://127.0.0.1:{port}")
    demo.serve(data, port)

    print("\n--- the publisher ---")
    publisher.run("remote", "add", "demo", made["remote_url"])
    print("(the administrator's token goes in through standard input)")
    publisher.run("login", "demo", "--token-file", "-", given=str(made["admin_token"]))
    publisher.run("key", "create", "alice")
    public = publisher.directory / "data" / "oscirc" / "keys" / "alice.pub"
    # the demo's one passphrase opens the publisher's key and the repository's own
    publisher.run("publisher", "add", "alice", public, "--keys", data / "keys")
    system = ("--os", "busybox", "--os-version", "1", "--memory", "256", "--login", "root, password oscirc")
    first = publisher.facts("publish", disk_1, "alice/circuit@1", "--key", "alice", "--firmware", "bios", *system)
    sent, seconds = mib(first["uploaded_bytes"]), float(str(first["seconds"]))
    print(f"published: {mib(first['data_bytes'])} of data, {sent} uploaded, {seconds:.1f} s")

    print("\n--- a workstation that has only the URL ---")
    user.run("remote", "add", "demo", made["remote_url"])
    booted = user.facts("boot", "alice/circuit", "--name", "demo", "--wait-for", "login:", "--timeout", "150")
    counted = user.facts("status", "demo", show=False)
    share = 100 * float(str(counted["fetched_bytes"])) / float(str(first["stored_bytes"]))
    sizes = f"{mib(counted['disk_bytes'])}: {mib(first['data_bytes'])} of data, {mib(first['stored_bytes'])} compressed"
    print(
        f"""
  {counted["image"]}: the guest's login prompt is there.
    image size           {sizes}
    fetched to boot      {mib(counted["fetched_bytes"])} ({share:.0f} %) in {counted["requests"]} requests
    time to the prompt   {booted["seconds"]:.1f} s, of it QEMU ({booted["accelerator"]}) most""",
        flush=True,
    )
    user.run("stop", "demo")

    print("\n--- version 2: a few files changed ---")
    build(disk_2, 2)
    second = publisher.facts("publish", disk_2, "alice/circuit@2", "--key", "alice", "--firmware", "bios", *system)
    user.run("pull", "alice/circuit@1")
    update = user.facts("pull", "alice/circuit@2")
    print(f"""
  what the update costs
    publisher uploads    {mib(second["uploaded_bytes"])} ({second["new_blocks"]} of {second["data_blocks"]} blocks)
    a workstation that holds version 1 fetches {mib(update["fetched_bytes"])} instead of {mib(second["stored_bytes"])}

The demo took {time.monotonic() - started:.0f} s.""")


if __name__ == "__main__":
    main()
