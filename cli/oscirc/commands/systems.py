"""`oscirc rollback | reset`: an instance's system as it was before an update, or as it was when it was new."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from oscirc.options import json_option
from oscirc.output import human_bytes, print_json, print_table, say, warn

if TYPE_CHECKING:
    from oscirc_remote.references import Reference
    from oscirc_vmlaunch.instances import Instance
    from oscirc_vmlaunch.records import KeptLayer


def kept_facts(instance: Instance, layer: KeptLayer) -> dict[str, object]:
    """What is known of a system that was set aside."""
    from oscirc_vmlaunch import layers

    return {
        "version": layer.version,
        "manifest": layer.manifest_digest,
        "set_aside": layer.set_aside,
        "by": "update" if layer.by_update else "rollback",
        "written": layer.was_written,
        "bytes": layers.occupied_bytes(instance, layer.number),
    }


@click.command()
@click.argument("what", metavar="INSTANCE")
@click.option("--to", metavar="VERSION", help="To this version (or sha256:DIGEST) of those that are kept.")
@click.option("--list", "as_list", is_flag=True, help="List what is kept, and how much room it takes.")
@click.option("--allow-revoked", is_flag=True, help="Also to a version that was withdrawn for security reasons.")
@json_option
def rollback(what: str, *, to: str | None, as_list: bool, allow_revoked: bool, as_json: bool) -> None:
    """Bring an instance back to the system that it had before its last update, with what it had written there.

    What it has written since is set aside in turn, so that --to brings that back. Its data disk stays as it is, and it
    follows what it followed: the next update moves it again. Needs no network where the old version is here. At most
    two systems are kept besides the one in use.

    \b
    Example:
      oscirc rollback web
      oscirc rollback web --list
    """
    from oscirc import updates
    from oscirc_blockstore.errors import UsageError
    from oscirc_vmlaunch import layers

    if "/" in what:
        raise UsageError(
            f"{what} is a reference: there is nothing to bring back",
            hint="boot or mount the older version by its name: PUBLISHER/IMAGE@VERSION",
        )
    instance = updates.load_instance(what)
    if as_list:
        _list(instance, as_json=as_json)
        return
    layer = layers.find(instance.record, to)
    warnings = _look(instance, layer, allow_revoked=allow_revoked)
    for warning in warnings:
        warn(warning)
    left = instance.record.version
    back = layers.go_back(instance, layer)
    if as_json:
        kept = [kept_facts(back, each) for each in back.record.kept]
        print_json({"name": what, "version": back.record.version, "left": left, "kept": kept, "warnings": warnings})
        return
    say(f"{what} is on {_called(layer)} again, as it was on {layer.set_aside[:10]}; start it with: oscirc boot {what}")
    for each in back.record.kept:
        if not each.by_update:
            to = each.version or f"sha256:{each.manifest_digest}"
            say(f"what it wrote on {_called(each)} is set aside: oscirc rollback {what} --to {to}")
    channel = updates.following(back.record).channel
    if channel:
        to = back.record.version or f"sha256:{back.record.manifest_digest}"
        say(f"it still follows #{channel}; to stay: oscirc update {what} --to {to}")


def _called(layer: KeptLayer) -> str:
    return layer.version or f"sha256:{layer.manifest_digest[:12]}…"


def _look(instance: Instance, layer: KeptLayer, *, allow_revoked: bool) -> list[str]:
    """What is to be said of the version that is gone back to; online as its repository says now, else as it said last.

    Raises `WithdrawnError` for one that was withdrawn for security reasons.
    """
    from dataclasses import replace

    from oscirc import hoarding, updates
    from oscirc_blockstore.digests import parse_hex
    from oscirc_blockstore.errors import NotFoundError
    from oscirc_remote import paths, readiness
    from oscirc_remote.resolving import resolve

    digest = parse_hex(layer.manifest_digest)
    exact = replace(updates.following(instance.record), version="", channel="", digest=digest)
    _hear(exact, allow_revoked=allow_revoked)
    try:
        resolved = resolve(exact, offline=True, allow_revoked=allow_revoked)
    except NotFoundError:
        return [f"{exact.name}@{_called(layer)} is not known here any more: booting it needs the network"]
    here = readiness.look(paths.cache_directory(), digest, resolved.manifest, hoarding.profile())
    said = list(resolved.warnings)
    if not here.is_complete:
        missing = here.blocks - here.blocks_here
        size = human_bytes(missing * resolved.manifest.geometry.block_size)
        ready = "; what a boot reads is here" if here.is_ready_to_boot else ""
        said.append(
            f"{missing} of {here.blocks} blocks of {_called(layer)} (up to {size}) are not here: "
            f"reading them needs the network{ready}"
        )
    return said


def _hear(reference: Reference, *, allow_revoked: bool) -> None:
    """Have the receipts hear of yanks that this machine has not heard of; shortly, and not at all without network."""
    from oscirc.notices import ASK_S
    from oscirc_blockstore.errors import OscircError, WithdrawnError
    from oscirc_remote import news
    from oscirc_remote.deadlines import Deadline
    from oscirc_remote.remotes import Remotes

    try:
        news.ask(Remotes().load(reference.remote), reference.publisher, reference.image, Deadline.after(ASK_S))
    except WithdrawnError:
        if not allow_revoked:
            raise
    except OscircError:
        pass  # what was heard last counts


def _list(instance: Instance, *, as_json: bool) -> None:
    from oscirc_vmlaunch import layers

    found = [kept_facts(instance, layer) for layer in reversed(instance.record.kept)]
    if as_json:
        in_use = layers.occupied_bytes(instance)
        print_json({"name": instance.name, "version": instance.record.version, "bytes": in_use, "kept": found})
    elif not found:
        say(f"{instance.name} is on {instance.record.version}, and keeps no other system")
    else:
        rows = [
            (str(each["version"]), str(each["set_aside"])[:19], str(each["by"]), human_bytes(int(str(each["bytes"]))))
            for each in found
        ]
        print_table(("VERSION", "SET ASIDE", "BY", "ROOM"), rows)


@click.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def reset(name: str, *, yes: bool, as_json: bool) -> None:
    """Let an instance begin anew on the version it has: what it wrote in its system is gone, for good.

    Its data disk stays, and so do systems that updates set aside. Asks first; where nobody can be asked it wants --yes.

    \b
    Example:
      oscirc reset web
    """
    from oscirc import updates
    from oscirc_blockstore.errors import UsageError
    from oscirc_vmlaunch import layers

    instance = updates.load_instance(name)
    freed = layers.occupied_bytes(instance)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise UsageError("what a system has written cannot be brought back", hint="say --yes")
        click.confirm(f"Throw away the {human_bytes(freed)} that {name} wrote in its system?", abort=True, err=True)
    fresh = layers.reset(instance)
    has_data = bool(fresh.record.data_disk_bytes)
    if as_json:
        print_json({"name": name, "version": fresh.record.version, "freed_bytes": freed, "data_disk": has_data})
        return
    data = "; its data disk is as it was" if has_data else ""
    say(f"{name} begins anew on {fresh.record.version}: {human_bytes(freed)} of its system are gone{data}")
