"""What is fetched before it is asked for, as the user says it: options of `mount` and `boot` over preferences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from oscirc.output import warn
from oscirc_blockstore.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from oscirc_remote.prefetch import PrefetchOptions
    from oscirc_remote.resolving import Resolved

P = ParamSpec("P")
R = TypeVar("R")

NONE = "none"


@dataclass(frozen=True, slots=True)
class AheadWish:
    """What was said on the command line; None where the preferences decide."""

    prefetch: bool | None = None
    profile: str | None = None
    fill: bool | None = None
    fill_rate: int | None = None

    def options(self, *, leaving: bool = False) -> PrefetchOptions | None:
        """What to fetch ahead; None for nothing. Raises `UsageError` for preferences that mean nothing.

        Of a version that will not be served for long (`leaving`) all is fetched, unless the command says otherwise.
        """
        from oscirc_remote import preferences
        from oscirc_remote.prefetch import PrefetchOptions

        liked = preferences.load()
        for key in liked.unknown:
            warn(f"{preferences.config_file()}: this version does not know {key!r}")
        prefetch = liked.prefetch if self.prefetch is None else self.prefetch
        profile = self.profile or liked.profile
        fill = liked.fill or leaving if self.fill is None else self.fill
        rate = self.fill_rate or liked.fill_rate
        if not prefetch and not fill:
            return None
        return PrefetchOptions(
            bundles=prefetch and profile != NONE,
            profile=profile,
            guesses=prefetch,
            fill_bytes_per_s=float(rate or 0) if fill or self.fill_rate else None,
        )

    def check_profile(self, resolved: Resolved) -> None:
        """Refuse the name of a profile that the version does not have; only where one was named, and can be known."""
        from oscirc_blockstore import accelerators
        from oscirc_remote.opening import listing_of

        if self.profile in (None, NONE) or self.prefetch is False:
            return
        listing = listing_of(resolved)
        kinds = (accelerators.BUNDLE, accelerators.PROFILE)
        names = sorted({each.name for each in listing.accelerators if each.kind in kinds}) if listing else []
        if listing is not None and self.profile not in names and listing.bundle_for(self.profile) is None:
            raise NotFoundError(
                f"{resolved.publisher}/{resolved.image}@{resolved.version_label} has no profile {self.profile!r}",
                hint=f"there are: {', '.join(names)}" if names else "it has none; leave --profile out",
            )


AS_PREFERRED = AheadWish()


def ahead_options(function: Callable[P, R]) -> Callable[P, R]:
    """`--prefetch`, `--profile`, `--fill`, `--fill-rate`; give their values to `wish`."""
    for option in (
        click.option(
            "--fill-rate",
            metavar="RATE",
            help="Fill with at most so many bytes a second, such as 2M.",
        ),
        click.option(
            "--fill/--no-fill", default=None, help="Fetch all the rest while nobody waits, until the image is complete."
        ),
        click.option("--profile", metavar="NAME", help="Which boot profile is fetched ahead, or none (default: boot)."),
        click.option("--prefetch/--no-prefetch", default=None, help="Fetch what a boot will read before it is read."),
    ):
        function = option(function)
    return function


def wish(*, prefetch: bool | None, profile: str | None, fill: bool | None, fill_rate: str | None) -> AheadWish:
    """The options as given, checked."""
    from oscirc_blockstore.names import check_local_name
    from oscirc_remote.amounts import parse_rate

    if profile is not None:
        check_local_name(profile, "profile")
    if fill is False and fill_rate is not None:
        raise UsageError("--no-fill and --fill-rate contradict each other")
    return AheadWish(
        prefetch=prefetch,
        profile=profile,
        fill=True if fill_rate is not None else fill,
        fill_rate=None if fill_rate is None else parse_rate(fill_rate),
    )
