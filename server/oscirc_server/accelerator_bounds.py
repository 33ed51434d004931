"""How long an accelerator of a version may be: no honest one is longer, whatever an unsigned listing states. Pure."""

from __future__ import annotations

from oscirc_blockstore import bundle, delta, lengths, package_list, profile, screenshot
from oscirc_blockstore.accelerators import DELTA, LENGTHS, PACKAGES, PROFILE, SCREENSHOT
from oscirc_blockstore.frame import max_frame_bytes
from oscirc_blockstore.manifest import Manifest


def limit_bytes(manifest: Manifest, kind: str) -> int:
    """How long a file of that kind may be for a version."""
    if kind == PROFILE:
        return profile.MAX_PROFILE_BYTES
    if kind == LENGTHS:
        return lengths.MAX_FILE_BYTES
    if kind == PACKAGES:
        return package_list.MAX_BYTES
    if kind == SCREENSHOT:
        return screenshot.MAX_BYTES
    if kind == DELTA:
        return delta.MAX_INDEX_BYTES + manifest.data_blocks * max_frame_bytes(manifest.geometry.block_size)
    return bundle.bounds(manifest.geometry, manifest.data_blocks).length
