# SPDX-License-Identifier: Apache-2.0
"""The click group behind `skerry`, and the outermost handler that turns whatever happens into an exit code."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches

import click
from click.shell_completion import CompletionItem

from skerry import __version__
from skerry.cli.exit_codes import ExitCode, exit_code
from skerry.cli.failure import Failure, wants_json
from skerry.cli.verbs import VERBS, help_text
from skerry.errors import MissingExtra, SkerryError, UsageError

_EXTRA_OF = {
    **dict.fromkeys(("litestar", "sqlalchemy", "alembic", "uvicorn", "joserfc", "aiosqlite", "psycopg"), "hub"),
    **dict.fromkeys(("numpy", "onnxruntime", "httptools", "uvloop"), "ort"),
    "ai_edge_litert": "litert",
    **dict.fromkeys(("onnx", "sklearn", "skl2onnx"), "demo"),
}


class ReaderGone(Exception):
    """A BrokenPipeError on its way past click, which would swallow it and exit with 1."""


class LazyGroup(click.Group):
    """Knows its verbs from the table and imports a verb's module only when that verb is called."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        verb = VERBS.get(cmd_name)
        return load(verb.module) if verb else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = get_close_matches(args[0], VERBS, n=2)
            raise click.UsageError(
                f"there is no verb {args[0]}" + (f"; did you mean {' or '.join(near)}?" if near else "")
            )
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From the table, without loading every verb for its help."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(v.name, help=v.help) for v in VERBS.values() if v.name.startswith(incomplete)]

    def get_help(self, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        return help_text().rstrip("\n")


def load(module: str) -> click.Command:
    command = importlib.import_module(module).command
    if not isinstance(command, click.Command):
        raise TypeError(module)
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="skerry", message="%(prog)s %(version)s")
def program() -> None:
    """Run, update and govern AI models on fleets of edge devices."""


def run(arguments: Sequence[str], *, debug: bool = False, obj: object = None) -> int:
    """Run one command line and return its exit code. `obj` replaces the real world (`cli.world.World`) in tests.

    Raises BrokenPipeError when nobody reads stdout any more, and nothing else.
    """
    try:
        result = program.main(list(arguments), prog_name="skerry", standalone_mode=False, obj=obj)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return ExitCode.INTERRUPTED
    except ReaderGone as error:
        raise BrokenPipeError from error  # whoever owns the process's stdout settles that
    except Exception as error:  # noqa: BLE001 - the outermost loop of the program
        return _failed(error, arguments, debug=debug)
    return result if isinstance(result, int) else ExitCode.OK


def _failed(error: Exception, arguments: Sequence[str], *, debug: bool) -> int:
    if isinstance(error, click.ClickException):
        failure, code = _usage_failure(error), error.exit_code
    elif isinstance(error, ModuleNotFoundError) and _package(error) not in {"", "skerry"}:
        missing = MissingExtra(feature="this command", extra=_EXTRA_OF.get(_package(error), "cli"))
        failure, code = Failure.of(missing), int(exit_code(missing))
    elif isinstance(error, SkerryError):
        failure, code = Failure.of(error), int(exit_code(error))
    else:
        failure, code = _unexpected(error), int(ExitCode.ERROR)
    if debug:
        traceback.print_exception(error)
    click.echo(failure.json() if wants_json(arguments) else failure.text(), err=True)
    return code


def _usage_failure(error: click.ClickException) -> Failure:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "skerry"
    return Failure(code=UsageError.code, message=error.format_message(), hint=f"see `{path} --help`")


def _package(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]


def _unexpected(error: Exception) -> Failure:
    message = f"unexpected {type(error).__name__}: {error}"
    hint = "this is a defect in Skerry; add --debug to see where, and please report it"
    return Failure(code=SkerryError.code, message=message, hint=hint)
