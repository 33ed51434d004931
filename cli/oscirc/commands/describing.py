"""`oscirc describe`: what is said of an image, changed without a new version. Signs with a key that stays here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.describing import about_options
from oscirc.options import json_option, key_option, passphrase_file_option, token_file_option

if TYPE_CHECKING:
    from oscirc.describing import Say


@click.command()
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE")
@about_options
@key_option
@passphrase_file_option
@token_file_option
@json_option
def describe(
    reference: str,
    *,
    say: Say | None,
    key: str,
    passphrase_file: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Say what a released image is, for its page and for searches. What is not given stays as it was.

    \b
    Example:
      oscirc describe alice/debian --title 'Debian 12' --readme README.md --end-of-life 12=2028-06-30 --key alice
    """
    from oscirc import composition
    from oscirc.publishing_text import say_change
    from oscirc_blockstore.errors import UsageError
    from oscirc_publisher import changing

    if say is None:
        raise UsageError("say something of it: --title, --summary, --readme, --licence, --homepage, --kind, …")
    wanted = composition.parse_image_reference(reference)
    with composition.signatory(wanted, key, passphrase_file, token_file) as signatory:
        released = changing.describe(signatory, wanted.image, say)
    say_change(released, f"what is said of {wanted.publisher}/{wanted.image} is signed", as_json=as_json)
