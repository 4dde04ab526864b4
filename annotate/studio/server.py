"""A Label Studio of our own: detached, on loopback, its data in the workspace, its secrets 0600."""

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
from dsmoe_core.loopback import LOOPBACK, check_port_is_free
from dsmoe_core.progress import StatusCallback

DATA_BYTES = 200_000_000  # a fresh database and its logs take 20 MB; below this it fails at the next round
_USERNAME = "annotator@dsmoe.local"
_STOP_S = 15.0
_RELEASE_S = 2.0  # a server that was killed a moment ago lets go of its port only now


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """Whether the server of a data folder runs.

    Attributes:
        running: its process is alive.
        healthy: it also says that it is up.
        url: where it is, or was last.
    """

    running: bool
    healthy: bool
    pid: int | None
    url: str | None
    log: Path


class LabelStudioServer:
    """Starts, finds and stops the Label Studio that belongs to one data folder.

    Args:
        data_dir: its database, credentials and log; one server a folder.
        document_root: the images it may show lie in a *sub-folder* of this one.
        environments: where Label Studio's own Python environment is, or will be built.
        port: on loopback. A server that runs already keeps the port it has.
        start_timeout: seconds to wait for the first answer; 20 to 40 are usual on a fresh database.
    """

    def __init__(
        self,
        data_dir: Path,
        document_root: Path,
        environments: Path,
        port: int = 8080,
        *,
        start_timeout: float = 240.0,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.document_root = document_root.resolve()
        self.environments = environments.absolute()
        self.port = port
        self.log = self.data_dir / "label-studio.log"
        self._credentials_file = self.data_dir / "credentials.json"
        self._pid_file = self.data_dir / "server.pid"
        self._port_file = self.data_dir / "server.port"
        self._start_timeout = start_timeout

    def start(self, progress: StatusCallback | None = None) -> Connection:
        """Start it unless it runs, wait until it healthy, and say where it is.

        May be killed and called again at any moment, also by two processes at once.

        Raises:
            StudioError: the port is in use, it ended or hung while starting, or it refuses our credentials.
            PrerequisiteError: its environment cannot be built, or the disk is full.
        """
        on_status = progress or (lambda _: None)
        make_folder(self.data_dir)
        self.data_dir.chmod(0o700)  # the database holds the token too
        with process_lock(self.data_dir / "server.lock", on_status):
            if self._pid() is None:
                self._need_free_port()
                require_free_space(self.data_dir, DATA_BYTES, "Label Studio's database")
                program = environment.ensure(self.environments, on_status)
                self._start(program, self._credentials())
                on_status("starting Label Studio")
            connection = self._connection(self._credentials())
            self._wait(connection, on_status)
            return connection

    def stop(self) -> bool:
        """Stop it; says whether it ran."""
        pid = self._pid()
        if pid is None:
            return False
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(pid, sign)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + _STOP_S
            while self._pid() is not None and time.monotonic() < deadline:
                time.sleep(0.1)
        self._pid_file.unlink(missing_ok=True)
        return True

    def status(self) -> ServerStatus:
        """Whether it runs and healthy, without starting anything."""
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
        # Shell and starter both note the pid (whole, by renaming): whichever of them is killed, the next
        # process finds the server.
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
                setsid=True,  # Ctrl-C in our terminal must not reach it
            )
        finally:
            os.close(log)
        beside = self._pid_file.with_suffix(".new")
        beside.write_text(str(pid))
        beside.replace(self._pid_file)

    def _environment(self, credentials: Mapping[str, str]) -> dict[str, str]:
        """Made from nothing: Label Studio also reads unprefixed HOST, PORT, USERNAME and PASSWORD."""
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
            # Our back end is on this machine; with only one of the two Label Studio refuses it all the same.
            "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "false",
            "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
        }

    def _wait(self, connection: Connection, on_status: StatusCallback) -> None:
        started = time.monotonic()
        while not Api.is_up(connection.url):
            seconds = time.monotonic() - started
            if self._pid() is None:
                raise self._failed("ended while it was starting", connection)
            if seconds > self._start_timeout:
                raise self._failed(f"did not answer within {seconds:.0f} s", connection)
            on_status(f"starting Label Studio ({seconds:.0f} s)")
            time.sleep(0.5)
        with Api(connection).client("sign us in") as sdk:
            sdk.users.whoami()

    def _failed(self, what: str, connection: Connection) -> StudioError:
        last = log_tail(self.log)
        for secret in (connection.password, connection.token):
            last = last.replace(secret, "***")
        return StudioError(
            f"Label Studio {what}. The end of its log:\n{last}\n",
            f"Read the whole log in {self.log}, then start it again.",
        )

    def _need_free_port(self) -> None:
        """Checked by us: Label Studio itself would quietly take the next port."""
        deadline = time.monotonic() + _RELEASE_S
        while True:
            try:
                return check_port_is_free(self.port, "Label Studio", StudioError)
            except StudioError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def _credentials(self) -> dict[str, str]:
        """Made once. Whoever may read this file may sign in, so nobody else may read it."""
        if self._credentials_file.exists():
            try:
                kept = json.loads(self._credentials_file.read_text())
                return {name: str(kept[name]) for name in ("username", "password", "token")}
            except (ValueError, KeyError, TypeError) as error:
                raise StudioError(
                    f"{self._credentials_file} is damaged; expected JSON with username, password and token",
                    "Put it back from a copy, or remove the whole folder and start with nothing.",
                ) from error
        made = {
            "username": _USERNAME,
            "password": secrets.token_urlsafe(12),
            "token": secrets.token_hex(20),
        }
        beside = self._credentials_file.with_suffix(".new")
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(made, file)
        beside.replace(self._credentials_file)
        return made

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
        """Its process, if it is alive and really ours: numbers are used again after a restart."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if _alive(pid) and _is_ours(pid, str(self.data_dir)) else None


def _alive(pid: int) -> bool:
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:  # our own child: take its exit, or it stays as a zombie
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


def _is_ours(pid: int, mark: str) -> bool:
    """Whether this process was started with that word on its command line, and is no zombie.

    Between two programs (exec), and while it ends, a process has no command line for a moment: it is then
    taken for ours.
    """
    proc = Path("/proc") / str(pid)
    if Path("/proc/self").exists():
        try:
            state = (proc / "stat").read_text().rpartition(")")[2].split()[0]
            command = (proc / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            return False
        return state not in "ZX" and (not command or mark in command)
    listed = subprocess.run(
        ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return mark in listed.stdout
