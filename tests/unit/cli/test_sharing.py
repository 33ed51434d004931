"""Sharing boots: only with a yes, only what the profile holds, and never at the boot's cost."""

import http.server
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from oscirc import sharing
from oscirc_blockstore import profile
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError, UsageError
from oscirc_blockstore.trace import END_LINE, TraceHead
from oscirc_fusedriver import control_client, records
from oscirc_remote import preferences

DISK = digest_of(b"disk")
BLOCK = 65_536


@pytest.fixture
def trace(tmp_path):
    """A whole recording: blocks 5, 3 and 4, the first of them twice."""
    file = tmp_path / "boot.trace"
    reads = "".join(f"{at} {length} 7\n" for at, length in ((5 * BLOCK, 512), (4 * BLOCK - 1, 2), (5 * BLOCK, 4096)))
    file.write_text(f"{TraceHead(100 * BLOCK, DISK)}{reads}{END_LINE}")
    return file


@pytest.fixture
def server():
    """Takes one boot; `seen` holds method, path, headers and body of every request."""
    seen, status = [], [202]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.command, self.path, dict(self.headers), body))
            self.send_response(status[0])
            self.end_headers()
            self.wfile.write(b'{"runs":1}')

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{listening.server_port}/api/v1", seen=seen, status=status)
        listening.shutdown()
        thread.join()


@pytest.fixture
def planned(trace, server, tmp_path, monkeypatch):
    """The plan of a boot whose prompt has come, on a mount that is gone."""

    async def prompt(_):
        pass

    monkeypatch.setattr(sharing, "_until_prompt", prompt)
    monkeypatch.setattr(sharing, "_PAUSES_S", ())
    plan = sharing.Plan(
        trace=str(trace),
        instance="one",
        mountpoint=str(tmp_path / "mnt"),
        manifest=DISK.hex(),
        block_size=BLOCK,
        api_url=server.url,
        path="images/alice/debian/versions/1/profiles/boot/runs",
        save="",
    )
    sharing._directory(plan).mkdir(parents=True)
    return plan


def run(monkeypatch, plan):
    """The process, in this one; its exit code and what its log says."""
    monkeypatch.setattr("sys.argv", ["oscirc.sharing", json.dumps(sharing.asdict(plan))])
    monkeypatch.setattr(os, "nice", lambda _: None)
    code = sharing.main()
    return code, (sharing._directory(plan) / sharing.LOG_NAME).read_text()


def test_what_is_sent_is_the_order_of_blocks_and_nothing_else(planned, server, trace, monkeypatch):
    code, log = run(monkeypatch, planned)
    assert code == 0
    assert "sent to" in log
    ((method, path, headers, body),) = server.seen
    assert (method, path) == ("POST", "/api/v1/images/alice/debian/versions/1/profiles/boot/runs")
    assert json.loads(body) == {
        "format": "oscirc-profile-1", "manifest": DISK.hex(), "name": "boot", "positions": [5, 3, 4], "runs": 1,
    }  # fmt: skip
    assert not {"Authorization", "Cookie", "Referer", "From"} & set(headers)
    assert headers["User-Agent"] == "oscirc"
    assert (sharing._directory(planned) / sharing.DOCUMENT_NAME).read_bytes() == body
    assert not trace.exists()


def test_it_can_be_looked_at_without_sending_it(planned, server, tmp_path, monkeypatch):
    saved = tmp_path / "saved.json"
    code, log = run(monkeypatch, replace(planned, api_url="", save=str(saved)))
    assert code == 0
    assert "not sent" in log
    assert profile.parse(saved.read_bytes()).positions == (5, 3, 4)
    assert server.seen == []


@pytest.mark.parametrize("status", [404, 413, 422, 429, 500, 503])
def test_a_server_that_does_not_want_it_is_a_line_in_the_log(planned, server, trace, status, monkeypatch):
    server.status[0] = status
    code, log = run(monkeypatch, planned)
    assert code == 1
    assert "not shared" in log
    assert not trace.exists()


def test_a_recording_that_is_not_whole_is_not_sent(planned, server, trace, monkeypatch):
    trace.write_text(trace.read_text().removesuffix(END_LINE))
    code, log = run(monkeypatch, planned)
    assert (code, server.seen) == (1, [])
    assert "not whole" in log


