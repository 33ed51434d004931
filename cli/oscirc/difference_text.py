"""What `oscirc diff` says: facts for programs, and the same in lines for people.

File names, package names and changelogs are a publisher's: what a terminal would obey is taken out of them here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from oscirc.disk_map import Look
from oscirc.output import human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oscirc_blockstore.packages import PackageChange
    from oscirc_remote.file_differences import PartitionFiles, SystemPackages
    from oscirc_remote.two_versions import Side
    from oscirc_remote.version_difference import VersionDifference

# by the letters of `oscirc_remote.table_difference.Change`; of what is as frequent in a cell the first is drawn
LOOKS = {
    "c": Look("changed", "C", "yellow", "changed"),
    "n": Look("new", "N", "green", "new: zeros before"),
    "r": Look("removed", "r", "red", "removed: zeros now"),
    "s": Look("unchanged", "=", "bright_black", "unchanged, or not looked into since both versions share it"),
    "z": Look("zero", ".", "bright_black", "zeros in both"),
}
_MOST_TEXT = 400
_TOLD = {"rewritten": "written anew as they were", "attributes": "with another owner or mode"}
_MOST_LINES = 12
MOST_FILES, FEW_FILES, FEW_PACKAGES = 100, 10, 30
MARKS = {"added": "+", "removed": "-", "changed": "~", "renamed": ">", "rewritten": "w", "attributes": "m"}


def plain(text: str, most: int = _MOST_TEXT) -> str:
    """What a publisher wrote, on one line, without anything that a terminal would obey."""
    kept = "".join(character if character.isprintable() else "?" for character in text[: most + 1])
    return kept if len(kept) <= most else f"{kept[:most]}…"


def facts(old: Side, new: Side, found: VersionDifference) -> dict[str, object]:
    """For `--json`; bytes are those of bodies."""
    positions, here, full = found.table.positions, found.here, found.full
    changed, added = positions["c"], positions["n"]
    return {
        "old": _side_facts(old),
        "new": _side_facts(new),
        "block_size": here.block_size,
        "blocks": {
            "data": new.resolved.manifest.data_blocks,
            "unchanged": max(0, new.resolved.manifest.data_blocks - changed - added),
            "changed": changed,
            "new": added,
            "removed": positions["r"],
        },
        "nodes": {"new": full.nodes, "removed": len(found.table.gone_nodes - found.table.fresh_nodes)},
        "from_old": {
            "blocks": full.blocks,
            "bytes": full.block_bytes + full.node_bytes,
            "node_bytes": full.node_bytes,
            "bytes_with_packs": None if full.pack_bytes is None else full.pack_bytes,
            "estimated_blocks": full.estimated,
        },
        "from_here": {
            "blocks": here.missing_blocks,
            "bytes": here.whole_bytes,
            "bytes_with_packs": here.pack_bytes,
            "records": here.records,
            "estimated_blocks": here.estimated,
        },
        "fetched_nodes": found.fetched_nodes,
    }


def _side_facts(side: Side) -> dict[str, object]:
    resolved, version = side.resolved, side.version
    return {
        "remote": resolved.remote.name,
        "image": f"{resolved.publisher}/{resolved.image}",
        "version": resolved.version_label,
        "manifest": resolved.manifest_digest.hex(),
        "released": version.released if version else None,
        "changelog": version.changelog if version else None,
        "yanked": version.yanked.why if version and version.yanked else None,
        "disk_size": resolved.manifest.geometry.disk_size,
        "data_blocks": resolved.manifest.data_blocks,
    }


def lines(old: Side, new: Side, found: VersionDifference) -> Iterator[str]:
    """The same for people."""
    positions, here, full, size = found.table.positions, found.here, found.full, found.here.block_size
    yield f"{_named(old)}  ->  {_named(new)}"
    unchanged = max(0, new.resolved.manifest.data_blocks - positions["c"] - positions["n"])
    yield (
        f"  blocks     {positions['c']} changed, {positions['n']} new, {positions['r']} removed, {unchanged} unchanged"
        f" ({human_bytes(size)} each); {full.nodes} nodes of the table are new"
    )
    if here.missing_blocks:
        about = "" if here.is_exact else "about "
        packs = (
            f"; with delta packs {about}{human_bytes(here.pack_bytes)} ({here.records} blocks are rebuilt)"
            if here.records
            else ""
        )
        whole = f"{about}{human_bytes(here.whole_bytes)}"
        yield f"  to fetch   {whole} in {here.missing_blocks} blocks that are not here{packs}"
    else:
        yield "  to fetch   nothing: all of its blocks are here"
    about = "about " if full.estimated else ""
    packs = "" if full.pack_bytes is None else f"; with the delta pack {about}{human_bytes(full.pack_bytes)}"
    yield (
        f"  from all   {about}{human_bytes(full.block_bytes + full.node_bytes)} in {full.blocks} blocks and "
        f"{full.nodes} nodes, for somebody who has all of the old version{packs}"
    )
    changelog = new.version.changelog.splitlines() if new.version else []
    for number, line in enumerate(changelog[:_MOST_LINES]):
        yield f"  {'says' if number == 0 else '    '}       {plain(line)}"
    if len(changelog) > _MOST_LINES:
        yield "             …"


def _named(side: Side) -> str:
    return f"{side.name} ({side.version.released[:10]})" if side.version else side.name


def package_facts(
    old: SystemPackages, new: SystemPackages, changes: Sequence[PackageChange] | None
) -> dict[str, object]:
    """For `--json`; `changes`, the largest first, is null where the two have no lists of packages that are read; `size`
    is in bytes, null where the package manager does not say.
    """
    return {
        "old_system": old.name,
        "new_system": new.name,
        "unread": new.unread or old.unread or None,
        "changes": None
        if changes is None
        else [{"name": change.name, "old": change.old, "new": change.new, "size": change.size} for change in changes],
    }


def package_lines(
    old: SystemPackages, new: SystemPackages, changes: Sequence[PackageChange] | None, most: int | None
) -> Iterator[str]:
    """The same for people."""
    names = f"{plain(old.name)} -> {plain(new.name)}" if old.name != new.name else plain(new.name)
    if changes is None:
        why = f"{new.unread or old.unread} is of a kind that is not read" if new.unread or old.unread else "none found"
        yield f"packages: {why}{f' ({names})' if names else ''}"
        return
    yield f"packages: {len(changes)} differ{f' ({names})' if names else ''}"
    for change in changes[:most]:
        mark = "+" if change.old is None else "-" if change.new is None else "~"
        versions = f"{plain(change.old or '')} -> {plain(change.new or '')}"
        text = versions if change.old and change.new else plain(change.old or change.new or "")
        size = "" if change.size is None else f" ({human_bytes(change.size)})"
        yield f"  {mark} {plain(change.name)} {text}{size}"
    if most is not None and len(changes) > most:
        yield f"  and {len(changes) - most} more: --packages lists all"


def file_facts(found: Sequence[PartitionFiles]) -> list[dict[str, object]]:
    """For `--json`, by partition, largest first."""
    return [
        {
            "partition": each.number,
            "files": each.files,
            "changes": [
                {
                    "kind": change.kind,
                    "path": change.path,
                    "what": change.what,
                    "old_size": change.old_size,
                    "new_size": change.new_size,
                    **({"source": change.source} if change.source else {}),
                }
                for change in each.changes
            ],
        }
        for each in found
    ]


def file_lines(found: Sequence[PartitionFiles], most: int) -> Iterator[str]:
    """The same for people: how many of each kind, and the largest."""
    for each in found:
        counted = [
            f"{count} {_TOLD.get(kind, kind)}"
            for kind in MARKS
            if (count := sum(1 for change in each.changes if change.kind == kind))
        ]
        yield f"files in partition {each.number}: {', '.join(counted) or 'none differ'}, of {each.files}"
        ranked = [change for change in each.changes if change.size and change.kind not in _TOLD]
        for change in ranked[:most]:
            came = f" (was {plain(change.source)})" if change.source else ""
            yield f"  {MARKS[change.kind]} {human_bytes(change.size):>10}  {plain(change.path)}{came}"
        if len(ranked) > most:
            yield f"  and {len(ranked) - most} smaller ones: --files lists {MOST_FILES}, --json all"
