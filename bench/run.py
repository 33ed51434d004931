"""`make bench`: every benchmark, one after the other, then the tables in docs/performance.md.

    python bench/run.py [NAME]… [--disk D] [--link MBIT:MS] [--only CONTENDER] [--fresh]    options are boot_cold's
    python bench/run.py survival [--disk D] [--only PART]    survival's, where it is named alone
    python bench/run.py quick      one link of boot_cold, one disk, into results of its own; writes no page
    python bench/run.py page       runs none; writes the page from the results that there are

The page keeps what stands between its markers for each benchmark; the rest of it is written by hand. Exit code 1: a
benchmark missed a bound or failed; the others are run all the same.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import report
import update_report
import update_results
import warm_report
from cells import load
from revisions import is_older

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "performance.md"
BENCHMARKS = (
    "boot_cold",
    "update",
    "warm_boot",
    "publish",
    "publish_instance",
    "pack_memory",
    "warm",
    "terabyte",
    "boot",
    "serving",
    "many_boots",
    "survival",
    "publish_again",
    "catalog",
)


def purpose(name: str) -> str:
    """What a benchmark's module says of itself, without its command line."""
    text = (HERE / f"{name}.py").read_text(encoding="utf-8").split('"""')[1].strip()
    return re.sub(r"\n\n {4}python bench/.*", "", text)


def where(machine: dict[str, object], measured: object) -> str:
    """The line below a table."""
    names = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}"
    return f"Measured {measured} on {names}.\n"


def older(name: str, codes: dict[str, object]) -> str:
    """What is said below a table of figures: which, by title, were measured with other code than the present."""
    found = [title for title, code in codes.items() if is_older(code, name)]
    if not found:
        return "\nMeasured with the present code.\n" if codes else ""
    return f"\nOlder than the present code{'' if found == list(codes) else ': ' + '; '.join(found)}.\n"


def section(name: str) -> str:
    """One benchmark's purpose and figures."""
    if name == "boot_cold":
        results = load(RESULTS / "boot_cold.json")
        body, line = report.markdown(results), where(results.machine, results.measured)
        line += older(name, {disk.title: disk.code for disk in results.disks.values()})
    elif name == "update":
        updates = update_results.load(RESULTS / "update.json")
        body, line = update_report.markdown(updates), where(updates.machine, updates.measured)
        codes: dict[str, object] = {pair.title: pair.code for pair in updates.pairs.values()}
        line += older(name, codes | ({"nights": updates.nights_code} if updates.nights else {}))
    elif name == "warm_boot":
        disks = json.loads((RESULTS / "warm_boot.json").read_text(encoding="utf-8"))["disks"]
        body = warm_report.markdown(disks)
        titles = [warm_report.TITLES.get(disk, disk) for disk in sorted(disks)]
        lines = [where(disks[disk]["machine"], disks[disk]["measured"]) for disk in sorted(disks)]
        # One line where all were measured at once.
        line = lines[0] if len(set(lines)) == 1 else "\n".join(map("{}: {}".format, titles, lines))
        line += older(name, {title: disks[disk].get("code") for title, disk in zip(titles, sorted(disks), strict=True)})
    else:
        document = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        line = where(document.pop("machine"), document.pop("measured"))
        line += older(name, {"": document.pop("code", None)})
        rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in document.items())
        body = f"| figure | value |\n|---|---|\n{rows}\n"
    return f"## {name}\n\n{purpose(name)}\n\n{body}\n{line}"


def put(page: str, name: str, text: str) -> str:
    """The page with a benchmark's section between its markers; at the end where it has none yet."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    block = begin + text + end
    if begin not in page or end not in page:
        return page.rstrip("\n") + "\n\n" + block
    return page[: page.index(begin)] + block + page[page.index(end) + len(end) :]


def write_page() -> None:
    """Every section that there are results for, and the plot."""
    page = PAGE.read_text(encoding="utf-8")
    for name in BENCHMARKS:
        if (RESULTS / f"{name}.json").exists():
            page = put(page, name, section(name))
    PAGE.write_text(page, encoding="utf-8")
    if (RESULTS / "boot_cold.json").exists():
        report.plot(load(RESULTS / "boot_cold.json"), RESULTS / report.PLOT)
    if (RESULTS / "update.json").exists():
        update_report.plot(update_results.load(RESULTS / "update.json"), RESULTS / update_report.PLOT)
    print(f"\nwritten: {PAGE}")


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Names, and the options behind them; with options alone boot_cold is meant, with nothing everything."""
    first = next((at for at, each in enumerate(arguments) if each.startswith("-")), len(arguments))
    names, options = arguments[:first], arguments[first:]
    unknown = set(names) - {*BENCHMARKS, "quick", "page"}
    if unknown or (options and names and names != ["survival"] and not {"boot_cold", "quick"} & set(names)):
        raise SystemExit(__doc__)
    return names or (["boot_cold"] if options else list(BENCHMARKS)), options


def _run(command: list[str]) -> int:
    """A benchmark's exit code. Ctrl-C reaches it as well, and it gets the time to unmount what it mounted."""
    process = subprocess.Popen(command, cwd=HERE)
    try:
        return process.wait()
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        raise


def main() -> int:
    """Run what is named, or all; then write the page from whatever results there are."""
    began = time.monotonic()
    names, options = split(sys.argv[1:])
    failed = []
    for name in names:
        if name == "page":
            continue
        module, extra = ("boot_cold", ["--quick", *options]) if name == "quick" else (name, [])
        extra = options if name == "boot_cold" or names == ["survival"] else extra
        print(f"\n=== {name}", flush=True)
        if _run([sys.executable, str(HERE / f"{module}.py"), *extra]):
            failed.append(name)
    print(f"\nall of it took {time.monotonic() - began:.0f} s")
    if names != ["quick"]:
        write_page()
    if failed:
        print(f"missed a bound or failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
