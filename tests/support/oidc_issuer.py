"""An issuer of JWTs on loopback: real HTTP, keys that rotate, and every way to misbehave that a test asks for."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

DISCOVERY = "/.well-known/openid-configuration"


class Issuer:
    """`answers` replaces what a path gives: bytes, or a function of the handler."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.keys = {"one": RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})}
        self.answers: dict[str, object] = {}
        self.requests: list[str] = []
        self.stopped = threading.Event()

    def add_key(self, kid: str) -> None:
        self.keys[kid] = ECKey.generate_key("P-256", {"kid": kid, "use": "sig"})

    @property
    def jwks(self) -> bytes:
        return json.dumps({"keys": [key.as_dict(private=False) for key in self.keys.values()]}).encode()

    def answer(self, path: str) -> object:
        found = self.answers.get(path)
        if found is None and path == DISCOVERY:
            return json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        return self.jwks if found is None and path == "/keys" else found

    def sign(self, claims: dict[str, object], kid: str = "one", **header: object) -> str:
        key = self.keys[kid]
        algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
        return jwt.encode({"alg": algorithm, "kid": kid, **header}, claims, key)


@contextlib.contextmanager
def running_issuer() -> Iterator[Issuer]:
    """Until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.requests.append(self.path)
            found = issuer.answer(self.path)
            with contextlib.suppress(OSError):
                if callable(found):
                    found(self)
                    return
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Length", str(len(found or b"")))
                self.end_headers()
                self.wfile.write(found or b"")

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer = Issuer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield issuer
        finally:
            issuer.stopped.set()
            server.shutdown()
            thread.join()
