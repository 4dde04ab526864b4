"""Starts the Streamlit server of the UI."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from dsmoe_core.errors import PrerequisiteError, ServiceError
from dsmoe_core.loopback import LOOPBACK, free_port

APP = Path(__file__).with_name("app.py")


def serve(workspace: Path, port: int, *, fixed_port: bool = True) -> None:
    """Serve the pages of a workspace on 127.0.0.1 until Ctrl-C.

    Args:
        port: port of the page.
        fixed_port: no other port is used where this one is taken; otherwise the next free one is.

    Raises:
        ServiceError: the port is taken.
        PrerequisiteError: Streamlit is not installed.
    """
    if find_spec("streamlit") is None:
        raise PrerequisiteError(
            "the package streamlit is not installed", "Install the extra: `pip install 'dsmoe[ui]'`."
        )
    port = free_port(port, "the page", ServiceError, fixed=fixed_port)
    from streamlit.web import cli

    # In this process, so that the server ends with it.
    cli.main(arguments(workspace, port), prog_name="streamlit", standalone_mode=False)


def arguments(workspace: Path, port: int) -> list[str]:
    """Arguments of Streamlit; they override the user's Streamlit settings: loopback only, no telemetry."""
    options = {
        "server.address": LOOPBACK,
        "server.port": str(port),
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
        "runner.magicEnabled": "false",  # it would print docstrings of the script on the page
    }
    flags = [argument for name, value in options.items() for argument in (f"--{name}", value)]
    return ["run", str(APP), *flags, "--", str(workspace)]
