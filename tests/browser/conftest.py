"""Debian's Chromium under Playwright, and the demonstration catalog served by a process; once for each file of tests.

Playwright keeps an event loop in its thread as long as it lives, so it ends with the file: later tests of the same
worker may call `asyncio.run`. Where there is no Chromium that can be driven, the tests are skipped and say why.
"""

import os
import shutil
from pathlib import Path

import pytest

from . import demo_catalog
from .browsing import Browsing, launched

PROGRAM = "OSCIRC_CHROMIUM"


@pytest.fixture(scope="session")
def chromium():
    """The program's path."""
    found = os.environ.get(PROGRAM) or shutil.which("chromium")
    if found is None:
        pytest.skip(f"no Chromium is here: deploy/setup.sh tests installs Debian's; {PROGRAM}=PATH names another")
    if "snap" in Path(found).resolve().parts or Path(found).resolve().name == "snap":
        pytest.skip(f"{found} is a snap, which sees no profile outside its own folders; {PROGRAM}=PATH names another")
    return found


@pytest.fixture(scope="module")
def catalog(chromium, tmp_path_factory):
    with demo_catalog.served(demo_catalog.made(tmp_path_factory.mktemp("catalog"))) as served:
        yield served


@pytest.fixture(scope="module")
def browsing(chromium, catalog):
    """A browser in which visitors of every role are logged in."""
    with launched(chromium) as browser:
        yield Browsing(browser, catalog)
