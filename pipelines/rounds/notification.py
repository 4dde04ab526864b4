"""Notifications of ``dsmoe watch``: each event goes to a webhook, a command or both, without blocking it."""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from dsmoe_core.errors import PrerequisiteError
from pipelines.settings.environment import subprocess_environment
from pipelines.settings.policy import Event, NotifySettings

_THREAD = "dsmoe-notifications"


class _Delivery(NamedTuple):
    settings: NotifySettings
    body: str


def check_packages(settings: NotifySettings) -> None:
    """Check that the webhook can be called.

    Raises:
        PrerequisiteError: it is set, and httpx is not installed.
    """
    if settings.webhook_url is not None and find_spec("httpx") is None:
        raise PrerequisiteError(
            "notify.webhook_url is set, and the package httpx is not installed",
            "Install the extra: `pip install 'dsmoe[annotate]'`.",
        )


class Notifier:
    """Sends events in a thread of its own, in their order.

    Args:
        report: called with one line for each delivery that failed; the line has no address.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._waiting: queue.Queue[_Delivery] = queue.Queue()
        self._thread: threading.Thread | None = None

    def send(self, settings: NotifySettings, event: Event, content: Mapping[str, Any]) -> None:
        """Send an event, if the settings have it; returns at once.

        Args:
            content: JSON values, sent with the name of the event.
        """
        if event not in settings.events or not (settings.webhook_url or settings.command):
            return
        if self._thread is None:
            logging.getLogger("httpx").addFilter(_is_not_ours)
            self._thread = threading.Thread(target=self._run, name=_THREAD, daemon=True)
            self._thread.start()
        self._waiting.put(_Delivery(settings, json.dumps({"event": event, **content})))

    def close(self, timeout_s: float) -> None:
        """Wait until all events are sent, at most so long."""
        deadline = time.monotonic() + timeout_s
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)

    def _run(self) -> None:
        while True:
            delivery = self._waiting.get()
            try:
                for name, deliver in (("webhook", _post), ("command", _execute)):
                    problem = deliver(delivery)
                    if problem is not None:
                        self._report(f"the notification by {name} failed: {problem}")
            finally:
                self._waiting.task_done()


def _post(delivery: _Delivery) -> str | None:
    """Send a delivery to the webhook; returns what went wrong, without the address."""
    url = delivery.settings.webhook_url
    if url is None:
        return None
    try:
        import httpx

        response = httpx.post(
            url.get_secret_value(),
            content=delivery.body,
            headers={"Content-Type": "application/json"},
            timeout=delivery.settings.timeout_s,
        )
    except Exception as error:  # noqa: BLE001  # the message may have the address
        return type(error).__name__
    return None if response.is_success else f"status {response.status_code}"


def _execute(delivery: _Delivery) -> str | None:
    """Start the command with a delivery on stdin; returns what went wrong."""
    command = delivery.settings.command
    if not command:
        return None
    try:
        done = subprocess.run(
            command,
            input=delivery.body.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=delivery.settings.timeout_s,
            check=False,
            env=subprocess_environment({}),
        )
    except subprocess.TimeoutExpired:
        return f"{command[0]} did not end within {delivery.settings.timeout_s:g} s"
    except (OSError, ValueError) as error:
        return f"{command[0]}: {error.strerror if isinstance(error, OSError) else type(error).__name__}"
    return f"{command[0]} exited with {done.returncode}" if done.returncode else None


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Whether a log record is of another thread; httpx logs the address of each request."""
    return record.threadName != _THREAD
