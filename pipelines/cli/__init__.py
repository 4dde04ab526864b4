"""The command line ``dsmoe``: one module for each group of commands.

Modules import torch and other slow packages inside the commands only, so that ``--help`` is fast. Exit codes:
2 with a one-line message for a user's mistake, 1 with a traceback for a bug, 130 for Ctrl-C. A path that the
operating system refuses (permissions, a file in place of a folder, a full disk) is a user's mistake.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import typer

from dsmoe_core.atomic import disk_full_error
from dsmoe_core.errors import DISK_FULL_ERRNOS, DsmoeError
from dsmoe_core.paths import PATH_ERRNOS, path_error
from dsmoe_core.plain_text import on_one_line, visible
from pipelines.cli import (
    add,
    backend,
    benchmark,
    classes,
    data,
    data_export,
    data_versions,
    demo,
    evaluate,
    explain,
    init,
    label_errors,
    llm,
    models,
    pretrain,
    refine,
    rounds,
    runtimes,
    schedule,
    services,
    simulate,
    train,
    watch,
    weights,
)

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Base class of typer's errors about the command line; typer has no public name for it."""

app = typer.Typer(
    name="dsmoe",
    help="Active-learning annotation toolkit for industrial defect detection.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init.init)
app.command("add")(add.add)
app.command("status")(rounds.status)
app.add_typer(rounds.app, name="round")
rounds.app.command("approve")(watch.approve)
app.command("watch")(watch.watch)
app.command("annotate")(rounds.annotate)
app.command("train")(train.train)
app.command("distill")(train.distill)
app.command("demo")(demo.demo)
app.command("evaluate")(evaluate.evaluate)
app.command("explain")(explain.explain)
app.command("label-errors")(label_errors.label_errors)
app.add_typer(benchmark.app, name="benchmark")
app.command("simulate")(simulate.simulate)
app.command("export")(runtimes.export)
app.command("predict")(runtimes.predict)
app.add_typer(services.app, name="services")
app.add_typer(schedule.app, name="schedule")
app.command("backend")(backend.backend)
app.command("review")(services.review)
app.command("ui")(services.ui)
app.add_typer(classes.app, name="classes")
classes.app.command("facts")(refine.facts)
classes.app.command("refine")(refine.refine)
app.add_typer(llm.app, name="llm")
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
data.app.command("export")(data_export.export)
data.app.command("versions")(data_versions.versions)
data.app.command("diff")(data_versions.diff)
app.command("pretrain")(pretrain.pretrain)
app.add_typer(weights.app, name="weights")


@cache
def _commands() -> Callable[..., Any]:
    """All commands with their options; reading them from the functions takes a third of a second."""
    return typer.main.get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    try:
        code = _commands()(args=list(arguments), prog_name="dsmoe", standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = 130
    except UsageError as error:
        return _usage_error(error)
    except DsmoeError as error:
        return _error(error)
    except Exception as error:  # noqa: BLE001  # a bug, unless the user can correct its cause
        known = _user_error(error)
        if known is not None:
            return _error(known)
        traceback.print_exc()
        return 1
    if code == 130:
        _print_error("interrupted; run the same command again to resume")
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # File names may have characters that the terminal's encoding lacks.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def one_line(error: DsmoeError) -> str:
    """First line of the problem, and the remedy, on one line."""
    first = error.problem.strip().splitlines()[0].rstrip(".: ")
    return f"{first}. {' '.join(error.remedy.split())}"


def _user_error(error: Exception) -> DsmoeError | None:
    """An error of the system as one that the user can correct; None for a bug."""
    # Python 3.13 raises an OSError for it.
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):
        return path_error(OSError(errno.ELOOP, os.strerror(errno.ELOOP)), str(error))
    if not isinstance(error, OSError):
        return None
    if error.errno in DISK_FULL_ERRNOS:
        return disk_full_error(error.filename or "a file", error)
    return path_error(error) if error.errno in PATH_ERRNOS else None


def _error(error: DsmoeError) -> int:
    """Print an error of the user and return the exit code."""
    _print_error(f"error: {one_line(error)}")
    for detail in error.details:
        _print_error(f"  {on_one_line(detail)}")
    return error.exit_code


def _usage_error(error: Any) -> int:
    """Print an error of the command line on one line and return the exit code."""
    if type(error).__name__ != "NoArgsIsHelpError":  # that one has printed the help
        problem = " ".join(error.format_message().split()).rstrip(".")
        command = error.ctx.command_path if error.ctx else "dsmoe"
        _print_error(f"error: {problem}. See `{command} --help`.")
    return int(error.exit_code)


def _print_error(line: str) -> None:
    print(visible(line), file=sys.stderr, flush=True)  # noqa: T201  # not rich: no wrapping, no markup
