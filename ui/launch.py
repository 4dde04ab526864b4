"""Start the page as a server of its own, for the command line."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from dsmoe_core.errors import PrerequisiteError, ServiceError
from dsmoe_core.loopback import LOOPBACK, need_free_port

PAGE = Path(__file__).with_name("app.py")


def serve(workspace: Path, port: int) -> None:
    """Serve the pages of a workspace on 127.0.0.1 until Ctrl-C.

    Raises:
        ServiceError: the port is in use, or Streamlit ended by itself.
        PrerequisiteError: Streamlit is not installed.
    """
    need_free_port(port, "the page", ServiceError)
    server = subprocess.Popen(command(workspace, port), stdin=subprocess.DEVNULL)
    try:
        code = server.wait()
    except KeyboardInterrupt:
        server.terminate()  # it has got the Ctrl-C as well; this is for a signal sent to us alone
        server.wait()
        return
    finally:
        if server.poll() is None:
            server.kill()
    if code:
        raise ServiceError(f"the page's server ended with code {code}", "Read what it printed above.")


def command(workspace: Path, port: int) -> list[str]:
    """What starts the server: on loopback and without telemetry, whatever the user's Streamlit settings say.

    Raises:
        PrerequisiteError: Streamlit is not installed.
    """
    if find_spec("streamlit") is None:
        raise PrerequisiteError(
            "the package streamlit is not installed", "Install the extra: `uv pip install 'dsmoe[ui]'`."
        )
    options = {
        "server.address": LOOPBACK,
        "server.port": str(port),
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
    }
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "streamlit", "run", str(PAGE), *flags, "--", str(workspace)]
