"""python-tuf's own client, reading a tree of files as a static server would give them."""

from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

URL = "http://static.test"


class TreeFetcher(FetcherInterface):
    """Files below a directory; counts nothing, hides nothing."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    def _fetch(self, url):
        path = self.tree / url.removeprefix(f"{URL}/")
        if not path.is_file():
            raise DownloadHTTPError("not there", 404)
        yield path.read_bytes()


def updater(tree: Path, state: Path, bootstrap: bytes) -> Updater:
    """A client with this state directory, which trusts `bootstrap` when it starts anew."""
    (state / "targets").mkdir(parents=True, exist_ok=True)
    return Updater(
        str(state),
        f"{URL}/metadata/",
        target_dir=str(state / "targets"),
        target_base_url=f"{URL}/targets/",
        fetcher=TreeFetcher(tree),
        bootstrap=bootstrap,
    )
