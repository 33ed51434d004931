"""A publisher killed between its delta pack's upload and the move of its channel: nobody sees half of it, a rerun ends it."""

import signal
import threading

import pytest
from support.breaking_proxy import UNHEARD, breaking_proxy, nothing
from support.commands import Repository, Workstation, add_publisher, end, free_port, serving

from .test_updates import BLOCK, content

IMAGE = "test:alice/tiny"
CHANNEL = f"{IMAGE}#stable"


@pytest.fixture
def publisher(tmp_path):
    return Workstation(tmp_path / "publisher")


@pytest.fixture
def behind(publisher, tmp_path):
    """A repository and the proxy that its public URL leads to; `alice/tiny@1` is there, and a disk that differs a little."""
    with breaking_proxy(free_port()) as proxy:
        directory = tmp_path / "repository"
        facts = publisher.json("serve", "init", "--data", directory, "--public-url", proxy.url)
        made = Repository(directory, directory / "keys", facts["remote_url"], facts["admin_token"], proxy.target_port)
        with serving(publisher, made):
            add_publisher(publisher, made, "alice")
            old = content("1", 5)
            (tmp_path / "disk.raw").write_bytes(old)
            publisher.run(*publishing(tmp_path, "1"))
            (tmp_path / "disk.raw").write_bytes(old[:1000] + b"an edit" + old[1007:])
            yield made, proxy


@pytest.fixture
def proxy(behind):
    return behind[1]


@pytest.fixture
def reader(behind, tmp_path):
    reader = Workstation(tmp_path / "reader")
    reader.run("remote", "add", "test", behind[0].url)
    return reader


def publishing(directory, version):
    return (
        *("publish", directory / "disk.raw", f"{IMAGE}@{version}", "--channel", "stable"),
        *("--block-size", BLOCK, "--key", "alice", "--json"),
    )


def killed_after_its_pack(publisher, proxy, directory):
    """Publish version 2; the process is killed when it asks for the first change after its pack's upload."""
    known = threading.Event()
    killed_at = []

    def breaks(request):
        uploaded = any(before.startswith("PUT ") and "/accelerators/delta/" in before for before in proxy.requests[:-1])
        if not uploaded or request.startswith("GET "):
            return None
        known.wait()
        process.send_signal(signal.SIGKILL)
        killed_at.append(request)
        return UNHEARD

    proxy.requests.clear()
    proxy.breaks = breaks
    process = publisher.start(*publishing(directory, "2"))
    known.set()
    try:
        assert process.wait(120) == -signal.SIGKILL
    finally:
        end(process)
        proxy.breaks = nothing
    return killed_at


def intents(publisher):
    return list((publisher.home / "data" / "oscirc" / "publishing").iterdir())


def test_killed_before_its_channel_moved_nothing_is_seen_of_it_and_a_rerun_only_moves_it(
    publisher, proxy, reader, tmp_path
):
    killed_at = killed_after_its_pack(publisher, proxy, tmp_path)
    assert len(killed_at) == 1
    assert reader.json("show", CHANNEL)["version"] == "1"
    assert [each["base"] for each in publisher.json("delta", "list", f"{IMAGE}@2")["packs"]] == ["1"]
    assert len(intents(publisher)) == 1

    proxy.requests.clear()
    told = publisher.json(*publishing(tmp_path, "2")[:-1])
    assert (told["uploaded_bytes"], told["new_blocks"], told["channels"]) == (0, 0, ["stable"])
    assert [request for request in proxy.requests if request.startswith("PUT ") and "/delta/" in request] == []
    assert reader.json("show", CHANNEL)["version"] == "2"
    assert intents(publisher) == []
