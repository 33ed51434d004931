"""Makes a populated ext4 file system inside a disk file, without root and byte for byte the same each time.

`mke2fs` writes the empty file system at an offset and `debugfs` then makes each node in the order given. `mke2fs -d`
would be shorter, but it takes the order of the files from the machine's own directory, and their owner and change
times from the files that the builder just wrote. With debugfs all of these come from the tree.

The features are listed here and not taken from the machine's mke2fs.conf: newer defaults include some that GRUB 2.06
cannot read. Both programs are told the time twice, since releases before 1.47.1 know only E2FSPROGS_FAKE_TIME.
"""

import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from guestdisks.programs import BuildError, run
from guestdisks.tree import EPOCH_S, Node

_BLOCK_BYTES = 4096
_HASH_SEED = "6f736369-7263-4000-8000-000000000001"
_CONFIGURATION = """\
[fs_types]
ext4 = {
    base_features = sparse_super,large_file,filetype,dir_index,ext_attr
    features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
    inode_size = 256
}
small = {
}
"""


def make(disk: Path, *, offset_bytes: int, size_bytes: int, uuid: str, label: str, nodes: Sequence[Node]) -> None:
    """Fill `size_bytes` of `disk` from `offset_bytes` on with an ext4 file system that holds `nodes`.

    The nodes' directories must come before what they hold (see `tree.with_parents`). Raises BuildError when they do
    not fit.
    """
    with tempfile.TemporaryDirectory(prefix=".ext4-", dir=disk.parent) as scratch:
        configuration = Path(scratch) / "mke2fs.conf"
        configuration.write_text(_CONFIGURATION, encoding="ascii")
        environment = {
            "E2FSPROGS_FAKE_TIME": str(EPOCH_S),
            "SOURCE_DATE_EPOCH": str(EPOCH_S),
            "MKE2FS_CONFIG": str(configuration),
        }
        extended = [
            f"offset={offset_bytes}",
            f"hash_seed={_HASH_SEED}",
            "lazy_itable_init=0",
            "lazy_journal_init=0",
            "root_owner=0:0",
            "nodiscard",
        ]
        inodes = len(nodes) + 1024
        run(
            *("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(_BLOCK_BYTES), "-N", str(inodes), "-m", "0"),
            *("-J", "size=4", "-L", label, "-U", uuid, "-E", ",".join(extended), disk, str(size_bytes // _BLOCK_BYTES)),
            environment=environment,
        )
        script = Path(scratch) / "script"
        script.write_text(_script(nodes, Path(scratch)), encoding="utf-8")
        view = f"{disk}?offset={offset_bytes}"
        done = run("debugfs", "-w", "-f", script, view, environment=environment)
    # debugfs reports success whatever happened; a command that failed leaves words on standard error.
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("debugfs ")]
    if complaints:
        raise BuildError(f"debugfs could not fill the file system of {size_bytes >> 20} MiB: {complaints[0]}")
    run("e2fsck", "-fn", view)


def _script(nodes: Sequence[Node], scratch: Path) -> str:
    """Write the content of files into `scratch` and return the debugfs commands that make `nodes`."""
    lines: list[str] = []
    current = "/"
    for number, node in enumerate(nodes):
        if '"' in node.path or " " in node.path:
            raise BuildError(f"no spaces or quotes in a guest's paths: {node.path}")
        if node.parent != current:
            current = node.parent
            lines.append(f"cd {current}")
        if node.content is not None:
            source = scratch / str(number)
            source.write_bytes(node.content)
            lines.append(f'write "{source}" {node.name}')
            kind = stat.S_IFREG
        elif node.target is not None:
            lines.append(f"symlink {node.name} {node.target}")
            continue  # a link's mode and times are right already
        elif node.device is not None:
            major, minor = node.device
            lines.append(f"mknod {node.name} c {major} {minor}")
            kind = stat.S_IFCHR
        else:
            lines.append(f"mkdir {node.name}")
            kind = stat.S_IFDIR
        lines += [f"sif {node.name} {field} 0" for field in ("uid", "gid")]
        lines.append(f"sif {node.name} mode 0{kind | node.mode:o}")
        if node.mtime_s != EPOCH_S:
            lines += [f"sif {node.name} {field} @{node.mtime_s}" for field in ("mtime", "ctime")]
    return "\n".join(lines) + "\n"
