"""Start the page as a server of its own: ``python -m ui.launch WORKSPACE PORT``.

The command line does just that, because nothing below this package may import it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from dsmoe_core.errors import DsmoeError, PrerequisiteError, ServiceError
from dsmoe_core.loopback import LOOPBACK, need_free_port

PAGE = Path(__file__).with_name("app.py")


def serve(workspace: Path, port: int) -> None:
    """Serve the pages of a workspace on 127.0.0.1 until Ctrl-C.

    Raises:
        ServiceError: the port is in use.
        PrerequisiteError: Streamlit is not installed.
    """
    if find_spec("streamlit") is None:
        raise PrerequisiteError(
            "the package streamlit is not installed", "Install the extra: `pip install 'dsmoe[ui]'`."
        )
    need_free_port(port, "the page", ServiceError)
    from streamlit.web import cli

    # In this process, so that whatever ends us ends the page.
    cli.main(arguments(workspace, port), prog_name="streamlit", standalone_mode=False)


def arguments(workspace: Path, port: int) -> list[str]:
    """Streamlit's arguments: on loopback, no telemetry, whatever the user's Streamlit settings say."""
    options = {
        "server.address": LOOPBACK,
        "server.port": str(port),
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
    }
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    return ["run", str(PAGE), *flags, "--", str(workspace)]


def main(words: Sequence[str]) -> int:
    """Serve, and return the exit code: 2 for what the user can put right."""
    folder, port = words
    try:
        serve(Path(folder).expanduser().resolve(), int(port))
    except DsmoeError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"dsmoe: {error}", markup=False)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
