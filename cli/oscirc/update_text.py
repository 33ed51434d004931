"""What `oscirc update` says of a plan: facts for programs, and words for people. Nothing is fetched or moved here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oscirc import update_costs
from oscirc.output import human_bytes
from oscirc_blockstore.errors import BusyError, OscircError, UsageError

if TYPE_CHECKING:
    from oscirc.updates import Plan, Subject

_SHOWN_LINES, _SHOWN_CHARS = 12, 200


def facts_of(subject: Subject, plan: Plan | None) -> dict[str, object]:
    """What is known of a subject, for programs."""
    facts: dict[str, object] = {
        "name": subject.name,
        "kind": subject.kind,
        "image": subject.reference.name,
        "follows": subject.reference.channel or None,
        "reference": str(subject.reference),
        "has": {"version": subject.label, "manifest": subject.digest.hex()} if subject.digest else None,
        "newer": False,
    }
    if plan is None:
        return facts
    has = plan.subject
    return facts | {
        "follows": plan.target.channel or None,
        "reference": str(plan.target),
        "has": {"version": has.label, "manifest": has.digest.hex()} if has.digest else None,
        "newer": plan.is_news,
        "moved_back": plan.is_behind,
        "now": {
            "version": plan.wanted.version_label,
            "manifest": plan.wanted.manifest_digest.hex(),
            "released": plan.version.released if plan.version else None,
            "changelog": plan.version.changelog if plan.version else "",
        },
        **update_costs.facts(plan.cost),
        "action": plan.action.value if plan.action else None,
        "warnings": list(plan.warnings),
    }


def state(plan: Plan | None, problem: OscircError | None) -> str:
    """In a word or two, for the table."""
    from oscirc_vmlaunch.policies import Action

    if problem is not None:
        return "not known"
    if plan is None:
        return "stays"
    if not plan.is_news:
        return "up to date" if not plan.cost.missing_blocks else "not all is here"
    if plan.action is Action.REFUSE_WRITTEN:
        return "newer; it has written: --policy"
    return "newer; runs" if plan.action is Action.REFUSE_RUNNING else "newer"


def meant(plan: Plan) -> str:
    """What led to the version: its channel, or what was asked for."""
    return f"#{plan.target.channel}" if plan.target.channel else str(plan.target.version or "that digest")


def changelog(plan: Plan) -> list[str]:
    """What the publisher says is new, without anything that a terminal would obey."""
    text = plan.version.changelog if plan.version else ""
    lines = ["".join(c for c in line if c.isprintable())[:_SHOWN_CHARS] for line in text.splitlines()]
    return lines[:_SHOWN_LINES] + (["…"] if len(lines) > _SHOWN_LINES else [])


def consequences(plan: Plan) -> list[str]:
    """What an instance would lose, keep, or set aside."""
    from oscirc_vmlaunch import layers
    from oscirc_vmlaunch.policies import Action

    instance = plan.subject.instance
    if instance is None or plan.action is None:
        return []
    record = instance.record
    written = human_bytes(layers.occupied_bytes(instance))
    lines = []
    if plan.action in (Action.DROP_SYSTEM, Action.REFUSE_WRITTEN):
        what = (
            "set aside for oscirc rollback"
            if plan.action is Action.DROP_SYSTEM
            else f"they mean nothing on {plan.label}"
        )
        lines.append(f"system    {written} written on {plan.subject.has}: {what}")
        lines.append(
            "data      its data disk stays"
            if record.data_disk_bytes
            else "data      it has no data disk: all that it holds is in its system (boot --data-disk gives it one)"
        )
    if plan.action is Action.DROP_SYSTEM:
        for layer in layers.going(record):
            size = human_bytes(layers.occupied_bytes(instance, layer.number))
            lines.append(f"goes      what was set aside on {layer.set_aside[:10]}: {layer.version}, {size}")
    return lines


def refusal(plan: Plan) -> OscircError:
    """Why an instance is not moved, and how it can be."""
    from oscirc_vmlaunch import layers
    from oscirc_vmlaunch.policies import Action

    name, instance = plan.subject.name, plan.subject.instance
    if instance is None or plan.action is Action.REFUSE_RUNNING:
        return BusyError(
            f"{name} runs: it cannot move to {plan.label} meanwhile",
            hint=f"stop it with: oscirc stop {name}; --download-only fetches while it runs",
        )
    return UsageError(
        f"{name} has written {human_bytes(layers.occupied_bytes(instance))} in its system on {plan.subject.has}, "
        f"which cannot move to {plan.label}",
        hint="--policy drop-system sets that aside (oscirc rollback brings it back) and keeps a data disk; "
        f"--policy keep stays on {plan.subject.has}",
    )
