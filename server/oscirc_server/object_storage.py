"""The tree in an object store (S3-compatible, by URL), through obstore.

Conditional PUT is not relied on: some S3 servers accept a stale one silently. `put_if_absent` looks first; whoever may
have rivals holds the claims of the digests meanwhile (`services.claims`). Objects carry their Content-Type and
Cache-Control, so that the store or a CDN before it can serve readers by itself.

Requests are bounded: 30 s and two more tries within a minute; files that change in place (`timestamp.json`, listings)
get 5 s and one more try, so that what a superseded writer sent is over soon. The library sends again what it takes for
idempotent; a removal, which it does not (it is a POST), is sent again here, and over within a minute in any case: that
is what `collection.removing` goes by. Errors say what the operator can do, and never quote a URL's signature.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import IO, TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import ObjectStore, S3Store, from_url

from oscirc_blockstore.errors import LocalError, UnreachableError, UsageError
from oscirc_server import s3_settings
from oscirc_server.s3_settings import S3Settings
from oscirc_server.storage import StoredFile
from oscirc_server.tree_paths import CHANGING, cache_control, content_type

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

_MAX_ERROR_CHARS = 200
_PARTS_AT_ONCE = 4
_STEADY_S, _STEADY_TRIES = 30, 2
_CHANGING_S, _CHANGING_TRIES = 5, 1
_REMOVING_S, _REMOVING_PAUSES_S = 15, (0.1, 0.5)
_NO_BUCKET = ("NoSuchBucket", "404 Not Found")
_REFUSED = ("403 Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied")


def _s3_store(settings: S3Settings, timeout_s: int, tries: int) -> S3Store:
    config: S3Config = {"region": settings.region, "virtual_hosted_style_request": settings.virtual_hosted}
    if settings.endpoint:
        config["endpoint"] = settings.endpoint
    if settings.credentials:
        config["access_key_id"] = settings.credentials.access_key_id
        config["secret_access_key"] = settings.credentials.secret_access_key
        if settings.credentials.session_token:
            config["session_token"] = settings.credentials.session_token
    options: ClientConfig = {
        "allow_http": (settings.endpoint or "").startswith("http:"),
        "connect_timeout": timedelta(seconds=5),
        "timeout": timedelta(seconds=timeout_s),
        "pool_max_idle_per_host": "32",
    }
    retries: RetryConfig = {"max_retries": tries, "retry_timeout": timedelta(seconds=2 * timeout_s)}
    return S3Store(
        settings.bucket,
        prefix=settings.prefix or None,
        config=config,
        client_options=options,
        retry_config=retries,
    )


def _said(error: Exception) -> str:
    """What a library's message ends with on its first line; before it stand addresses, below it debugging output."""
    first = str(error).strip().partition("\n")[0]
    return first.rpartition(" - ")[2].strip()[:_MAX_ERROR_CHARS]


class ObjectStorage:
    """The tree below a URL such as `s3://bucket/prefix`."""

    durable_on_put = True
    first_put_wins = False

    def __init__(
        self,
        store: ObjectStore,
        changing: ObjectStore | None = None,
        removing: ObjectStore | None = None,
        name: str = "the object store",
    ) -> None:
        """The same place with shorter limits: `changing` for the files that change, `removing` for removals."""
        self._store = store
        self._changing = changing or store
        self._removing = removing or store
        self._name = name

    @classmethod
    def open(cls, url: str) -> ObjectStorage:
        """The store at `url`; `UsageError` when the URL or its configuration is not understood."""
        try:
            if not url.startswith("s3:"):
                return cls(from_url(url))
            settings = s3_settings.parse(url, os.environ)
            name = f"the bucket {settings.bucket} at {settings.endpoint or 'AWS'}"
            steady = _s3_store(settings, _STEADY_S, _STEADY_TRIES)
            changing = _s3_store(settings, _CHANGING_S, _CHANGING_TRIES)
            return cls(steady, changing, _s3_store(settings, _REMOVING_S, 0), name)
        except (BaseError, ValueError) as error:
            raise UsageError(f"cannot use the block storage {url[:200]!r}: {_said(error)}") from None

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError):
            raise self._refused() from None
        except FileNotFoundError:
            raise self._absent() from None
        except BaseError as error:
            text = str(error)
            if any(sign in text for sign in _NO_BUCKET):
                raise self._absent() from None
            if any(sign in text for sign in _REFUSED):
                raise self._refused() from None
            raise UnreachableError(f"{self._name} failed: {_said(error)}") from None

    def _absent(self) -> LocalError:
        return LocalError(f"{self._name} does not exist", hint="make the bucket first, or correct --blocks")

    def _refused(self) -> LocalError:
        return LocalError(
            f"{self._name} refuses this server's credentials",
            hint="they need to list the bucket, and to read, write and delete its objects; look at the clock, too",
        )

    def _for(self, path: str) -> ObjectStore:
        return self._changing if cache_control(path) == CHANGING else self._store

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
                max_concurrency=_PARTS_AT_ONCE,
            )

    def remove(self, path: str) -> None:
        """See `Storage`."""
        for pause_s in _REMOVING_PAUSES_S:
            try:
                self._remove(path)
            except UnreachableError:  # whether it was heard or not
                time.sleep(pause_s)
            else:
                return
        self._remove(path)

    def _remove(self, path: str) -> None:
        with self._translated(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._removing, path)

    def _put(self, path: str, raw: bytes | memoryview) -> None:
        with self._translated():
            obstore.put(
                self._for(path),
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
        """See `Storage`. A server that answers ranges with status 200 (older rclones) is asked for the whole."""
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
                    yield StoredFile(found["path"], found["size"], found["last_modified"].timestamp())

    def sync(self) -> None:
        """See `Storage`: a put object is durable already."""

    def check(self) -> None:
        """See `Storage`: the store answers a listing."""
        with self._translated():
            obstore.list_with_delimiter(self._changing, "metadata")

    def local_path(self, path: str) -> str | None:  # noqa: ARG002
        """See `Storage`: never a plain file."""
        return None

    def signed_url(self, path: str, lifetime_s: int) -> str | None:
        """See `Storage`: made here, without a request."""
        if not isinstance(self._store, S3Store):
            return None
        with self._translated():
            return obstore.sign(self._store, "GET", path, timedelta(seconds=lifetime_s))