def test_a_boot_that_does_not_reach_its_prompt_ends_the_recording_and_sends_nothing(
    planned, server, trace, monkeypatch
):
    ended = []

    async def never(_):
        raise LocalError("the guest ended")

    monkeypatch.setattr(sharing, "_until_prompt", never)
    monkeypatch.setattr(records, "find", lambda place: place)
    monkeypatch.setattr(control_client, "end_trace", ended.append)
    code, log = run(monkeypatch, planned)
    assert (code, server.seen, ended) == (1, [], [Path(planned.mountpoint)])
    assert "the guest ended" in log
    assert not trace.exists()


def test_a_file_that_appeared_meanwhile_is_not_overwritten(planned, server, tmp_path, monkeypatch):
    saved = tmp_path / "saved.json"
    saved.write_text("mine")
    code, _ = run(monkeypatch, replace(planned, save=str(saved)))
    assert (code, server.seen, saved.read_text()) == (1, [], "mine")


def test_an_instance_that_is_gone_meanwhile_is_no_reason_to_fail_loudly(planned, monkeypatch):
    sharing._directory(planned).rmdir()
    monkeypatch.setattr("sys.argv", ["oscirc.sharing", json.dumps(sharing.asdict(planned))])
    monkeypatch.setattr(os, "nice", lambda _: None)
    assert sharing.main() == 0


@pytest.mark.parametrize(
    ("preferred", "said", "sends"), [(False, None, False), (True, None, True), (True, False, False)]
)
def test_the_command_line_goes_over_the_preference_and_no_is_the_default(preferred, said, sends):
    assert sharing.wish(share_boot=None, save_boot=None).send is False
    file = preferences.config_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"share_boots = {str(preferred).lower()}\n")
    assert sharing.wish(share_boot=said, save_boot=None).send is sends


def test_an_output_that_is_there_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "saved.json").write_text("mine")
    with pytest.raises(LocalError, match="is there already"):
        sharing.wish(share_boot=None, save_boot=tmp_path / "saved.json")


def resolved(api_url="http://api.test/api/v1", label="1"):
    facts = None if api_url is None else SimpleNamespace(api_url=api_url)
    return SimpleNamespace(
        remote=SimpleNamespace(facts=lambda: facts),
        publisher="alice",
        image="debian",
        version_label=label,
        manifest_digest=DISK,
        manifest=SimpleNamespace(geometry=SimpleNamespace(block_size=BLOCK)),
    )


def test_only_first_boots_are_recorded_and_only_when_somebody_wants_them(tmp_path):
    assert sharing.new_trace(sharing.Wish(send=False, save=None), resolved(), fresh=True) is None
    assert sharing.new_trace(sharing.Wish(send=True, save=None), resolved(), fresh=False) is None
    for nowhere in (resolved(api_url=""), resolved(api_url=None), resolved(label="")):
        assert sharing.new_trace(sharing.Wish(send=True, save=None), nowhere, fresh=True) is None
        assert sharing.new_trace(sharing.Wish(send=False, save=tmp_path / "x"), nowhere, fresh=True) is not None
    with pytest.raises(UsageError, match="first boot"):
        sharing.new_trace(sharing.Wish(send=False, save=tmp_path / "x"), resolved(), fresh=False)
    place = sharing.new_trace(sharing.Wish(send=True, save=None), resolved(), fresh=True)
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert not place.exists()


def test_recordings_that_a_killed_process_left_are_cleaned_up():
    place = sharing.new_trace(sharing.Wish(send=True, save=None), resolved(), fresh=True)
    old, new = place.with_name("old.trace"), place.with_name("new.trace")
    for file in (old, new):
        file.write_text("")
    os.utime(old, (0, time.time() - 2 * 86_400))
    sharing.new_trace(sharing.Wish(send=True, save=None), resolved(), fresh=True)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize(
    ("send", "version", "where"),
    [
        (True, resolved(), "http://api.test/api/v1"),
        (False, resolved(), ""),
        (True, resolved(api_url=""), ""),
        (True, resolved(api_url=None), ""),
        (True, resolved(label=""), ""),
    ],
)
def test_it_goes_to_the_api_that_the_repository_signed_for_and_nowhere_else(tmp_path, send, version, where):
    instance = SimpleNamespace(name="one", record=SimpleNamespace(mount_point="/mnt"))
    plan = sharing.plan(sharing.Wish(send=send, save=None), tmp_path / "t", version, instance)
    assert plan.api_url == where
    if where:
        assert plan.path == "images/alice/debian/versions/1/profiles/boot/runs"


def test_the_recording_of_a_guest_that_never_ran_is_forgotten(trace):
    sharing.forget(trace, None)
    assert not trace.exists()
