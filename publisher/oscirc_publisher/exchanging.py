"""Exchanges the JWT that a CI system gave to a pipeline for a token of an hour at most (ADR 19)."""

from __future__ import annotations

import json

from oscirc_blockstore import token_text
from oscirc_blockstore.errors import DocumentRefusedError, UsageError
from oscirc_blockstore.names import check_publisher
from oscirc_publisher.problems import parse_object
from oscirc_publisher.rest import JSON, Body, RestClient

MAX_JWT_CHARS = 16 * 1024


def exchange(rest: RestClient, publisher: str, jwt: str) -> str:
    """The token's text. Sent once: a JWT counts once, so that a lost answer asks for another JWT."""
    if not 0 < len(jwt) <= MAX_JWT_CHARS or not jwt.isascii() or not jwt.isprintable():
        raise UsageError("that is not a JWT", hint="give what the CI system put into the file or variable")
    body = Body.of(json.dumps({"publisher": check_publisher(publisher), "jwt": jwt}).encode(), JSON)
    token = parse_object(rest.call("POST", "tokens/oidc", body, once=True)).get("token")
    if not isinstance(token, str) or not token_text.is_whole(token):
        raise DocumentRefusedError("the server's answer holds no token")
    return token
