"""`oscirc update`: what a channel means now, what that costs, and, when it is here, the move to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oscirc import update_costs, update_text
from oscirc.options import json_option
from oscirc.output import human_bytes, print_json, print_table, progress, say, warn
from oscirc_blockstore.errors import OscircError, UsageError

if TYPE_CHECKING:
    from oscirc.updates import Plan, Planner, Subject
    from oscirc_remote.rate_limits import RateLimit
    from oscirc_remote.references import Reference
    from oscirc_vmlaunch.instances import Instance
    from oscirc_vmlaunch.layers import Base
    from oscirc_vmlaunch.machine import FirmwareKind


@click.command()
@click.pass_context
@click.argument("what", required=False, metavar="[REF|INSTANCE]")
@click.option("--all", "everything", is_flag=True, help="Update every instance and every pinned image.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched and done, and do nothing.")
@click.option("--download-only", is_flag=True, help="Fetch it; an instance stays on its version.")
@click.option("--no-download", is_flag=True, help="Move an instance at once; its blocks come as they are read.")
@click.option(
    "--policy",
    type=click.Choice(["refuse", "keep", "drop-system"]),
    default="refuse",
    show_default=True,
    help="What becomes of an instance that has written in its system.",
)
@click.option("--channel", metavar="CHANNEL", help="Let the instance follow this channel from now on.")
@click.option("--to", metavar="VERSION", help="Pin the instance to this version (or sha256:DIGEST) from now on.")
@click.option("--limit-rate", metavar="RATE", help="Fetch at most so many bytes a second, for example 2M.")
@click.option("--allow-revoked", is_flag=True, help="Also to a version that was withdrawn for security reasons.")
@json_option
def update(
    context: click.Context,
    /,
    what: str | None,
    *,
    everything: bool,
    dry_run: bool,
    download_only: bool,
    no_download: bool,
    policy: str,
    channel: str | None,
    to: str | None,
    limit_rate: str | None,
    allow_revoked: bool,
    as_json: bool,
) -> None:
    """Fetch what a channel means now, and move an instance to it. Says first what that costs.

    Without an argument it lists instances and pinned images, and what there is for them. What an instance wrote in its
    system means nothing on another version, so one that has written is not moved unless you say how:

    \b
      --policy keep         it stays on its version; the new one is fetched
      --policy drop-system  it moves; its system is set aside for oscirc rollback, its data disk stays

    Goes on where it was interrupted. Exit code 2: an instance has written, and no policy was given.

    \b
    Example:
      oscirc update
      oscirc update alice/debian --dry-run
      oscirc update web --policy drop-system
    """
    from oscirc import updates
    from oscirc_remote.amounts import parse_rate
    from oscirc_remote.rate_limits import RateLimit
    from oscirc_vmlaunch.policies import Policy

    if download_only and no_download:
        raise UsageError("--download-only and --no-download contradict each other")
    decided = context.get_parameter_source("policy") is not click.core.ParameterSource.DEFAULT
    how = download_only or no_download or limit_rate is not None or decided
    _check_named(what, everything=everything, how=how, follow=bool(channel or to))
    limit = None if limit_rate is None else RateLimit(parse_rate(limit_rate))
    planner = updates.Planner(Policy(policy), allow_revoked=allow_revoked)
    run = _Run(planner, limit, dry_run=dry_run, download_only=download_only, no_download=no_download, as_json=as_json)
    if what is not None:
        subject = updates.find(what)
        if subject.instance is None:
            _check_image(no_download=no_download, decided=decided)
        facts = run.one(subject, updates.target_of(subject, channel, to), chosen=bool(channel or to))
        if as_json:
            print_json(facts)
        return
    subjects = updates.everything()
    if not subjects and not as_json:
        say("nothing to update: there are no instances, and nothing is pinned")
    if everything:
        run.each(subjects)
    else:
        _list(subjects, planner, as_json=as_json)


def _check_named(what: str | None, *, everything: bool, how: bool, follow: bool) -> None:
    """Refuse options that say how to update, or what to follow, where nothing is named that they could be for."""
    if what is not None:
        if everything:
            raise UsageError("--all and the name of one contradict each other")
        return
    if follow:
        raise UsageError("say which instance is to follow that", hint="oscirc ps lists them")
    if how and not everything:
        raise UsageError("say what is to be updated", hint="a name, or --all; without either it is only listed")


def _check_image(*, no_download: bool, decided: bool) -> None:
    """Refuse what means something for an instance only."""
    if no_download:
        raise UsageError("--no-download is for instances", hint="oscirc mount and oscirc boot fetch as they read")
    if decided:
        raise UsageError("--policy is for instances", hint="nobody writes in an image: there is nothing to decide")


def _list(subjects: list[Subject], planner: Planner, *, as_json: bool) -> None:
    """The table of what there is for whom; raises the first problem after it was shown."""
    problems: list[OscircError] = []
    rows, found = [], []
    for subject, plan, problem in _asked(subjects, planner, quiet=as_json):
        if problem is not None:
            problems.append(problem)
        found.append(update_text.facts_of(subject, plan) | ({"problem": str(problem)} if problem else {}))
        latest = plan.label if plan else ""
        cost = update_costs.in_words(plan.cost) if plan and plan.cost.missing_blocks else ""
        rows.append(
            (subject.name, subject.kind, subject.has, subject.follows, latest, cost, update_text.state(plan, problem))
        )
    if as_json:
        print_json({"updates": found})
    elif rows:
        print_table(("NAME", "KIND", "HAS", "FOLLOWS", "NOW", "TO FETCH", "STATE"), rows)
        if any(fact["newer"] for fact in found):
            say("update one with: oscirc update NAME; all of them with: oscirc update --all")
    if problems:
        raise problems[0]


def _asked(
    subjects: list[Subject], planner: Planner, *, quiet: bool
) -> list[tuple[Subject, Plan | None, OscircError | None]]:
    """Each subject with the plan for it, or what is the matter; neither for one that follows nothing."""
    asked: list[tuple[Subject, Plan | None, OscircError | None]] = []
    with progress("ask", len(subjects), unit=" names", quiet=quiet) as bar:
        for subject in subjects:
            bar.set_postfix_str(subject.name)
            try:
                plan = planner.plan(subject, subject.reference) if subject.reference.channel else None
                asked.append((subject, plan, None))
            except OscircError as problem:
                asked.append((subject, None, problem))
            bar.update(1)
    return asked


class _Run:
    """Updates one subject after the other, as the options say."""

    def __init__(
        self,
        planner: Planner,
        limit: RateLimit | None,
        *,
        dry_run: bool,
        download_only: bool,
        no_download: bool,
        as_json: bool,
    ) -> None:
        self._planner = planner
        self._limit = limit
        self._dry_run = dry_run
        self._download_only = download_only
        self._no_download = no_download
        self._quiet = as_json

    def each(self, subjects: list[Subject]) -> None:
        """All of them; what cannot be updated is said, and does not stop the others."""
        done: list[dict[str, object]] = []
        problems: list[OscircError] = []
        for subject in subjects:
            try:
                done.append(self.one(subject, subject.reference, chosen=False))
            except OscircError as error:
                problems.append(error)
                done.append(update_text.facts_of(subject, None) | {"problem": str(error)})
                if not self._quiet:
                    say(f"{subject.name}: {error}{f' ({error.hint})' if error.hint else ''}")
        if self._quiet:
            print_json({"updates": done})
        if problems:
            first = problems[0]
            first.args = (f"{len(problems)} of {len(subjects)} could not be updated: {first}",)
            raise first

    def one(self, subject: Subject, target: Reference, *, chosen: bool) -> dict[str, object]:
        """One of them; `chosen`: the user said just now what it is to follow. Its facts, for programs."""
        from oscirc_vmlaunch.policies import Action

        if not target.channel and not chosen:
            self._say(
                f"{subject.name} is {subject.follows}, which never changes"
                + ("; --channel NAME or --to VERSION makes it follow something else" if subject.instance else "")
            )
            return update_text.facts_of(subject, None) | {"action": "pinned"}
        plan = self._planner.plan(subject, target)
        facts = update_text.facts_of(subject, plan)
        for warning in plan.warnings:
            warn(warning)
        self._show(plan)
        staying = self._download_only or self._dry_run
        if plan.action in (Action.REFUSE_WRITTEN, Action.REFUSE_RUNNING) and not staying:
            if self._quiet:
                print_json(facts)
            raise update_text.refusal(plan)
        if self._dry_run:
            return facts | {"dry_run": True}
        facts |= self._fetch(plan)
        if subject.instance is not None:
            return facts | self._apply(plan, subject.instance)
        if plan.is_news or plan.cost.missing_blocks:
            self._say(f"{plan.target.name}@{plan.label} is here: safe to unplug")
        if subject.pin is not None and not self._download_only:
            self._move_pin(plan)
        return facts

    def _say(self, message: str) -> None:
        if not self._quiet:
            say(message)

    def _show(self, plan: Plan) -> None:
        """What there is, and what it costs, before anything is fetched."""
        subject = plan.subject
        what = f"{subject.name}: {plan.target.name}" if subject.instance else plan.target.name
        if not plan.is_news:
            self._say(f"{what} {plan.label} is what {update_text.meant(plan)} means now")
        else:
            when = f", released {plan.version.released[:10]}" if plan.version else ""
            back = " (an earlier one: the channel was moved back)" if plan.is_behind else ""
            self._say(f"{what}: {subject.has} -> {plan.label}{when}{back}")
            for line in update_text.changelog(plan):
                self._say(f"    {line}")
        if plan.cost.missing_blocks:
            cost = plan.cost
            missing = f"{cost.missing_blocks} of {cost.data_blocks} blocks are not here"
            self._say(f"  to fetch  {update_costs.in_words(cost)}; {missing}")
        elif plan.is_news:
            self._say("  to fetch  nothing: all of it is here")
        for line in update_text.consequences(plan):
            self._say(f"  {line}")

    def _fetch(self, plan: Plan) -> dict[str, object]:
        """All of the new version, and then its receipt."""
        from oscirc.commands.pulling import pull_all
        from oscirc_remote.resolving import resolve

        fetched: dict[str, object] = {"fetched_bytes": 0, "fetched_blocks": 0, "packs": None}
        if plan.cost.missing_blocks and not (self._no_download and plan.subject.instance):
            try:
                pulled = pull_all(plan.wanted, self._limit, quiet=self._quiet)
            except KeyboardInterrupt:
                say("what came stays, and nothing was changed: run it again to go on")
                raise
            fetched = {key: pulled[key] for key in fetched}
            self._say(f"  fetched   {human_bytes(int(str(fetched['fetched_bytes'])))}")
        if plan.wanted.version_label:
            target = plan.target
            resolve(
                f"{target.remote}:{target.name}@{plan.wanted.version_label}", allow_revoked=self._planner.allow_revoked
            )
        return fetched

    def _apply(self, plan: Plan, instance: Instance) -> dict[str, object]:
        """Move the instance, or leave it where it is and only let it follow something else."""
        from oscirc_vmlaunch import layers
        from oscirc_vmlaunch.policies import Action

        reference = str(plan.target)
        if self._download_only:
            self._say(f"{instance.name} stays on {plan.subject.has}")
            return {"version": plan.subject.label}
        if plan.action in (Action.MOVE, Action.DROP_SYSTEM):
            moved = layers.move(
                instance,
                _base(plan),
                reference=reference,
                may_set_aside=plan.action is Action.DROP_SYSTEM or instance.record.ephemeral,
            )
            self._say(f"{moved.name} is on {plan.label} now; start it with: oscirc boot {moved.name}")
            if plan.action is Action.DROP_SYSTEM:
                self._say(f"go back to {plan.subject.has} with: oscirc rollback {moved.name}")
            return {"version": moved.record.version, "kept": [each.version for each in moved.record.kept]}
        if reference != str(plan.subject.reference):
            layers.follow(instance, reference)
            self._say(f"{instance.name} follows {update_text.meant(plan)} now")
        if plan.action is Action.KEEP:
            self._say(f"{instance.name} stays on {plan.subject.has}; {plan.label} is here for when it moves")
        return {"version": plan.subject.label}

    def _move_pin(self, plan: Plan) -> None:
        """What was pinned by a channel is from now on the version that the channel means."""
        from dataclasses import replace

        from oscirc import hoarding
        from oscirc_remote.pins import Pins

        subject = plan.subject
        if subject.pin is None or subject.digest is None or not plan.is_news:
            return
        hoarding.pin(replace(plan.wanted, reference=subject.reference))
        Pins().remove(subject.digest)
        self._say(f"{plan.label} is pinned instead of {subject.has}")


def _base(plan: Plan) -> Base:
    from typing import cast

    from oscirc_vmlaunch.layers import Base

    system = plan.wanted.manifest.system
    return Base(
        manifest_digest=plan.wanted.manifest_digest.hex(),
        version=plan.wanted.version_label,
        firmware=cast("FirmwareKind", system.firmware),
        architecture=system.architecture,
        minimum_memory_mib=system.minimum_memory_mib,
    )
