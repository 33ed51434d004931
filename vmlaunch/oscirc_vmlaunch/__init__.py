"""Runs an image: instances, overlays, firmware, QEMU, its monitor and its console.

The room takes plain values (a path to a mounted `disk.raw`, a manifest digest, facts of the manifest) and knows
nothing of repositories or mounts: the command line composes it with the FUSE driver.

Rules that hold in every module:

- No module imports the publisher or the server.
- QEMU is told every block node explicitly; nothing that stands in a disk's or an overlay's header is ever opened.
- QEMU is a process of its own that outlives the command that started it. It is found again by process id *and*
  start time, and only a process found so is ever signalled.
- An instance's lock is inherited by its QEMU: whoever can take the lock knows that no QEMU runs on it.
- Every wait has a deadline, and everything needs no more than an ordinary user's rights.
"""
