"""The tree in an object store (S3-compatible, by URL), through obstore.

Conditional PUT is not relied on: some S3 servers accept a stale one silently. `put_if_absent` looks first, which is
enough since one server process writes and frames of one digest all hold the same block. Objects carry their
Content-Type and Cache-Control, so that the store or a CDN before it can serve readers by itself. Credentials and
endpoints come from the environment, as for every S3 client (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from oscirc_blockstore.errors import UnreachableError, UsageError
from oscirc_server.storage import StoredFile
from oscirc_server.tree_paths import cache_control, content_type


class ObjectStorage:
    """The tree below a URL such as `s3://bucket/prefix`."""

    durable_on_put = True

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def open(cls, url: str) -> ObjectStorage:
        """The store at `url`; `UsageError` when the URL or its configuration is not understood."""
        try:
            return cls(from_url(url))
        except (BaseError, ValueError) as error:
            raise UsageError(f"cannot use the store {url!r}: {error}") from None

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except BaseError as error:
            raise UnreachableError(f"the object store failed: {str(error)[:300]}") from None

    def put_if_absent(self, path: str, raw: bytes | memoryview) -> bool:
        """See `Storage`."""
        if self.size(path) is not None:
            return False
        self._put(path, raw)
        return True

    def replace(self, path: str, raw: bytes) -> None:
        """See `Storage`."""
        self._put(path, raw)

    def replace_from(self, path: str, file: IO[bytes]) -> None:
        """See `Storage`: in parts where it is long."""
        file.seek(0)
        with self._translated():
            obstore.put(
                self._store,
                path,
                file,
                attributes={"Content-Type": content_type(path), "Cache-Control": cache_control(path)},
            )

    def remove(self, path: str) -> None:
        """See `Storage`."""
        with self._translated(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, path)

    def _put(self, path: str, raw: bytes | memoryview) -> None:
        with self._translated():
            obstore.put(
                self._store,
                path,
                bytes(raw),
                attributes={"Content-Type": content_type(path), "Cache-Control": cache_control(path)},
                use_multipart=False,
            )

    def get(self, path: str, max_bytes: int) -> bytes | None:
        """See `Storage`."""
        with self._translated():
            try:
                found = obstore.get(self._store, path)
            except FileNotFoundError:
                return None
            if found.meta["size"] <= max_bytes:
                return bytes(found.bytes())
        return self.get_range(path, 0, max_bytes + 1)

    def get_range(self, path: str, start: int, stop: int) -> bytes | None:
        """See `Storage`. A server that answers ranges with status 200 (tried: rclone's) is asked for the whole."""
        if stop <= start:
            return b""
        with self._translated():
            try:
                return bytes(obstore.get_range(self._store, path, start=start, end=stop))
            except FileNotFoundError:
                return None
            except BaseError as error:
                if "non-partial" not in str(error):
                    raise
            return bytes(obstore.get(self._store, path).bytes())[start:stop]

    def size(self, path: str) -> int | None:
        """See `Storage`."""
        with self._translated():
            try:
                return int(obstore.head(self._store, path)["size"])
            except FileNotFoundError:
                return None

    def files(self, prefix: str) -> Iterator[StoredFile]:
        """See `Storage`."""
        with self._translated():
            for batch in obstore.list(self._store, prefix, chunk_size=1000):
                for found in batch:
                    yield StoredFile(found["path"], found["size"])

    def sync(self) -> None:
        """See `Storage`: a put object is durable already."""

    def check(self) -> None:
        """See `Storage`: the store answers a listing."""
        with self._translated():
            obstore.list_with_delimiter(self._store, "metadata")

    def local_path(self, path: str) -> str | None:  # noqa: ARG002
        """See `Storage`: never a plain file."""
        return None
