"""Garbage collection: what no client can still need goes, and nothing else ([ADR 21] in docs/adr).

The rules, which every module here keeps:

1. A manifest's row is a root, a lease is a root, nothing else is. A row goes only when no metadata that a client can
   still hold names the manifest (`roots`); what that rests on is looked at again under the writer's lock.
2. Whatever a root leads to and cannot be read stops the whole collection before a row is changed (`marking`).
3. A block is deleted in two steps with a grace between, each under marks made since the step before (`sweeping`). The
   database says what will be done before a file is touched: after a crash at any point the same is done again.
4. A step that could meet a publisher asks for leases in its own transaction, with at most `database.CHUNK` rows.
5. One part in 256, by a digest's first byte, is looked at at a time: marks, rows, files.

`collecting` composes them; `scrubbing` reads what is kept and repairs it.
"""
