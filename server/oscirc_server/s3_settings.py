"""How an S3 store is reached: the URL says where, the environment or a credentials file says who.

`s3://BUCKET[/PREFIX][?endpoint=URL][&region=NAME][&virtual_hosted=true]`. What the URL leaves out comes from the
environment as for every S3 client: AWS_ENDPOINT_URL, AWS_REGION. Credentials never stand in a URL: they are
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or the profile AWS_PROFILE of the file
AWS_SHARED_CREDENTIALS_FILE (as a secret that is mounted as a file), or at AWS itself the machine's own role.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from oscirc_blockstore.errors import DocumentRefusedError, LocalError, UsageError
from oscirc_blockstore.repository_facts import check_url

DEFAULT_REGION = "us-east-1"

_OPTIONS = ("endpoint", "region", "virtual_hosted")
_FORM = "write s3://BUCKET/PREFIX?endpoint=https://HOST"
_WHO = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE, in the server's environment"
_MAX_CREDENTIALS_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs requests."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


@dataclass(frozen=True, slots=True)
class S3Settings:
    """One bucket; `endpoint` None is AWS itself, `credentials` None the machine's own role there."""

    bucket: str
    prefix: str
    endpoint: str | None
    region: str
    virtual_hosted: bool
    credentials: Credentials | None


def parse(url: str, environment: Mapping[str, str]) -> S3Settings:
    """The settings, or `UsageError` (and `LocalError` for a credentials file that cannot be read)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError("cannot read the block storage's URL", hint=_FORM) from None
    if "@" in parts.netloc:
        raise UsageError("the block storage's URL holds credentials, which other users could read", hint=_WHO)
    if parts.scheme != "s3" or not parts.hostname or port is not None or parts.fragment:
        raise UsageError(f"not the URL of a bucket: {url[:200]!r}", hint=_FORM)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise UsageError(f"the block storage's URL has no option {unknown[0][:40]!r}", hint=f"{', '.join(_OPTIONS)}")
    endpoint = options.get("endpoint") or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if endpoint:
        try:
            endpoint = check_url(endpoint, "the endpoint")
        except DocumentRefusedError as error:
            raise UsageError(str(error), hint=_FORM) from None
    credentials = _credentials(environment)
    if endpoint and credentials is None:
        raise UsageError(f"no credentials for {endpoint}", hint=_WHO)
    region = options.get("region") or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    virtual_hosted = options.get("virtual_hosted", "false").lower()
    if virtual_hosted not in ("true", "false"):
        raise UsageError("virtual_hosted is true or false", hint=_FORM)
    prefix = unquote(parts.path).strip("/")
    bucket = parts.netloc
    return S3Settings(bucket, prefix, endpoint or None, region or DEFAULT_REGION, virtual_hosted == "true", credentials)


def _credentials(environment: Mapping[str, str]) -> Credentials | None:
    key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if key and secret:
        return Credentials(key, secret, environment.get("AWS_SESSION_TOKEN"))
    if key or secret:
        raise UsageError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together: one is missing", hint=_WHO)
    path = environment.get("AWS_SHARED_CREDENTIALS_FILE")
    return _from_file(Path(path), environment.get("AWS_PROFILE", "default")) if path else None


def _from_file(path: Path, profile: str) -> Credentials:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CREDENTIALS_BYTES).decode("utf-8")
        parser.read_string(text)
        section = parser[profile]
        key, secret = section["aws_access_key_id"], section["aws_secret_access_key"]
    except OSError as error:
        raise LocalError(f"cannot read the credentials file {path}: {error.strerror}") from None
    except (configparser.Error, KeyError, UnicodeDecodeError):  # their messages may quote a secret
        raise UsageError(
            f"the credentials file {path} has no profile {profile!r} with both keys",
            hint="[default], aws_access_key_id = …, aws_secret_access_key = …",
        ) from None
    return Credentials(key, secret, section.get("aws_session_token"))
