"""Entry point: the table of commands, loaded only when asked for, and the one translation of errors to exit codes.

Exit codes: 0 done, 2 usage, 3 not found, 4 trust refused, 5 network, 6 local (disk, permission), 7 integrity,
130 interrupted. An error is one line of what happened and, where there is one, a line of what to do.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

import click

from oscirc_blockstore.errors import LocalError, OscircError, UsageError

# command -> (module, attribute, one line for the overview). A module is imported when its command runs, since
# starting `oscirc mount` must not cost the import of the server.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "serve": ("serving", "serve", "Run a repository server, or look after one (init, work, status, resign, rotate)."),
    "mirror": (
        "mirroring",
        "mirror",
        "Replicas of a repository: verified copies, whole or on demand (sync, serve, status).",
    ),
    "remote": ("remotes", "remote", "The repositories that this workstation knows (add, list, remove)."),
    "login": ("remotes", "login", "Store a token for publishing to a remote."),
    "token": ("tokens", "token", "Tokens: make, list and revoke them, and see what yours may do."),
    "user": ("users", "user", "People who use the server, and what they may do for which publisher."),
    "robot": ("users", "robot", "Robots of a publisher: accounts of pipelines and machines."),
    "jobs": ("jobs", "jobs", "A server's background jobs: packs and bundles (list, show, retry, cancel)."),
    "quota": ("quotas", "quota", "What publishers keep on a server, and how much they may."),
    "oidc": ("oidc", "oidc", "CI pipelines that publish with a JWT of their own."),
    "key": ("keys", "key", "Your publisher keys (create, list, show, export)."),
    "publisher": (
        "publishers",
        "publisher",
        "An administrator's: who may publish (add, rotate, revoke, remove, list, resign).",
    ),
    "ceremony": (
        "ceremony",
        "ceremony",
        "Sign together: root, targets, publishers (new, root, targets, show, sign, publish).",
    ),
    "publish": ("publishing", "publish", "Publish a disk as a new version of an image."),
    "record": ("recording", "record", "Boot an image and write its boot profile."),
    "profile": ("profiles", "profile", "Boot profiles of released versions (add, bundle, list, remove)."),
    "screenshot": ("screenshots", "screenshot", "Pictures of released versions (add, list, remove)."),
    "delta": ("deltas", "delta", "Delta packs of released versions (make, list, remove)."),
    "channel": ("channels", "channel", "An image's channels (set, list, remove)."),
    "describe": ("describing", "describe", "Say what an image is: title, summary, README, licence, end of life."),
    "yank": ("lifecycle", "yank", "Withdraw a version, saying why."),
    "restore": ("lifecycle", "restore", "Offer a withdrawn version again."),
    "delete": ("lifecycle", "delete", "Delete versions, or a whole image, for ever."),
    "retention": ("retaining", "retention", "Which versions of an image are kept (set, plan, apply)."),
    "images": ("images", "images", "Search the catalogs of your remotes."),
    "show": ("images", "show", "What a reference resolves to, verified."),
    "diff": ("diff", "diff", "What changed between two versions, and what that costs to fetch."),
    "mount": ("mounts", "mount", "Mount an image: MOUNTPOINT/disk.raw, fetched as it is read."),
    "umount": ("mounts", "umount", "Unmount an image."),
    "status": ("status", "status", "What mounts and instances fetched, cached and wait for."),
    "metrics": ("metrics", "metrics", "The same for Prometheus, printed or served."),
    "boot": ("booting", "boot", "Boot an image in QEMU, before it is downloaded."),
    "ps": ("instances", "ps", "List instances."),
    "stop": ("instances", "stop", "Shut an instance down."),
    "console": ("instances", "console", "Attach the terminal to an instance's serial console."),
    "log": ("instances", "log", "Print an instance's console log."),
    "rm": ("instances", "rm", "Remove a stopped instance with all that it holds."),
    "update": ("updating", "update", "Fetch what a channel means now, and move an instance to it."),
    "rollback": ("systems", "rollback", "Bring an instance back to the system before its last update."),
    "reset": ("systems", "reset", "Let an instance begin anew; its data disk stays."),
    "pull": ("pulling", "pull", "Fetch all of an image into the cache, or what its boot reads."),
    "pin": ("pulling", "pin", "Keep an image in the cache."),
    "unpin": ("pulling", "unpin", "Let it go when room is needed."),
    "pins": ("pulling", "pins", "The images that are pinned."),
    "cache": ("cache", "cache", "The cache of blocks (info, verify, gc, clear)."),
    "doctor": ("doctor", "doctor", "Check what this machine has and what it lacks."),
}

# commands that ask no network, and must work whatever is wrong with the preferences
STAYS_HERE = frozenset(
    {
        *("umount", "status", "ps", "stop", "console", "log", "rm", "rollback", "reset"),
        *("pins", "unpin", "cache", "doctor"),
    }
)


class _LazyGroup(click.Group):
    """Knows every command by name and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"oscirc.commands.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is not a command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="oscirc")
def cli() -> None:
    """Run any operating system at once, over HTTP, signed and fetched as it is read.

    \b
    First steps on a workstation:
      oscirc remote add example 'https://images.example/repo#sha256=…'
      oscirc images
      oscirc boot alice/debian
    """


def report(error: OscircError, *, as_json: bool) -> None:
    """Say on standard error what happened and what to do."""
    if as_json:
        click.echo(json.dumps({"error": type(error).__name__, "message": str(error), "hint": error.hint}), err=True)
        return
    click.echo(f"oscirc: {error}", err=True)
    if error.hint:
        click.echo(f"        {error.hint}", err=True)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns (and, as a script, exits with) its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if not {"-h", "--help"} & set(arguments) and arguments[:1] and arguments[0] not in STAYS_HERE:
            _use_preferred_proxy()
        result = cli.main(arguments, prog_name="oscirc", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        if "--json" in arguments:
            report(UsageError(error.format_message()), as_json=True)
        else:
            error.show()
        return error.exit_code
    except _interruptions():
        click.echo("oscirc: interrupted", err=True)
        return 130
    except OscircError as error:
        report(error, as_json="--json" in arguments)
        return error.exit_code
    except BrokenPipeError:
        _drop_output()  # nobody reads
        return 0
    except OSError as error:
        _drop_output()
        report(LocalError(f"this machine refuses: {error}"), as_json="--json" in arguments)
        return LocalError.exit_code
    return result if isinstance(result, int) else 0


def _interruptions() -> tuple[type[BaseException], ...]:
    """What Ctrl-C becomes; the cancellation of a loop only where there was one, since loading asyncio takes 30 ms."""
    loaded = sys.modules.get("asyncio")
    return click.Abort, KeyboardInterrupt, *(() if loaded is None else (loaded.CancelledError,))


def _use_preferred_proxy() -> None:
    """Before anything speaks to a network: through the proxy that the preferences name, if they name one."""
    from oscirc_remote import paths

    own = [bool(os.environ.get(name)) for name in ("OSCIRC_PROXY", "OSCIRC_NO_PROXY")]
    if not any(own) and not (paths.config_directory() / "config.toml").exists():
        return
    from oscirc_remote import preferences, proxies

    liked = preferences.load()
    proxies.apply(
        os.environ,
        proxies.changes(os.environ, liked.proxy, "", own=own[0])
        | proxies.changes(os.environ, "", liked.no_proxy, own=own[1]),
    )


def _drop_output() -> None:
    """What is still in the buffer cannot be written: let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    run()
