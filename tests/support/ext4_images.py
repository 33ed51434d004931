"""Real ext4 file systems in files, made by mke2fs and debugfs."""

import subprocess

SECTOR = 512


def make(path, files, *, start=0, size=16 << 20, options=("-b", "4096"), also=lambda _folder: None):
    """An ext4 file system at byte `start` of `path` with these files (name to content); directories as needed.

    `also` is called with the folder before it is copied: for links and times.
    """
    folder = path.parent / f"{path.name}.files"
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    folder.mkdir(exist_ok=True)
    also(folder)
    with path.open("ab") as file:
        file.truncate(max(path.stat().st_size, start + size))
    block_bytes = int(options[options.index("-b") + 1])
    subprocess.run(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", *options),
            *("-E", f"offset={start}", "-d", folder, path, str(size // block_bytes)),
        ],
        check=True,
        capture_output=True,
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
    )
    return path


def debugfs(path, command):
    """What debugfs says."""
    ran = subprocess.run(
        ["debugfs", "-R", command, path],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
    )
    return ran.stdout


def reader(path):
    """`read(offset, size)` of a file."""

    def read(offset, size):
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    return read


def content(read, file_system, inode):
    """A file's bytes, put together from where they stand (files without holes)."""
    raw = b"".join(read(piece.start, piece.size) for piece in file_system.ranges(inode))
    return raw[: inode.size]


def debugfs_write(path, command):
    """Have debugfs change something."""
    subprocess.run(
        ["debugfs", "-w", "-R", command, path],
        check=True,
        capture_output=True,
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
    )
