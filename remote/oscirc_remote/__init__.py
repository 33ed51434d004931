"""A repository as seen from a workstation: who may say what (TUF), and verified bytes of images, fetched lazily.

Two halves that meet in one value, the resolved manifest:

- *which disk*: `references` -> `remotes` -> `session` (authority and freshness, python-tuf) -> `resolving`, `receipts`;
- *its bytes*: `image` -> `cache` -> `mirrors` -> `fetching` -> `http_client`, layers behind the seams in `sources`.

Rules that hold in the room. Everything is synchronous and safe to call from several threads. Nothing that came from
a network or from the cache leaves unverified. Every network read has a length limit and every wait a deadline, which
is a value handed down (`deadlines`). Failures are leaves of `oscirc_blockstore.errors`. What is slow to import (tuf)
is imported when a reference is resolved, never for reading an image.
"""
