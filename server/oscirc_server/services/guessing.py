"""How often somebody may be wrong: failures of tokens and passwords, counted by network and by account.

A right token is never refused for the failures of others behind the same address: failures are counted after the look
into the database, which a checksum keeps most of them from. Passwords are judged before they are hashed, since hashing
is what a guesser would make us do. Counts are in the memory of one process: several servers allow as many times more.
"""

from __future__ import annotations

import hashlib

from oscirc_server.admission import Admission, Rate
from oscirc_server.errors import TooManyRequestsError
from oscirc_server.installation import Installation
from oscirc_server.services import fleet

TOKENS_OF_A_NETWORK = Rate(burst=30, per_hour=300)
TOKENS_OF_ALL = Rate(burst=1000, per_hour=100_000)
LOGINS_OF_A_NETWORK = Rate(burst=10, per_hour=60)
LOGINS_OF_AN_ACCOUNT = Rate(burst=10, per_hour=30)
LOGINS_OF_ALL = Rate(burst=200, per_hour=3600)


class Guessing:
    """One for a running server."""

    def __init__(self, installation: Installation) -> None:
        now_s = installation.clock()
        self._installation = installation
        self._tokens = Admission(TOKENS_OF_A_NETWORK, TOKENS_OF_ALL, now_s)
        self._networks = Admission(LOGINS_OF_A_NETWORK, LOGINS_OF_ALL, now_s)
        self._accounts = Admission(LOGINS_OF_AN_ACCOUNT, LOGINS_OF_ALL, now_s)

    def failed_token(self, address: str) -> None:
        """A token was refused; raises `TooManyRequestsError` for a network that had too many of them."""
        self._take(self._tokens, fleet.network_of(self._installation, address))

    def before_password(self, address: str, account: str) -> None:
        """A password is about to be judged: take a turn of the network and of the account, or raise."""
        self._take(self._networks, fleet.network_of(self._installation, address))
        self._take(self._accounts, hashlib.sha256(account.encode()).digest())

    def right_password(self, address: str, account: str) -> None:
        """It was right: whoever logs in often is no guesser."""
        self._networks.give_back(fleet.network_of(self._installation, address))
        self._accounts.give_back(hashlib.sha256(account.encode()).digest())

    def _take(self, turns: Admission, sender: bytes) -> None:
        wait_s = turns.wait_s(sender, self._installation.clock())
        if wait_s:
            raise TooManyRequestsError("too many attempts that failed", retry_after_s=wait_s)
