"""Disks that are changes to another, in memory: what an instance is to those who look at it or clean it."""

import subprocess

from support import ext4_images

from oscirc_blockstore.disk_source import ByteRange, aligned

PAGE = 4096


class DiffDisk:
    """`new` over `old`, two files of one size; changed is what differs, page by page. Counts what is read of each."""

    base = None

    def __init__(self, old, new):
        self.old, self.new = old.read_bytes(), new.read_bytes()
        assert len(self.old) == len(self.new)
        self.size = len(self.new)
        self.pages = [at for at in range(0, self.size, PAGE) if self.old[at : at + PAGE] != self.new[at : at + PAGE]]
        self.unchanged_bytes_read = 0

    def changed(self):
        return aligned((ByteRange(at, at + PAGE) for at in self.pages), 1, self.size)

    def extents(self):
        return iter([ByteRange(0, self.size)])

    def read(self, offset, size):
        return self.new[offset : offset + size]

    def reads_as_zeros(self, offset, size):
        return False

    def read_base(self, offset, size):
        return self.old[offset : offset + size]

    def load_base(self, digest, raw_size):
        raise NotImplementedError

    def close(self):
        pass


def put(path, files, *, start=0):
    """Write these files (name to bytes) into the ext4 at `start` of `path`, replacing what has the name."""
    folder = path.parent / f"{path.name}.put"
    folder.mkdir(exist_ok=True)
    commands = []
    for number, (name, content) in enumerate(files.items()):
        source = folder / str(number)
        source.write_bytes(content)
        parts = name.split("/")
        commands += [f"mkdir /{'/'.join(parts[:depth])}" for depth in range(1, len(parts))]
        commands += [f"rm /{name}", f"write {source} /{name}"]
    edit(path, commands, start=start)


def edit(path, commands, *, start=0):
    """Have debugfs do these; what fails (a directory that is there) is passed over."""
    script = path.parent / f"{path.name}.commands"
    script.write_text("\n".join(commands) + "\n")
    subprocess.run(
        ["debugfs", "-w", "-f", script, f"{path}?offset={start}"],
        check=True,
        capture_output=True,
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
    )


def check(raw, folder, *, start=0, size=None):
    """`e2fsck -fn` on the file system at `start`; asserts that it finds nothing."""
    part = folder / "checked.raw"
    part.write_bytes(raw[start : None if size is None else start + size])
    ran = subprocess.run(
        ["e2fsck", "-fn", part],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return part


def cat(part, name):
    return ext4_images.debugfs(part, f"cat /{name}")
