"""Reads where this machine's apt gets its packages from, so that a guest is made from the same place.

Two notations, both of sources.list(5): one-line entries in `sources.list` and `*.list`, and deb822 paragraphs in
`*.sources`. Only binary entries that are switched on count. Nothing that is read here is ever written into the
project; it goes to mmdebstrap and into the guest's own `sources.list`.
"""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from guestdisks.programs import BuildError, run

# What apt must be told to get through to the mirror, whatever the reason this machine has for it.
_ACCESS_OPTIONS = re.compile(
    r'^(Acquire::(?:https?::(?:Proxy|Verify-Peer|CaInfo)|Check-Valid-Until|Check-Date|Retries)[^ ]*) "[^"]+";$',
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Source:
    """One suite of one archive. `signed_by` is a keyring's path, keys in armour, or empty for apt's own keyrings."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""

    def line(self, signed_by: str = "") -> str:
        """Return the source as one line of a sources.list, naming the keyring `signed_by` if there is one."""
        option = f"[signed-by={signed_by}] " if signed_by else ""
        return f"deb {option}{self.uri} {self.suite} {' '.join(self.components)}".rstrip()


def machine_sources(root: Path = Path("/etc/apt")) -> list[Source]:
    """Return this machine's sources, one per archive and suite."""
    found: list[Source] = []
    for path in (root / "sources.list", *sorted((root / "sources.list.d").glob("*"))):
        if path.suffix == ".list" and path.is_file():
            found += _one_line(path.read_text(encoding="utf-8"))
        elif path.suffix == ".sources" and path.is_file():
            found += _deb822(path.read_text(encoding="utf-8"))
    return found


def for_suite(sources: list[Source], suite: str) -> tuple[Source, list[Source]]:
    """Return the source of the bare release `suite`, and those of its updates and security fixes.

    A machine of another release of the same distribution keeps the other suites in the same archives, so its own
    sources serve with the names exchanged. Raises BuildError when no source fits.
    """
    own = _own_release()
    for release in dict.fromkeys([suite, own]):
        base = next((source for source in sources if source.suite == release), None)
        if base is not None:
            names = {f"{release}-updates": f"{suite}-updates", f"{release}-security": f"{suite}-security"}
            later = [replace(source, suite=names[source.suite]) for source in sources if source.suite in names]
            return replace(base, suite=suite), later
    raise BuildError(f"this machine's apt configuration names no archive of {suite}")


def keyring_path(source: Source, scratch: Path) -> str:
    """Return the path of the keyring that `source` is signed by, writing keys given in armour into `scratch`."""
    if not source.signed_by.startswith("-----BEGIN"):
        return source.signed_by
    with tempfile.NamedTemporaryFile("w", dir=scratch, suffix=".asc", delete=False) as stream:
        stream.write(source.signed_by + "\n")
    return stream.name


def access_options() -> list[str]:
    """Return this machine's apt settings about proxies and release dates, as lines of an apt.conf."""
    return [match[0] for match in _ACCESS_OPTIONS.finditer(run("apt-config", "dump").stdout)]


def _own_release() -> str:
    """Return the code name of the release that this machine runs, empty when it says none."""
    text = Path("/etc/os-release").read_text(encoding="utf-8")
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)', text, re.MULTILINE)
    return match[1] if match else ""


def _one_line(text: str) -> Iterator[Source]:
    for match in re.finditer(r"^\s*deb\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)([^#\n]*)", text, re.MULTILINE):
        options = dict(item.split("=", 1) for item in (match[1] or "").split() if "=" in item)
        yield Source(match[2], match[3], tuple(match[4].split()), options.get("signed-by", ""))


def _deb822(text: str) -> Iterator[Source]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        fields = {
            match[1].lower(): match[2].strip()
            for match in re.finditer(r"^([A-Za-z0-9-]+):((?:.*)(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        }
        if fields.get("enabled", "yes").lower() in {"no", "false", "0"} or "deb" not in fields.get("types", "").split():
            continue
        # In an embedded key each line is indented by one space and a dot stands for an empty line.
        signed_by = "\n".join(
            "" if line.strip() == "." else line.strip() for line in fields.get("signed-by", "").splitlines()
        )
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, tuple(fields.get("components", "").split()), signed_by.strip())
