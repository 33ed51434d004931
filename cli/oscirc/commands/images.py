"""`oscirc images | show`: what there is (as servers state it), and what a reference means (verified)."""

from __future__ import annotations

import click

from oscirc.options import json_option
from oscirc.output import human_bytes, print_json, print_table, say, warn


@click.command()
@click.argument("query", nargs=-1)
@click.option("--remote", "remote_name", help="Ask this remote only.")
@json_option
def images(query: tuple[str, ...], *, remote_name: str | None, as_json: bool) -> None:
    """Search the catalogs of your remotes. They are not signed: what you boot is verified when you boot it.

    \b
    Example:
      oscirc images debian uefi
    """
    from urllib.parse import urlencode

    from oscirc import composition
    from oscirc_blockstore.errors import OscircError
    from oscirc_remote.remotes import Remotes

    remotes = [composition.only_remote(remote_name)] if remote_name else list(Remotes().list())
    if not remotes:
        say("no remotes; add one with: oscirc remote add NAME 'URL#sha256=…'")
    found: list[dict[str, object]] = []
    for remote in remotes:
        try:
            with composition.rest_client(remote, None, authorised=False) as rest:
                answer = rest.call_json("GET", f"images?{urlencode({'q': ' '.join(query)})}")
        except OscircError as error:
            warn(f"{remote.name}: {error}")
            continue
        listed = answer.get("images")
        found += (
            [{**item, "remote": remote.name} for item in listed if isinstance(item, dict)]
            if isinstance(listed, list)
            else []
        )
    if as_json:
        print_json({"images": found})
        return
    rows = []
    for item in found:
        versions = item.get("versions")
        listed = [v for v in versions if isinstance(v, dict)] if isinstance(versions, list) else []
        newest = next((v for v in listed if not v.get("yanked")), listed[0] if listed else {})
        label = f"{newest.get('version', '')} (withdrawn)" if newest.get("yanked") else newest.get("version", "")
        rows.append(
            (
                _plain(f"{item['remote']}:{item.get('publisher')}/{item.get('image')}"),
                _plain(label),
                human_bytes(int(newest.get("disk_size", 0))),
                human_bytes(int(newest.get("download_bytes", 0))),
                _stated(newest, "system", "family"),
                _stated(item, "about", "title"),
            )
        )
    if rows:
        print_table(("IMAGE", "NEWEST", "DISK", "DOWNLOAD", "SYSTEM", "TITLE"), rows)
    elif remotes:
        say("nothing found")


def _stated(item: dict[str, object], name: str, key: str) -> str:
    """A text out of an object that a server states, or should."""
    inner = item.get(name)
    return _plain(inner.get(key, "")) if isinstance(inner, dict) else ""


def _plain(text: object) -> str:
    """What a server states, without anything that a terminal would obey."""
    return "".join(character for character in str(text)[:120] if character.isprintable())


@click.command()
@click.argument("reference")
@click.option("--offline", is_flag=True, help="As far as this workstation knows.")
@click.option("--allow-revoked", is_flag=True, help="Show a version that was withdrawn for security reasons.")
@click.option("--readme", "only_readme", is_flag=True, help="Print the image's README instead.")
@json_option
def show(reference: str, *, offline: bool, allow_revoked: bool, only_readme: bool, as_json: bool) -> None:
    """What a reference resolves to now, verified: the disk, its size, the facts about its system, what it is.

    \b
    Example:
      oscirc show 'alice/debian#stable'
    """
    from datetime import UTC, datetime

    from oscirc.describing import about_lines
    from oscirc_blockstore.errors import NotFoundError
    from oscirc_remote.resolving import resolve

    resolved = resolve(reference, offline=offline, allow_revoked=allow_revoked)
    manifest, system = resolved.manifest, resolved.manifest.system
    for warning in resolved.warnings:
        warn(warning)
    if only_readme:
        if resolved.about is None:
            raise NotFoundError("the README is not kept here", hint="ask for it with the network at hand")
        click.echo(resolved.about.readme)
        return
    facts: dict[str, object] = {
        "remote": resolved.remote.name,
        "publisher": resolved.publisher,
        "image": resolved.image,
        "version": resolved.version_label,
        "manifest": resolved.manifest_digest.hex(),
        "disk_size": manifest.geometry.disk_size,
        "block_size": manifest.geometry.block_size,
        "data_blocks": manifest.data_blocks,
        "table_root": manifest.root.digest.hex(),
        "family": system.family,
        "os_version": system.version,
        "architecture": system.architecture,
        "firmware": system.firmware,
        "minimum_memory_mib": system.minimum_memory_mib,
        "default_login": system.default_login,
        "fresh": resolved.fresh,
        "expires": resolved.expires.isoformat() if resolved.expires else None,
        "about": None if resolved.about is None else resolved.about.document(),
        "warnings": list(resolved.warnings),
    }
    if as_json:
        print_json(facts)
        return
    data = manifest.data_blocks * manifest.geometry.block_size
    click.echo(f"{resolved.remote.name}:{resolved.publisher}/{resolved.image}@{resolved.version_label}")
    click.echo(f"  manifest  sha256:{resolved.manifest_digest.hex()}")
    click.echo(f"  disk      {human_bytes(manifest.geometry.disk_size)}, {human_bytes(data)} of data")
    click.echo(f"  system    {f'{system.family} {system.version}'.strip()}, {system.architecture}, {system.firmware}")
    click.echo(f"  needs     {system.minimum_memory_mib} MiB of memory")
    if system.default_login:
        click.echo(f"  login     {system.default_login}")
    for what, said in about_lines(resolved.about, system.version, datetime.now(UTC).date()):
        click.echo(f"  {what:<8}  {said}")
    click.echo(
        f"  verified  {'just now' if resolved.fresh else 'earlier'}, good until {facts['expires'] or 'for ever'}"
    )
