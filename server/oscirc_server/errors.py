"""What the server refuses that other rooms never meet; leaves of the one error tree (`oscirc_blockstore.errors`).

`facts` become extra members of the HTTP problem: values that a client acts on, never text for people.
"""

from __future__ import annotations

from oscirc_blockstore.errors import BusyError, IntegrityError, LocalError, TransportError, TrustError, UsageError


class ConflictError(UsageError):
    """The request does not fit what is already there."""


class BlocksBeingDeletedError(ConflictError):
    """Blocks that the request is about are being deleted at this moment: the same request is answered in a second."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, hint="the same again, in a moment")
        self.retry_after_s = retry_after_s


class UnreadableRootError(IntegrityError):
    """Something that says which blocks are needed cannot be read: nothing may be collected."""


class BodyTooLargeError(UsageError):
    """A request's body is longer than this call allows."""


class RequestRefusedError(UsageError):
    """A request that cannot be read: not JSON, a missing field, a wrong content type."""


class UnsupportedMediaTypeError(UsageError):
    """The body is of another media type than this call takes."""


class NotAcceptableError(UsageError):
    """This call has no answer of a media type that the request would accept."""


class PreconditionFailedError(UsageError):
    """What the request was made for has changed meanwhile (If-Match), or is there already (If-None-Match)."""


class KeyReusedError(UsageError):
    """An Idempotency-Key that was used with another body, or for another call."""


class StalledError(TransportError):
    """The client stopped sending in the middle of a body."""


class TooManyRequestsError(TransportError):
    """More often than is allowed without a token."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, hint=f"not before {retry_after_s:.0f} s have passed")
        self.retry_after_s = retry_after_s


class UnauthenticatedError(TrustError):
    """No token, or one that is unknown, expired or revoked."""


class WrongPasswordError(TrustError):
    """Who is known otherwise gave a present password that is not his."""


class IdentityRefusedError(UnauthenticatedError):
    """A pipeline's JWT that is not what it should be, or that no rule lets in."""


class IssuerUnreachableError(TransportError):
    """The keys of a pipeline's issuer cannot be had at the moment."""


class ScopeError(TrustError):
    """The token does not allow this."""


class RoleConflictError(TrustError):
    """A role's version is not the current one plus one."""

    def __init__(self, message: str, *, current_version: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.facts: dict[str, object] = {"current_version": current_version}


class MissingBlocksError(IntegrityError):
    """Blocks or nodes that a table names are not here."""

    def __init__(self, message: str, *, missing: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.facts: dict[str, object] = {"missing": missing}


class RecordRefusedError(IntegrityError):
    """One record of an upload body; those before it were kept."""

    def __init__(self, message: str, *, record: int, digest: str) -> None:
        super().__init__(message)
        self.facts: dict[str, object] = {"record": record, "digest": digest}


class SupersededError(BusyError):
    """Another process has taken over what this one was doing."""


class JobRefusedError(LocalError):
    """A background job that would not work the next time either."""


class JobCrashedError(LocalError):
    """A background job that may work the next time."""


class NotInitialisedError(LocalError):
    """The data directory holds no repository."""


class AlreadyInitialisedError(LocalError):
    """The data directory holds a repository already."""


class StoppingError(TransportError):
    """The server is stopping; another one, or the same one in a moment, will answer."""


class OnlineKeyMissingError(LocalError):
    """This server cannot sign what is current; another one may."""
