"""Mirrors (ADR 22): replicas of a repository, made by a reader that holds no key and so cannot lie.

- **Trust is a workstation's**: a remote pinned to a root of trust, refreshed by the same TUF session. Whatever a digest
  names is compared with it before it is stored.
- **The tree is servable at any moment**: files appear whole, what names others comes after them, `timestamp.json` last
  and never backwards.
- `syncing` copies (`selection`, `upstream`, `copying`, `accelerating`, `publication`), `pruning` removes what nothing
  names, `costing` says what a sync would fetch; `pull_through` answers requests and fetches what is lacking, within
  `quota`; `directory` is what all of them work on.

This package alone lets the server's room import the remote's sessions and sources. It needs no database.
"""
