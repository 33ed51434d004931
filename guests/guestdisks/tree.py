"""The files of a guest as values, before any file system exists.

A tree is a list of nodes in the order in which they are to be made: the order decides inode numbers and the place of
the blocks, so a version whose nodes keep their order and sizes keeps its layout. Everything belongs to root.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Every time stamp of a guest's first version, in seconds since 1970: 1 January 2024, 00:00 UTC.
EPOCH_S = 1704067200


@dataclass(frozen=True, slots=True)
class Node:
    """One directory, file, symbolic link or character device.

    `content` is a file's bytes or a link's target; `device` is major and minor number of a character device; with
    neither the node is a directory. `mtime_s` counts seconds since 1970.
    """

    path: str
    mode: int
    content: bytes | None = None
    target: str | None = None
    device: tuple[int, int] | None = None
    mtime_s: int = EPOCH_S

    @property
    def parent(self) -> str:
        """The path of the directory that holds this node, `/` at the top."""
        return str(PurePosixPath(self.path).parent)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name


def directory(path: str, mode: int = 0o755) -> Node:
    """Make a directory."""
    return Node(path, mode)


def file(path: str, content: bytes, mode: int = 0o644, mtime_s: int = EPOCH_S) -> Node:
    """Make a regular file."""
    return Node(path, mode, content=content, mtime_s=mtime_s)


def link(path: str, target: str) -> Node:
    """Make a symbolic link."""
    return Node(path, 0o777, target=target)


def character_device(path: str, major: int, minor: int, mode: int = 0o600) -> Node:
    """Make a character device."""
    return Node(path, mode, device=(major, minor))


def from_folder(folder: Path, values: Mapping[str, str], *, changed_at_s: int = EPOCH_S) -> list[Node]:
    """Read the files below `folder`, sorted by path, with `@NAME@` replaced by `values[NAME]`.

    Files that had something replaced are stamped `changed_at_s`. A file that its owner may execute is mode 755 in
    the guest, any other 644, whatever the umask was when the project was checked out.
    """
    nodes = []
    for path in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        text = before = path.read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
        stamp = EPOCH_S if text == before else changed_at_s
        nodes.append(file("/" + path.relative_to(folder).as_posix(), text.encode(), mode, stamp))
    return nodes


def with_parents(nodes: Iterable[Node]) -> list[Node]:
    """Put before each node the directories above it that nothing has made yet."""
    made = {"/"}
    complete: list[Node] = []
    for node in nodes:
        missing = [str(parent) for parent in PurePosixPath(node.path).parents if str(parent) not in made]
        complete += [directory(parent) for parent in reversed(missing)]
        made.update(missing)
        if node.path not in made:
            complete.append(node)
            made.add(node.path)
    return complete
