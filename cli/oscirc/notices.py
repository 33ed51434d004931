"""What an instance's user is told of its version when it boots: that there is a newer one, or that it was withdrawn.

- The repository is asked in a thread, while QEMU starts with its guest paused. The guest waits for the answer until
  two seconds after the command's beginning and no longer: what comes until then is obeyed, a security yank refuses.
- What comes later is told as one line. What was seen of a withdrawal stands on the receipt and in the kept index, and
  is obeyed by the next boot, with and without network.
- Nothing is fetched, and the instance stays on its version (`oscirc update` moves it). `auto_update = "off"` in the
  preferences keeps news of newer versions back, never those of withdrawals.
- A repository that cannot be asked is no news: that it was unreachable, a boot says elsewhere where it matters.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oscirc_blockstore.errors import OscircError, WithdrawnError

if TYPE_CHECKING:
    from oscirc_blockstore.digests import Digest
    from oscirc_blockstore.image_index import ImageIndex
    from oscirc_remote.references import Reference
    from oscirc_remote.remotes import Remote
    from oscirc_vmlaunch.instances import Instance

ASK_S = 5.0
PATIENCE_S = 2.0


@dataclass(slots=True)
class Notice:
    """The news of one instance's version, as they come. `refusal` is set where it must not be booted."""

    name: str
    reference: Reference
    digest: Digest
    allow_revoked: bool
    tells_of_newer: bool
    until: float
    newer: str = ""
    refusal: WithdrawnError | None = None
    _done: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _lines: list[str] = field(default_factory=list)
    _known: frozenset[str] = frozenset()
    _told: Callable[[str], None] | None = None

    def check(self, known: Sequence[str]) -> None:
        """Before the guest starts: obey what is known by now, waiting for it a moment. Raises `WithdrawnError`.

        What was warned of already is not told again.
        """
        self._done.wait(max(0.0, self.until - time.monotonic()))
        with self._lock:
            self._known = frozenset(f"warning: {line}" for line in known)
            if self.refusal is not None:
                raise self.refusal

    def tell(self, told: Callable[[str], None]) -> None:
        """From now on: what there is to tell goes here, also what comes later."""
        with self._lock:
            self._told = told
            lines, self._lines = self._lines, []
        for line in lines:
            if line not in self._known:
                told(line)

    def look(self) -> None:
        """Ask, and judge the answer; where nobody answers, what was known before. The body of the thread."""
        try:
            index = self._index()
            if index is not None:
                self._judge(index)
        except WithdrawnError as error:
            self._refuse(error)
        except OscircError:
            pass  # no remote of that name any more, or what is kept cannot be read: no news
        finally:
            self._done.set()

    def _index(self) -> ImageIndex | None:
        from oscirc_remote import news
        from oscirc_remote.deadlines import Deadline
        from oscirc_remote.remotes import Remotes

        remote: Remote = Remotes().load(self.reference.remote)
        publisher, image = self.reference.publisher, self.reference.image
        try:
            return news.ask(remote, publisher, image, Deadline.after(ASK_S))
        except WithdrawnError:
            raise
        except OscircError:
            return news.kept(remote, publisher, image)

    def _judge(self, index: ImageIndex) -> None:
        from oscirc_remote import news
        from oscirc_remote.resolving import judge_deletion, judge_yank

        found = news.judge(index, self.digest, self.reference.channel)
        name = f"{self.reference.name}@{found.label}"
        try:
            for line in judge_yank(name, found.yanked, allow_revoked=self.allow_revoked):
                self._add(f"warning: {line}")
            if found.deleted is not None:
                for line in judge_deletion(name, found.deleted, allow_revoked=self.allow_revoked):
                    self._add(f"warning: {line}")
        except WithdrawnError as error:
            self._refuse(error)
            return
        if found.newer is not None and self.tells_of_newer and not (found.newer.yanked and found.newer.yanked.security):
            self.newer = found.newer.label
            what = "an earlier version" if found.is_behind else "a newer version"
            self._add(
                f"{self.name}: {self.reference.name}#{self.reference.channel} means {found.newer.label} now, {what} "
                f"(this is {found.label or 'another'}); move to it with: oscirc update {self.name}"
            )

    def _refuse(self, error: WithdrawnError) -> None:
        with self._lock:
            if not self.allow_revoked:
                self.refusal = error
        self._add(f"warning: {error}{'' if self.allow_revoked else '; the next boot of it is refused'}")

    def _add(self, line: str) -> None:
        with self._lock:
            told = self._told
            if told is None:
                self._lines.append(line)
        if told is not None and line not in self._known:
            told(line)


def begin(instance: Instance, *, allow_revoked: bool, began: float) -> Notice:
    """Ask for news of an instance's version from now on; `began` is when the command did (monotonic)."""
    from oscirc import updates
    from oscirc_blockstore.digests import parse_hex
    from oscirc_remote import preferences

    record = instance.record
    notice = Notice(
        name=record.name,
        reference=updates.following(record),
        digest=parse_hex(record.manifest_digest),
        allow_revoked=allow_revoked,
        tells_of_newer=preferences.load().auto_update == preferences.NOTICE,
        until=began + PATIENCE_S,
    )
    threading.Thread(target=notice.look, name="news", daemon=True).start()
    return notice
