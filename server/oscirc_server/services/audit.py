"""The audit trail: one row per change of authority or content, in the transaction that makes the change."""

from __future__ import annotations

import json

from sqlalchemy.orm import Session

from oscirc_server.models import AuditRow


def record(session: Session, at_s: int, actor: str, action: str, subject: str, **detail: object) -> None:
    """Add a row; `detail` is values for a later reader, never a secret."""
    text = json.dumps(detail, sort_keys=True)
    session.add(AuditRow(at_s=at_s, actor=actor[:80], action=action, subject=subject[:255], detail=text))
