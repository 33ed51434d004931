"""Made-up results of the comparison of updates."""

from update_results import Booted, Night, Pair, Results, Update

BYTES = {
    "oscirc-packs": 9_000_000,
    "oscirc-blocks": 19_500_000,
    "oscirc-strong": 18_000_000,
    "oscirc-fresh": 300_000_000,
    "casync": 20_000_000,
    "zsync": 60_000_000,
    "xdelta3": 8_000_000,
    "zstd-patch": 9_500_000,
    "download": 250_000_000,
}


def update(moved_bytes: int, key: str = "k", make_s: float = 5.0) -> Update:
    return Update(key, make_s, 300.0, moved_bytes, moved_bytes + 1000, 500, 12, 4.5, 90.0)


def ours(moved_bytes: int, key: str = "k", make_s: float = 5.0) -> Update:
    return Update(key, make_s, 300.0, moved_bytes, moved_bytes, 500, 12, 4.5, 90.0)


def booted(moved_bytes: int = 1_050_000, key: str = "k") -> Booted:
    return Booted(key, 500, 40, 4_000_000, 1_000_000, 30, 20_000, 2, 30_000, moved_bytes, 44, 3.0, 0)


def night(name: str, moved: int, kept: int = 0) -> Night:
    return Night("k", name, ("perl=5",), 3, kept, 0, 0, 4000, moved, moved, 500_000)


def results(**changed: int) -> Results:
    """One pair, every contender, a boot, two nights; `oscirc_packs=…` moves so many bytes instead."""
    found = Results("2026-01-01", {"processor": "a processor"}, (100, 20))
    found.contenders = {name: {"label": f"label of {name}", "note": f"note of {name}"} for name in BYTES}
    pair = Pair("Debian 12, upgraded", "k", 1_200_000_000, 300_000_000, 19_000_000, ["perl 5.1 5.2", "apt - 2"])
    for name, moved in {**BYTES, **{name.replace("_", "-"): value for name, value in changed.items()}}.items():
        pair.updates[name] = ours(moved) if name.startswith("oscirc") else update(moved)
    pair.booted["oscirc-packs"] = booted()
    found.pairs["upgrade"] = pair
    found.nights = [night("01", 900_000, 1_000_000), night("no change", 9000)]
    return found
