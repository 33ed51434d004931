"""`oscirc remote mirrors`: where a remote is read from, and how each place does for the mounts that run now."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from oscirc.options import json_option
from oscirc.output import print_json, print_table, warn

if TYPE_CHECKING:
    from oscirc_remote.remotes import Remote


@click.command()
@click.argument("name")
@click.argument("urls", nargs=-1, metavar="[URL…]")
@click.option("--add", "added", multiple=True, metavar="URL", help="Add one to your own list.")
@click.option("--remove", "removed", multiple=True, metavar="URL", help="Take one from your own list.")
@click.option("--clear", is_flag=True, help="Forget your own list.")
@json_option
def mirrors(
    name: str, *, urls: tuple[str, ...], added: tuple[str, ...], removed: tuple[str, ...], clear: bool, as_json: bool
) -> None:
    """Show a remote's mirrors and how they do; or change your own list, beside those that the repository names.

    URLs without an option replace your list. A change holds from the next mount on. A new one is asked for the
    repository's root of trust: what serves something else is refused, what does not answer now is added with a warning.

    \b
    Example:
      oscirc remote mirrors example --add http://mirror.lan/example
    """
    from oscirc import mirror_probe
    from oscirc_remote.remotes import Remotes, check_mirrors

    known = Remotes()
    remote = known.load(name)
    probed: tuple[mirror_probe.Probed, ...] = ()
    if urls or added or removed or clear:
        wanted = check_mirrors(_changed(remote, urls, added, removed, clear=clear))
        probed = mirror_probe.probe_all(remote, [url for url in wanted if url not in remote.own_mirrors])
        remote = known.set_mirrors(name, wanted)
    facts = _facts(remote)
    if as_json:
        told = [asdict(each) for each in probed]
        print_json({"remote": name, "sources": list(remote.sources()), "mirrors": facts, "probed": told})
        return
    for each in probed:
        if each.outcome == mirror_probe.UNREACHABLE:
            warn(f"{each.url} was added, though it does not answer now: {each.problem}")
    print_table(("MIRROR", "KNOWN FROM", "STATE"), [(str(f["url"]), str(f["from"]), _state(f)) for f in facts])


def _changed(
    remote: Remote, urls: tuple[str, ...], added: tuple[str, ...], removed: tuple[str, ...], *, clear: bool
) -> tuple[str, ...]:
    """The user's own list after a change; raises `UsageError` for one that is to be removed and is not there."""
    from oscirc_blockstore.errors import UsageError

    before = urls if urls or clear else remote.own_mirrors
    gone = {url.rstrip("/") for url in removed}
    unknown = gone - {url.rstrip("/") for url in before}
    if unknown:
        raise UsageError(
            f"{', '.join(sorted(unknown))} is not in your own list of mirrors of {remote.name}",
            hint=f"the list: {', '.join(before) or 'empty'}; what the repository names is not yours to remove",
        )
    return tuple(dict.fromkeys((*(url for url in before if url.rstrip("/") not in gone), *added)))


def _facts(remote: Remote) -> list[dict[str, object]]:
    standings = _standings(remote.name)
    return [
        {
            "url": url,
            "from": "remote" if url == remote.url else "you" if url in remote.own_mirrors else "repository",
            "mounts": standings.get(url.rstrip("/"), []),
        }
        for url in remote.sources()
    ]


def _standings(name: str) -> dict[str, list[dict[str, object]]]:
    """What the mounts of this remote that run now say of each mirror, by its address."""
    from oscirc import mount_facts
    from oscirc_blockstore.errors import OscircError
    from oscirc_fusedriver import records

    told: dict[str, list[dict[str, object]]] = {}
    for record in records.list_records():
        if record.remote != name or not record.process.alive():
            continue
        with contextlib.suppress(OscircError):  # it may be ending
            for mirror in mount_facts.mirrors_of(mount_facts.running(record)):
                told.setdefault(str(mirror["name"]), []).append({"mountpoint": record.mountpoint, **mirror})
    return told


def _state(facts: dict[str, object]) -> str:
    """The worst that any mount says of it, in words."""
    mounts = facts["mounts"]
    said = mounts if isinstance(mounts, list) else []
    for mount in said:
        if mount["lied"]:
            return f"LIED: {mount['last_problem'] or 'a cache on the way served a wrong block'}"
    for mount in said:
        if mount["demoted"]:
            return f"demoted for {mount['demoted_for_s']:.0f} s: {mount['last_problem']}"
    measured = [mount["score"] for mount in said if mount["score"]]
    return f"{min(measured):.0f} ms per block" if measured else "not used now" if not said else "not asked yet"
