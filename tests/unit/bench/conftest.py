"""The benchmarks are programs in a folder, not a package: their folder goes on the path here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "bench"))
