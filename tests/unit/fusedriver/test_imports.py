"""What a look at a mount costs: no FUSE, no event loop."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["records", "status", "control_client", "unmounting", "mounting", "readers"])
def test_looking_needs_neither_fuse_nor_trio(module):
    program = (
        f"import sys, oscirc_fusedriver.{module}\n"
        "print(*sorted({'pyfuse3', 'trio', 'tuf', 'obstore', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
