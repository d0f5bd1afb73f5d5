"""The `apn` command as a typer group, in which only the command that runs is imported."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from apn.cli import Command


def run_root(commands: Mapping[str, "Command"], arguments: Sequence[str]) -> None:
    """Parses the arguments, then imports and runs the command that they name."""
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    root = typer.Typer(
        help="Tell AI-generated images from photographs with the Artifact Purification Network.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    root.callback()(_root)
    for name, command in commands.items():
        if find_spec(command.module) is None:
            continue
        if name == wanted and not command.plain:
            _add(root, name, command)
        else:
            root.command(name, help=command.help)(_not_imported)
    try:
        root(arguments, prog_name="apn")
    except SystemExit as stopped:
        # Typer makes a silent exit of Ctrl-C; how the command line ends after it is said in one place (apn/cli.py).
        if isinstance(stopped.__context__, typer.Exit) and isinstance(stopped.__context__.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from stopped
        raise


def _add(root: typer.Typer, name: str, command: "Command") -> None:
    target = command.load()
    if isinstance(target, typer.Typer):
        root.add_typer(target, name=name, help=command.help)
    else:
        root.command(name, help=_paragraphs(target.__doc__ or ""))(target)


def _paragraphs(docstring: str) -> str:
    """Each on one line, for the terminal to break: typer would keep the source's breaks in all but the first."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


def _not_imported() -> None:
    raise AssertionError("a command ran that the arguments do not name first")


def _version(wanted: bool) -> None:
    if wanted:
        from apn.version import __version__

        typer.echo(f"apn {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
