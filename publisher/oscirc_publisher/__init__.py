"""The publisher's room: a disk becomes blocks, a table, a manifest and a signature, and travels to a server.

What holds here:

- A publisher's private key never leaves this machine and is never sent; a token allows staging, the key releasing.
- Nothing that a server says about what this publisher signed is believed: roles and indexes are verified against the
  publisher's own key and against the version that this workstation remembers.
- The same disk and arguments give the same manifest, byte for byte, whatever was interrupted or already present.
- Memory is bounded by the number of workers, never by the size of the disk.
- Containers (qcow2, vmdk, vdi, vhdx) are strangers' files: judged before QEMU opens them, opened without anything that
  they refer to.

Modules: `disks` (with `probing`, `containers`, one for each format, `nbd`) open what is published; `building` cuts it,
on the workers of `pipeline`; `uploading` is the draft of ADR 2 over `rest`; `signing` keeps keys, `roles` makes what
they sign; `releasing` merges and signs against what is served; `publishing` composes all; `administration` is the
repository's own targets role.
"""
