"""The FUSE driver: one process shows one image as one read-only file, `MOUNTPOINT/disk.raw`.

How a mount lives: `mounting.mount` checks the machine and the mount point, leaves the terminal (`background`) or stays,
opens the image by the caller's function, and runs `session`: the FUSE loop, signals, the control socket, the first
read. `records` says on disk who serves what; `control_client` and `unmounting` talk to it from other processes.

Concurrency. One trio thread answers the kernel. What is on this machine is read and hashed in that thread; what is not
costs one hop to a bounded pool of threads. A third kind of thread, one per mount, pushes pages (`pagecache`).
Rules that hold here:

- Only `FUSEError` leaves a handler: any other exception would end the mount. Unexpected ones are EIO and a log line.
- An answer is exactly as long as asked, except at the end of the disk: a short one would put zeros into the page cache.
- The trio thread never waits for this mount's own files, for a lock that is held during a fetch, or for the network.
- Nothing is judged by a process's name: a driver is its pid and the time it started.
- No wait is without an end: reads, readiness, unmounting, control connections, the last words of a background driver.

Nothing here knows blocks, digests or mirrors; the seam is `readers.Reader`. Modules that other programs need for a
look (`records`, `status`, `control_client`, `unmounting`) import neither pyfuse3 nor trio.
"""
