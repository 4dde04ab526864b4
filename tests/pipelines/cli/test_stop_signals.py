"""Signals that ask a command to stop, sent to this process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from pipelines.cli.stop_signals import STOP_SIGNALS, StopSignals


@pytest.fixture
def stop() -> Iterator[StopSignals]:
    stop = StopSignals()
    with stop.handled():
        yield stop


@pytest.mark.parametrize("sign", STOP_SIGNALS)
def test_signal_is_remembered_until_the_check(stop: StopSignals, sign: signal.Signals) -> None:
    stop.check()
    os.kill(os.getpid(), sign)
    time.sleep(0.01)
    with pytest.raises(KeyboardInterrupt):
        stop.check()


def test_second_signal_raises_at_once(stop: StopSignals) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_earlier_signal_ends_an_interruptible_block_before_it_begins(stop: StopSignals) -> None:
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stop.interruptible():
        pytest.fail("the block was entered")


def test_signal_ends_a_wait(stop: StopSignals) -> None:
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        stop.sleep(30)
    assert time.monotonic() - started < 10


def test_signal_after_a_wait_is_remembered(stop: StopSignals) -> None:
    assert stop.sleep(0.01) is False
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        stop.check()


def test_earlier_handlers_are_set_again() -> None:
    before = [signal.getsignal(sign) for sign in STOP_SIGNALS]
    with StopSignals().handled():
        assert [signal.getsignal(sign) for sign in STOP_SIGNALS] != before
    assert [signal.getsignal(sign) for sign in STOP_SIGNALS] == before
