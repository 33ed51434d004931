"""Debian's Chromium under Playwright, and the demonstration catalog served by a process; once for each file of tests.

Playwright keeps an event loop in its thread as long as it lives, so it ends with the file: later tests of the same
worker may call `asyncio.run`. Where there is no Chromium that can be driven, the tests are skipped and say why.
"""

import pytest

from . import demo_catalog
from .browsing import Browsing, launched, usable_chromium


@pytest.fixture(scope="session")
def chromium():
    """The program's path."""
    return usable_chromium()


@pytest.fixture(scope="module")
def catalog(chromium, tmp_path_factory):
    with demo_catalog.served(demo_catalog.made(tmp_path_factory.mktemp("catalog"))) as served:
        yield served


@pytest.fixture(scope="module")
def browsing(chromium, catalog):
    """A browser in which visitors of every role are logged in."""
    with launched(chromium) as browser:
        yield Browsing(browser, catalog)
