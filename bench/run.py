"""`make bench`: every benchmark, one after the other, then the tables in docs/performance.md.

Names select some; `page` runs none and writes the page from the results that there are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
BENCHMARKS = ("publish", "warm", "terabyte", "boot")

INTRODUCTION = """# Performance

Written by `make bench` from `bench/results/`. What is claimed is the ratio against a peer or a limit in the same run;
absolute figures hold for the machine named. Each benchmark's module says what it measures and what it must show.
"""


def section(name: str) -> str:
    """One benchmark's figures as a table."""
    document = json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))
    module = (HERE / f"{name}.py").read_text(encoding="utf-8")
    purpose = module.split('"""')[1].strip()
    machine = document.pop("machine")
    measured = document.pop("measured")
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in document.items())
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}"
    return f"\n## {name}\n\n{purpose}\n\n| figure | value |\n|---|---|\n{rows}\n\nMeasured {measured} on {where}.\n"


def main() -> None:
    """Run what is named, or all; then write the page from whatever results there are."""
    for name in BENCHMARKS if len(sys.argv) == 1 else [name for name in sys.argv[1:] if name != "page"]:
        subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=True, cwd=HERE)
    found = [name for name in BENCHMARKS if (HERE / "results" / f"{name}.json").exists()]
    PAGE.write_text(INTRODUCTION + "".join(section(name) for name in found), encoding="utf-8")
    print(f"\nwritten: {PAGE}")


if __name__ == "__main__":
    main()
