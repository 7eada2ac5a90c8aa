"""Stop signals: raised, deferred, raised after the grace, and told apart from a failure."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from phoropter.training.loop.stop_signals import StopRequest, defer_stop, handle_stop_signals, signal_main_thread


def test_every_stop_signal_raises_a_keyboard_interrupt_that_names_it() -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        with pytest.raises(KeyboardInterrupt) as caught, handle_stop_signals():
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert isinstance(caught.value, StopRequest)
        assert caught.value.exit_code == code and caught.value.cause == number.name in str(caught.value)


def test_handlers_are_as_before_afterwards_and_an_inner_context_changes_nothing() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with handle_stop_signals():
        installed = signal.getsignal(signal.SIGTERM)
        with handle_stop_signals():
            assert signal.getsignal(signal.SIGTERM) is installed
        assert signal.getsignal(signal.SIGTERM) is installed
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_handler_of_the_users_own_stays() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with handle_stop_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_deferred_stop_lets_the_block_end_and_is_raised_after_it() -> None:
    steps = []
    with pytest.raises(StopRequest), defer_stop(lambda: steps.append("asked")) as requests:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert requests == [signal.SIGTERM]
        steps.append("ended")
    assert steps == ["asked", "ended"]


def test_a_second_signal_ends_a_deferred_block_at_once() -> None:
    steps = []
    with pytest.raises(StopRequest), defer_stop(lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        steps.append("went on")
    assert not steps


def test_a_block_that_does_not_end_by_itself_is_ended_after_the_grace() -> None:
    steps = []
    with pytest.raises(StopRequest), defer_stop(lambda: None, grace_s=0.05):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
        steps.append("went on")
    assert not steps


def test_a_run_that_fails_after_the_request_is_not_taken_for_a_failure() -> None:
    with pytest.raises(StopRequest) as caught, defer_stop(lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        raise RuntimeError("the network broke")
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(RuntimeError, match="the network broke"), defer_stop(lambda: None):
        raise RuntimeError("the network broke")


def test_no_later_signal_of_the_timer_reaches_who_handles_signals_next() -> None:
    heard: list[int] = []
    with pytest.raises(StopRequest), defer_stop(lambda: None, grace_s=0.1):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        time.sleep(0.2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not heard


def test_a_stop_inside_a_destructor_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Swallows:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    monkeypatch.setattr("phoropter.training.loop.stop_signals.GRACE_S", 0.05)
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: None)
    with pytest.raises(StopRequest), handle_stop_signals():
        Swallows()
        time.sleep(20)


def test_another_thread_is_left_alone_and_can_signal_the_main_one() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with handle_stop_signals(), defer_stop(lambda: None) as requests:
            seen.append((signal.getsignal(signal.SIGTERM) is before, requests))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(True, [])]
    with pytest.raises(StopRequest), handle_stop_signals():
        threading.Timer(0.01, signal_main_thread, [signal.SIGTERM]).start()
        time.sleep(20)
