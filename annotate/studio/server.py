"""Runs the embedded Label Studio server of a workspace: a detached process on the loopback address."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from annotate.environments import make_folder, process_lock, require_free_space
from annotate.logs import log_tail
from annotate.studio import environment
from annotate.studio.api import Api
from annotate.studio.protocol import Connection
from dsmoe_core.errors import StudioError
from dsmoe_core.loopback import LOOPBACK, free_port
from dsmoe_core.progress import StatusCallback

DATA_BYTES = 200_000_000
"""Required free disk space. A new database and its logs take 20 MB and grow with every round."""
_USERNAME = "annotator@dsmoe.local"
_STOP_SECONDS = 15.0
_PORT_RELEASE_SECONDS = 2.0  # time until the port of a killed server is free


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """State of the server of a data folder.

    Attributes:
        running: its process is alive.
        healthy: it also answers the health check.
        url: its current or last address; None if it was never started.
    """

    running: bool
    healthy: bool
    pid: int | None
    url: str | None
    log: Path


class LabelStudioServer:
    """Starts, finds and stops the Label Studio server of one data folder.

    Args:
        data_dir: folder for database, credentials and log; one server per folder.
        document_root: the images must be in a *sub-folder* of this folder.
        environments: folder in which Label Studio's own Python environment is built.
        port: port on the loopback address. A running server keeps its port.
        fixed_port: no other port is used where this one is taken; otherwise the next free one is.
        start_timeout: seconds to wait for the first response; 20 to 40 are usual with a new database.
    """

    def __init__(
        self,
        data_dir: Path,
        document_root: Path,
        environments: Path,
        port: int = 8080,
        *,
        fixed_port: bool = True,
        start_timeout: float = 240.0,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.document_root = document_root.resolve()
        self.environments = environments.absolute()
        self.port = port
        self._fixed_port = fixed_port
        self.log = self.data_dir / "label-studio.log"
        self._credentials_file = self.data_dir / "credentials.json"
        self._pid_file = self.data_dir / "server.pid"
        self._port_file = self.data_dir / "server.port"
        self._start_timeout = start_timeout

    def start(self, progress: StatusCallback | None = None) -> Connection:
        """Start the server unless it runs, and wait until it is healthy.

        May be interrupted and repeated at any time, also by two processes at once.

        Raises:
            StudioError: the port is taken, the server ended or hung while starting, or it refuses the
                credentials.
            PrerequisiteError: the environment cannot be built, or the disk is full.
        """
        on_status = progress or (lambda _: None)
        make_folder(self.data_dir)
        self.data_dir.chmod(0o700)  # the database holds the token too
        with process_lock(self.data_dir / "server.lock", on_status):
            if self._pid() is None:
                self.port = self._free_port()
                require_free_space(self.data_dir, DATA_BYTES, "Label Studio's database")
                program = environment.ensure(self.environments, on_status)
                self._start(program, self._credentials())
                on_status("starting Label Studio")
            connection = self._connection(self._credentials())
            self._wait_until_healthy(connection, on_status)
            return connection

    def stop(self) -> bool:
        """Stop the server; returns whether it was running."""
        pid = self._pid()
        if pid is None:
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(pid, number)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + _STOP_SECONDS
            while self._pid() is not None and time.monotonic() < deadline:
                time.sleep(0.1)
        self._pid_file.unlink(missing_ok=True)
        return True

    def status(self) -> ServerStatus:
        """State of the server. Starts nothing."""
        pid = self._pid()
        url = f"http://{LOOPBACK}:{self._last_port()}" if self._port_file.exists() else None
        healthy = pid is not None and url is not None and Api.is_up(url)
        return ServerStatus(pid is not None, healthy, pid, url, self.log)

    def _start(self, program: Path, credentials: Mapping[str, str]) -> None:
        self._pid_file.unlink(missing_ok=True)
        self._port_file.write_text(str(self.port))
        command = [
            str(program),
            "start",
            "--no-browser",
            "--internal-host",
            LOOPBACK,
            "--port",
            str(self.port),
        ]
        command += ["--data-dir", str(self.data_dir)]
        # Both the shell and this process write the pid file (atomically, by renaming). If either is killed,
        # the next process still finds the server.
        start = 'echo $$ >"$1.sh" && mv "$1.sh" "$1" && cd "$2" && shift 2 && exec "$@"'
        detached = ["/bin/sh", "-c", start, "sh", str(self._pid_file), str(self.data_dir), *command]
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            pid = os.posix_spawn(
                detached[0],
                detached,
                self._environment(credentials),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,  # Ctrl-C in the terminal must not reach it
            )
        finally:
            os.close(log)
        temporary = self._pid_file.with_suffix(".new")
        temporary.write_text(str(pid))
        temporary.replace(self._pid_file)

    def _environment(self, credentials: Mapping[str, str]) -> dict[str, str]:
        """Environment variables of the server.

        Nothing is inherited: Label Studio also reads unprefixed HOST, PORT, USERNAME and PASSWORD.
        """
        return {
            "PATH": os.defpath,
            "HOME": str(self.data_dir),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir),
            "LABEL_STUDIO_USERNAME": credentials["username"],
            "LABEL_STUDIO_PASSWORD": credentials["password"],
            "LABEL_STUDIO_USER_TOKEN": credentials["token"],
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self.document_root),
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            # Both are needed for an ML backend on this machine.
            "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "false",
            "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
        }

    def _wait_until_healthy(self, connection: Connection, on_status: StatusCallback) -> None:
        started = time.monotonic()
        while not Api.is_up(connection.url):
            seconds = time.monotonic() - started
            if self._pid() is None:
                raise self._start_error("ended while it was starting", connection)
            if seconds > self._start_timeout:
                raise self._start_error(f"did not respond within {seconds:.0f} s", connection)
            on_status(f"starting Label Studio ({seconds:.0f} s)")
            time.sleep(0.5)
        with Api(connection).client("sign in") as sdk:
            sdk.users.whoami()

    def _start_error(self, problem: str, connection: Connection) -> StudioError:
        tail = log_tail(self.log)
        for secret in (connection.password, connection.token):
            tail = tail.replace(secret, "***")
        return StudioError(
            f"Label Studio {problem}. The end of its log:\n{tail}\n",
            f"Read the whole log in {self.log}, then start it again.",
        )

    def _free_port(self) -> int:
        """A port that is free now. Label Studio would use the next one without saying so."""
        deadline = time.monotonic() + _PORT_RELEASE_SECONDS
        while True:
            last = time.monotonic() > deadline
            try:
                return free_port(self.port, "Label Studio", StudioError, fixed=self._fixed_port or not last)
            except StudioError:
                if last:
                    raise
            time.sleep(0.1)

    def _credentials(self) -> dict[str, str]:
        """Credentials of the server, created once. The file is readable by its owner only."""
        if self._credentials_file.exists():
            try:
                stored = json.loads(self._credentials_file.read_text())
                return {name: str(stored[name]) for name in ("username", "password", "token")}
            except (ValueError, KeyError, TypeError) as error:
                raise StudioError(
                    f"{self._credentials_file} is damaged; expected JSON with username, password and token",
                    "Restore it from a backup, or delete the whole folder to start with an empty database.",
                ) from error
        credentials = {
            "username": _USERNAME,
            "password": secrets.token_urlsafe(12),
            "token": secrets.token_hex(20),
        }
        temporary = self._credentials_file.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(credentials, file)
        temporary.replace(self._credentials_file)
        return credentials

    def _connection(self, credentials: Mapping[str, str]) -> Connection:
        return Connection(
            url=f"http://{LOOPBACK}:{self._last_port()}",
            username=credentials["username"],
            password=credentials["password"],
            token=credentials["token"],
            document_root=self.document_root,
        )

    def _last_port(self) -> int:
        return int(self._port_file.read_text())

    def _pid(self) -> int | None:
        """Id of the server's process; None if it is not running. Checks that the id was not reused."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if _alive(pid) and _is_server(pid, str(self.data_dir)) else None


def _alive(pid: int) -> bool:
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:  # a child process: reap it
            return False
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _is_server(pid: int, data_dir: str) -> bool:
    """Whether a process has the data folder in its command line and is not a zombie.

    A process has an empty command line for a moment during exec and while it ends. It then counts as the
    server.
    """
    proc = Path("/proc") / str(pid)
    if Path("/proc/self").exists():
        try:
            state = (proc / "stat").read_text().rpartition(")")[2].split()[0]
            command = (proc / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            return False
        return state not in "ZX" and (not command or data_dir in command)
    listed = subprocess.run(
        ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return data_dir in listed.stdout
