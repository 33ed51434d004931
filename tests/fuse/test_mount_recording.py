"""Recording mounts: what is read is in the trace, once or always, until it ends."""

import os

import pytest

from oscirc_blockstore import trace
from oscirc_blockstore.errors import UsageError
from oscirc_fusedriver import control_client
from oscirc_vmlaunch.launching import opened_for_a_guest

from .fuse_world import until

KIB = 1024
BLOCK = 256 * KIB


def reads_of(file):
    with file.open() as lines:
        return [(read.offset, read.length) for read in trace.parse(lines)[1]]


@pytest.fixture
def disk(request):
    """Opens a mount's disk without read-ahead."""
    opened = []

    def open_it(mount):
        descriptor = os.open(mount.disk, os.O_RDONLY)
        opened.append(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        return descriptor

    yield open_it
    for descriptor in opened:
        os.close(descriptor)


def test_a_direct_trace_holds_every_read(mounted, disk, tmp_path):
    file = tmp_path / "trace"
    mount = mounted(resident=True, options={"direct_io": True, "trace": str(file)})
    descriptor = disk(mount)
    for at in (BLOCK, 0, BLOCK):
        os.pread(descriptor, 4096, at)
    control_client.end_trace(mount.record)
    assert trace.ends(file)
    assert reads_of(file) == [(BLOCK, 4096), (0, 4096), (BLOCK, 4096)]


def test_a_trace_beside_the_page_cache_holds_first_touches_and_hides_none_by_pushing(mounted, disk, tmp_path):
    file = tmp_path / "trace"
    mount = mounted(block_size=BLOCK, options={"trace": str(file)})
    descriptor = disk(mount)
    before = mount.status()
    for at in (BLOCK, BLOCK + 64 * KIB, BLOCK):  # the second would be pushed with the first
        os.pread(descriptor, 4096, at)
    assert mount.status().driver.stores == before.driver.stores == 0
    assert before.read_ahead_kb == 0
    control_client.end_trace(mount.record)
    assert trace.ends(file)
    assert reads_of(file) == [(BLOCK, 4096), (BLOCK + 64 * KIB, 4096)]


def test_once_it_has_ended_pages_are_pushed_again_and_nothing_is_recorded(mounted, disk, tmp_path):
    file = tmp_path / "trace"
    mount = mounted(block_size=BLOCK, options={"trace": str(file)})
    descriptor = disk(mount)
    control_client.end_trace(mount.record)
    control_client.end_trace(mount.record)  # harmless
    os.pread(descriptor, 4096, 2 * BLOCK)
    until(lambda: mount.status().driver.stored_bytes == BLOCK - 4096, "the rest of the block is pushed")
    assert reads_of(file) == []


def test_of_what_a_guest_reads_the_kernel_reads_nothing_ahead(mounted, tmp_path):
    file = tmp_path / "trace"
    mount = mounted(block_size=BLOCK, options={"trace": str(file)})
    with opened_for_a_guest(mount.record.disk) as descriptor:
        for at in range(BLOCK, BLOCK + 16 * KIB, 4 * KIB):  # in order: the kernel would take it for a run
            os.pread(descriptor, 4096, at)
    control_client.end_trace(mount.record)
    assert reads_of(file) == [(at, 4096) for at in range(BLOCK, BLOCK + 16 * KIB, 4 * KIB)]


def test_of_what_is_all_here_the_kernel_reads_ahead(mounted, tmp_path):
    file = tmp_path / "trace"
    mount = mounted(block_size=BLOCK, options={"trace": str(file)})
    with opened_for_a_guest(mount.record.disk, is_here=True) as descriptor:
        for at in range(BLOCK, BLOCK + 16 * KIB, 4 * KIB):
            os.pread(descriptor, 4096, at)
    control_client.end_trace(mount.record)
    assert reads_of(file)[0][0] == BLOCK
    assert sum(length for _, length in reads_of(file)) > 16 * KIB


def test_the_read_ahead_is_raised_when_it_has_ended_not_before(mounted, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root may raise it")
    mount = mounted(resident=True, options={"trace": str(tmp_path / "trace")})
    assert mount.status().read_ahead_kb == 0
    control_client.end_trace(mount.record)
    until(lambda: mount.status().read_ahead_kb == 1024, "the read-ahead is raised")


def test_it_ends_by_itself_after_its_time(mounted, disk, tmp_path):
    file = tmp_path / "trace"
    mounted(block_size=BLOCK, options={"trace": str(file), "trace_s": 0})
    until(lambda: trace.ends(file), "the trace is whole")


def test_a_mount_that_records_nothing_says_so(mounted):
    mount = mounted(resident=True)
    with pytest.raises(UsageError, match="nothing is recorded"):
        control_client.end_trace(mount.record)
