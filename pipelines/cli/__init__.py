"""The command line, ``dsmoe``: one module a group of commands; heavy imports wait inside the commands.

A mistake of the user's is one line and exit 2, a bug of ours a traceback and exit 1, Ctrl-C is exit 130.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import typer

from dsmoe_core.atomic import disk_full_error
from dsmoe_core.errors import DISK_FULL_ERRNOS, DsmoeError
from pipelines.cli import (
    backend,
    benchmark,
    classes,
    data,
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
    help="A defect detector that learns from what annotators correct.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init.init)
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
app.command("pretrain")(pretrain.pretrain)
app.add_typer(weights.app, name="weights")


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    try:
        app(args=list(arguments), prog_name="dsmoe")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
        if code == 130:
            _say("interrupted; run the same command to go on")
        return code
    except KeyboardInterrupt:
        _say("interrupted; run the same command to go on")
        return 130
    except DsmoeError as error:
        _say(f"error: {one_line(error)}")
        return error.exit_code
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            _say(f"error: {one_line(disk_full_error(error.filename or 'a file', error))}")
            return 2
        traceback.print_exc()
        return 1
    except Exception:  # noqa: BLE001  # a bug of ours: shown whole, with the exit code that says so
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


def one_line(error: DsmoeError) -> str:
    """Problem and remedy on one line; where the problem has more lines, such as a log, the first."""
    first = error.problem.strip().splitlines()[0].rstrip(".: ")
    return f"{first}. {' '.join(error.remedy.split())}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # plain on purpose: no wrapping, no markup
