"""The one error tree of oscirc, split by who or what is at fault.

An edge (command line, FUSE, HTTP server) translates the *branches*, never the leaves, in one table of its own:

    OscircError
    |-- UsageError              exit 2   the caller asked for something malformed
    |   |-- NameRefusedError             a publisher, image, version, channel or reference name
    |   |-- DiskRefusedError             a disk that cannot or must not be published
    |   `-- QuotaExceededError           more than a server lets this publisher keep
    |-- NotFoundError           exit 3   what was named does not exist (remote, image, version, instance)
    |   `-- OldBlockMissingError         a block of an older version that something is made from is not here
    |-- TrustError              exit 4   authority or freshness: somebody is not allowed to say this
    |   |-- SignatureRefusedError        wrong or too few signatures, wrong root
    |   |-- ExpiredError                 metadata past its expiry date
    |   |-- RollbackError                older than what was seen before
    |   `-- WithdrawnError               a yanked version, a revoked key
    |-- TransportError          exit 5   the network or a server; `retryable` says if the same call may succeed later
    |   |-- UnreachableError             no connection, a broken or refused one
    |   |-- DeadlineExceededError        no answer in the time given
    |   |-- NotServedError               404: this source lacks the object
    |   |-- ServerRefusedError           4xx/5xx with the server's own words (`status`, `problem`); 401, 403: exit 4
    |   `-- OversizedResponseError       longer than declared or allowed
    |-- LocalError              exit 6   this machine: disk full, permission, a missing program
    |   |-- StoreFullError
    |   |-- MissingProgramError
    |   `-- BusyError                    held by another process
    `-- IntegrityError          exit 7   bytes that are not what their name or signature says
        |-- FrameRefusedError            not the one allowed form of a block file
        |-- DigestMismatchError          decoded, but to other bytes
        |-- TableRefusedError            a node or a tree that no publisher's tool makes
        `-- DocumentRefusedError         manifest, image index, profile: malformed or not canonical

Every error has a message that says what happened and, where the user can do something, a `hint` that says what.
"""

from __future__ import annotations


class OscircError(Exception):
    """The root: `str()` is the message, `hint` (may be empty) what the user can do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(OscircError):
    """The caller asked for something malformed."""

    exit_code = 2


class NameRefusedError(UsageError):
    """A name or a reference that this project does not allow."""


class DiskRefusedError(UsageError):
    """A disk that cannot or must not be published."""


class QuotaExceededError(UsageError):
    """More than the server lets this publisher keep; `facts` are the numbers, in bytes."""

    def __init__(self, message: str, *, hint: str = "", facts: dict[str, object] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.facts = facts or {}


class NotFoundError(OscircError):
    """What was named does not exist."""

    exit_code = 3


class OldBlockMissingError(NotFoundError):
    """What is to be made from a block of an older version cannot be: that block is not on this machine."""


class TrustError(OscircError):
    """Authority or freshness is missing."""

    exit_code = 4


class SignatureRefusedError(TrustError):
    """Wrong or too few signatures, or another root of trust."""


class ExpiredError(TrustError):
    """Metadata past its expiry date."""


class RollbackError(TrustError):
    """Older than what was seen before."""


class WithdrawnError(TrustError):
    """A yanked version or a revoked key."""


class TransportError(OscircError):
    """The network or a server is at fault."""

    exit_code = 5
    retryable = False


class UnreachableError(TransportError):
    """No connection, or one that broke."""

    retryable = True


class DeadlineExceededError(TransportError):
    """No answer in the time given."""

    retryable = True


class NotServedError(TransportError):
    """A source answered that it lacks the object."""


class ServerRefusedError(TransportError):
    """A server answered with an error status: `status`, `problem` with its own words, `retry_after_s` if it said so."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        problem: dict[str, object] | None = None,
        hint: str = "",
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retry_after_s = retry_after_s
        self.problem = problem or {}
        if status in (401, 403):
            self.exit_code = TrustError.exit_code  # who asks is at fault, not the network: trying again will not help
        self.retryable = status in (408, 425, 429, 500, 502, 503, 504)


class OversizedResponseError(TransportError):
    """An answer longer than declared or allowed."""


class LocalError(OscircError):
    """This machine is at fault."""

    exit_code = 6


class StoreFullError(LocalError):
    """No space left for what was to be written."""


class MissingProgramError(LocalError):
    """A program that this needs is not installed."""


class BusyError(LocalError):
    """Held by another process."""


class IntegrityError(OscircError):
    """Bytes that are not what their name or signature says."""

    exit_code = 7


class FrameRefusedError(IntegrityError):
    """Not the one allowed form of a block file."""


class DigestMismatchError(IntegrityError):
    """Decoded, but to other bytes than the name says."""


class TableRefusedError(IntegrityError):
    """A node or a tree that no publisher's tool makes."""


class DocumentRefusedError(IntegrityError):
    """A manifest, image index or other document that is malformed or not canonical."""
