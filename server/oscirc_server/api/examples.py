"""Examples for the OpenAPI document: one table by name of field, so that every model has them and all agree.

A field that the table does not know gets an example by its type; a test holds that no example contradicts its schema.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

MANIFEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
ROOT = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
DATE = "2026-03-01T12:00:00Z"

FIELDS: dict[str, object] = {
    "publisher": "alice",
    "image": "debian",
    "version": "12.1",
    "label": "12.1",
    "other": "12.2",
    "v": "12.1",
    "w": "12.2",
    "channel": "stable",
    "channels": {"stable": "12.1"},
    "name": "alice",
    "block_size": 262144,
    "disk_size": 2147483648,
    "data_bytes": 912261120,
    "data_blocks": 3480,
    "download_bytes": 278921216,
    "minimum_memory_mib": 1024,
    "family": "debian",
    "architecture": "x86_64",
    "firmware": "uefi",
    "default_login": "user, no password",
    "manifest": MANIFEST,
    "digest": MANIFEST,
    "sha256": MANIFEST,
    "root": ROOT,
    "alt": "Console of alice/debian 12.1 at its login prompt",
    "width": 720,
    "height": 400,
    "depth": 2,
    "released": DATE,
    "created": DATE,
    "updated": DATE,
    "expires": DATE,
    "signed": DATE,
    "at": DATE,
    "date": DATE,
    "last_used": DATE,
    "revoked": None,
    "changelog": "Security fixes of March.",
    "why": "does not boot with 512 MiB",
    "security": False,
    "reference": "alice/debian",
    "boot": "oscirc boot alice/debian",
    "shown": "12.1",
    "id": "7f3c0a5d9e1b48c2",
    "draft_id": "7f3c0a5d9e1b48c27f3c0a5d9e1b48c2",
    "token_id": "7f3c0a5d9e1b48c2",
    "actor": "7f3c0a5d9e1b48c2",
    "action": "release",
    "subject": "alice/debian@12.1",
    "scopes": ["publish:alice"],
    "issuer": "https://token.actions.githubusercontent.com",
    "jwks": None,
    "jwt": "eyJhbGciOiJSUzI1NiIs…",
    "claims": {"repository": "example/images", "repository_id": "12345"},
    "claim_prefixes": {"ref": "refs/tags/"},
    "rule": "7f3c0a5d9e1b48c2",
    "user": "bea",
    "robot": "nightly",
    "account": "bea",
    "roles": {"alice": "owner"},
    "members": {"bea": "owner"},
    "disabled": None,
    "lifetime_s": 2592000,
    "token": "oscirc_…",
    "fingerprints": ["SHA256:3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
    "threshold": 1,
    "role_version": 7,
    "snapshot_version": 42,
    "images": ["debian"],
    "kind": "bundle",
    "role": "targets",
    "length": 66650000,
    "index_length": 40000,
    "unsigned_publishers": [],
    "next": None,
    "status": "ok",
    "failing": [],
    "runs": 3,
    "indexes": {"debian": "eyJmb3JtYXQiOi4uLn0="},
    "position": 17,
    "q": "debian 12",
    "stored": 12,
    "present": 3,
    "stored_bytes": 1680000,
    "after": "",
    "limit": 50,
}
PROBLEM_TYPES = {
    400: "NameRefusedError",
    401: "UnauthenticatedError",
    403: "ScopeError",
    404: "NotFoundError",
    406: "NotAcceptableError",
    408: "StalledError",
    409: "ConflictError",
    412: "PreconditionFailedError",
    413: "BodyTooLargeError",
    415: "UnsupportedMediaTypeError",
    416: "RangeNotSatisfiableError",
    422: "RequestRefusedError",
    429: "TooManyRequestsError",
    503: "BusyError",
    507: "StoreFullError",
}
_BY_TYPE: dict[str, object] = {"string": "…", "integer": 1, "number": 1.0, "boolean": True, "null": None}
_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


def _fits(value: object, schema: Json) -> bool:
    """Whether a value of the table can stand where this schema is: by type, choice and bounds."""
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return any(_fits(value, each) for each in choices)
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kind = schema.get("type", "")
    if type(value) is not _TYPES.get(kind):
        return False
    if isinstance(value, list):
        return all(_fits(each, schema.get("items", {})) for each in value)
    if isinstance(value, int):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    if isinstance(value, str):
        return bool(schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)))
    return "properties" not in schema


def annotate(schema: Json) -> None:
    """Give the fields of a model the examples of the table."""
    for name, field in schema.get("properties", {}).items():
        if name in FIELDS and "examples" not in field and _fits(FIELDS[name], field):
            field["examples"] = [FIELDS[name]]


def annotate_parameter(parameter: Json) -> None:
    """Give a parameter its example, from the table or by its schema."""
    schema = parameter.get("schema", {})
    if "example" in parameter or parameter["in"] == "header":
        return
    value = FIELDS.get(parameter["name"], schema.get("default"))
    if value is not None and value != "" and _fits(value, schema):
        parameter["example"] = value


def of(schema: Json, schemas: Json) -> object:
    """An example of a schema, put together from those of its fields."""
    if "$ref" in schema:
        return of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "examples" in schema:
        return schema["examples"][0]
    choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if choices:
        return of(choices[0], schemas)
    if "enum" in schema or "const" in schema:
        return schema.get("enum", [schema.get("const")])[0]
    return schema.get("default") or _by_type(schema, schemas)


def _by_type(schema: Json, schemas: Json) -> object:
    kind = schema.get("type")
    if kind == "array":
        return [of(schema.get("items", {}), schemas)]
    if kind == "integer":
        return max(1, int(schema.get("minimum", 1)))
    if kind != "object":
        return _BY_TYPE.get(str(kind), "…")
    if "properties" in schema:
        return {name: of(field, schemas) for name, field in schema["properties"].items()}
    inner = schema.get("additionalProperties")
    return {"stable": of(inner, schemas)} if isinstance(inner, dict) and inner else {}
