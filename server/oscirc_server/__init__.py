"""The repository's server: publishing over REST, the TUF repository, the catalog and the static tree.

A publisher's client negotiates, uploads and releases through `api/v1/`; what a workstation reads is a tree of plain
files that any web server can serve as well. Rules that hold in this room:

- **The database is the truth, the tree a projection of it.** Signed metadata, indexes and manifests are rows before
  they are files, and one writer under a lock writes the numbered files first and `metadata/timestamp.json` last.
- **A version number is never used twice**, also not after the database was restored from an older copy.
- **Authority is not the server's.** A token lets somebody upload; only a publisher's own signature releases. The
  server holds the online keys (snapshot, timestamp) and, until they are moved away, encrypted root and targets keys.
- **Bytes are judged when they arrive** (`services.uploads`), authority when a version is released
  (`services.releases`). Routers in `api/` translate and decide nothing.

`oscirc_server.administration` holds what the `oscirc serve …` commands call; `oscirc_server.running.run` serves.
"""
