"""The core stays pure: importing all of it loads no socket, web, FUSE, database or event-loop package."""

import pkgutil
import subprocess
import sys

import oscirc_blockstore

FORBIDDEN = {
    "socket",
    "ssl",
    "http.client",
    "urllib.request",
    "asyncio",
    "trio",
    "pyfuse3",
    "httpx",
    "obstore",
    "fastapi",
    "sqlalchemy",
    "tuf",
}


def test_importing_every_module_loads_nothing_that_reaches_outside():
    modules = [f"oscirc_blockstore.{found.name}" for found in pkgutil.iter_modules(oscirc_blockstore.__path__)]
    assert len(modules) > 10
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not FORBIDDEN & set(done.stdout.split())
