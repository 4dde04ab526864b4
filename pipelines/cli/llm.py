"""Commands `dsmoe llm serve` and `dsmoe llm check`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from pipelines.cli.language_model import LlmModelOption, LlmOption
from pipelines.cli.terminal import TerminalReporter, line

app = typer.Typer(help="Language model for class descriptions.", no_args_is_help=True)
THINKING_TOKENS = 1024
"""Recommended reasoning budget: enough to compare a class with its siblings."""


class EngineChoice(StrEnum):
    """Inference servers for language models."""

    VLLM = "vllm"
    VLLM_CPU = "vllm-cpu"


class LoadFormat(StrEnum):
    """How the weights are loaded."""

    AUTO = "auto"
    DUMMY = "dummy"


ServePortOption = Annotated[
    int | None,
    typer.Option(
        "--port", min=1, max=65535, help="Port on this machine; default: 8000, or the next free one."
    ),
]


@app.command("serve")
def serve(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="DIR|NAME",
            help="Folder of a model, or its name on the hub. [default: DeepSeek-R1-Distill-Qwen-1.5B]",
        ),
    ] = None,
    engine: Annotated[
        EngineChoice | None,
        typer.Option("--engine", help="Inference server; default: vllm with a GPU, else vllm-cpu."),
    ] = None,
    port: ServePortOption = None,
    load_format: Annotated[
        LoadFormat, typer.Option("--load-format", help="dummy: random weights, to test a machine.")
    ] = LoadFormat.AUTO,
) -> None:
    """Serve a language model on this machine until Ctrl-C; the environment of its engine is built once.

    Example: `dsmoe llm serve --model models/qwen --port 8001`
    """
    from annotate import environments
    from dsmoe_core.errors import LanguageModelError
    from dsmoe_core.loopback import LOOPBACK, free_port
    from pipelines.services.language_model.engines import ENGINES, default_engine
    from pipelines.services.language_model.server import running_engine, terminate_as_interrupt
    from pipelines.services.language_model.source import DEFAULT_MODEL, find_model_source
    from pipelines.settings.environment import Environment, subprocess_environment

    folder = Environment.read().environments
    source = find_model_source(model or DEFAULT_MODEL, load_format.value)
    port = free_port(port or 8000, "the language model", LanguageModelError, fixed=port is not None)
    name = engine.value if engine else default_engine()
    chosen = ENGINES[name]
    try:
        with terminate_as_interrupt(), TerminalReporter() as progress:
            python = environments.ensure(chosen.locked, folder, progress.status) / "bin" / "python"
            command = chosen.command(python, source, port, LOOPBACK, load_format.value)
            offline = {"HF_HUB_OFFLINE": "1"} if source.is_local else {}
            variables = subprocess_environment({**chosen.variables, **offline})
            with running_engine(command, variables, port=port, log=folder / f"{name}-{port}.log") as served:
                served.wait_until_ready(progress.status)
                progress.line(
                    f"{source.name} answers at http://{LOOPBACK}:{port}/v1 ({name}); Ctrl-C stops it"
                )
                thinks = f" DSMOE_LLM_THINKING_TOKENS={THINKING_TOKENS}" if source.reasons else ""
                where = f"DSMOE_LLM_URL=http://{LOOPBACK}:{port}/v1 DSMOE_LLM_MODEL={source.name}"
                progress.line(f"export {where}{thinks}")
                progress.status("serving")
                served.wait_until_ended()
    except KeyboardInterrupt:
        line("the language model is stopped")
    except LanguageModelError as error:
        for log_line in error.problem.splitlines()[1:]:
            line(log_line, style="dim")
        raise


@app.command("check")
def check(llm: LlmOption = None, model: LlmModelOption = None) -> None:
    """Check with one request whether a language model can draft class descriptions.

    Example: `dsmoe llm check --llm http://127.0.0.1:8000/v1`
    """
    from pipelines.services.language_model.check import check_language_model
    from pipelines.services.language_model.connect import connect_language_model
    from pipelines.settings.environment import Environment

    environment = Environment.read()
    with TerminalReporter() as progress:
        progress.status("asking the language model")
        client = connect_language_model(environment, llm, model, on_token=progress.token_progress)
        result = check_language_model(client)
    line(f"reachable: {llm or environment.llm_url}")
    line(f"model: {result.model}")
    line(f"JSON-schema answer: valid ({result.answer.model_dump_json()})")
    budget = "" if environment.llm_thinking_tokens else "; with vLLM, DSMOE_LLM_THINKING_TOKENS limits it"
    line(f"reasoning: {f'separate from the answer{budget}' if result.reasoned else 'none'}")
    line(f"cost: {result.usage}")
