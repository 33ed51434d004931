"""Whether a line is something that the `oscirc` command takes: its words are parsed by the very commands, and not run."""

import shlex

import click

from oscirc.__main__ import cli


def check(words: list[str]) -> None:
    """Raises what the command would say of these words, which begin behind `oscirc`."""
    command: click.Command = cli
    context = click.Context(cli)
    rest = list(words)
    while isinstance(command, click.Group) and rest and (inner := command.get_command(context, rest[0])):
        command, rest = inner, rest[1:]
        context = click.Context(command, parent=context)
    assert command is not cli, words
    with command.make_context(command.name, rest) as made:
        assert not isinstance(command, click.Group) or not made.args, words


def check_line(line: str) -> None:
    words = shlex.split(line, comments=True)
    assert words[0].rpartition("/")[2] == "oscirc", line
    check(words[1:])
