"""The formats of oscirc and their refusals: blocks, table, manifest, image index, trust rules, the local store.

The pure core. Formats and rules take values and return values: no socket, no FUSE, no web package, no clock of
their own. Everything that a function here receives as `bytes` from elsewhere is hostile until it has returned.
`docs/formats.md` describes each format exactly enough to write a second implementation.
"""
