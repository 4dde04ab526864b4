"""The command line ``dsmoe``: one module for each group of commands.

Modules import torch and other slow packages inside the commands only, so that ``--help`` is fast. Exit codes:
2 with a one-line message for a user's mistake, 1 with a traceback for a bug, 130 for Ctrl-C.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import typer

from dsmoe_core.atomic import disk_full_error
from dsmoe_core.errors import DISK_FULL_ERRNOS, DsmoeError
from pipelines.cli import (
    add,
    backend,
    benchmark,
    classes,
    data,
    data_export,
    demo,
    evaluate,
    init,
    llm,
    models,
    pretrain,
    refine,
    rounds,
    runtimes,
    services,
    train,
    weights,
)

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
app.command("annotate")(rounds.annotate)
app.command("train")(train.train)
app.command("demo")(demo.demo)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(benchmark.app, name="benchmark")
app.command("export")(runtimes.export)
app.command("predict")(runtimes.predict)
app.add_typer(services.app, name="services")
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
app.command("pretrain")(pretrain.pretrain)
app.add_typer(weights.app, name="weights")


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    try:
        app(args=list(arguments), prog_name="dsmoe")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
        if code == 130:
            _print_error("interrupted; run the same command again to resume")
        return code
    except KeyboardInterrupt:
        _print_error("interrupted; run the same command again to resume")
        return 130
    except DsmoeError as error:
        _print_error(f"error: {one_line(error)}")
        for detail in error.details:
            _print_error(f"  {' '.join(detail.split())}")
        return error.exit_code
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            _print_error(f"error: {one_line(disk_full_error(error.filename or 'a file', error))}")
            return 2
        traceback.print_exc()
        return 1
    except Exception:  # noqa: BLE001  # a bug: full traceback and exit code 1
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


def one_line(error: DsmoeError) -> str:
    """First line of the problem, and the remedy, on one line."""
    first = error.problem.strip().splitlines()[0].rstrip(".: ")
    return f"{first}. {' '.join(error.remedy.split())}"


def _print_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # not rich: no wrapping, no markup
