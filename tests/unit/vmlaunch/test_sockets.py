import os
import stat

import pytest

from oscirc_blockstore.errors import LocalError
from oscirc_vmlaunch import sockets


@pytest.mark.parametrize("depth", [0, 20])
def test_a_socket_is_reached_however_long_its_path_is(tmp_path, depth):
    folder = tmp_path.joinpath(*["folder"] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "qmp.sock"
    assert (len(os.fsencode(path)) > 107) == (depth > 0)
    with sockets.listen(path) as listener:
        assert stat.S_ISSOCK(path.stat().st_mode)
        with sockets.connect(path) as client:
            server, _ = listener.accept()
            with server:
                client.sendall(b"hello")
                assert server.recv(5) == b"hello"


def test_what_was_left_by_a_killed_machine_is_replaced(tmp_path):
    path = tmp_path / "qmp.sock"
    sockets.listen(path).close()
    with pytest.raises(LocalError, match="nothing answers"):
        sockets.connect(path)
    with sockets.listen(path), sockets.connect(path):
        pass


def test_a_folder_that_does_not_exist_is_an_error_with_its_name(tmp_path):
    for call in (sockets.listen, sockets.connect):
        with pytest.raises(LocalError, match="none"):
            call(tmp_path / "none" / "qmp.sock")
