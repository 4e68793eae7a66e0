"""Work in threads: order, bounds, and errors that come out where somebody sees them."""

from __future__ import annotations

import threading

import pytest

from maskrcnn_benchmark.engine import background as module
from maskrcnn_benchmark.engine.background import BackgroundConsumer, BackgroundTask


@pytest.fixture(autouse=True)
def _short_poll(monkeypatch):
    monkeypatch.setattr(module, "_POLL", 0.02)


def _put(consumer, items):
    for item in items:
        consumer.put(item)


def test_items_are_done_in_order_in_another_thread():
    done, threads = [], set()

    def consume(item):
        done.append(item)
        threads.add(threading.get_ident())

    with BackgroundConsumer(consume) as consumer:
        for item in range(50):
            consumer.put(item)
    assert done == [*range(50)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_bounded_number_of_items_waits():
    go, started = threading.Event(), threading.Event()

    def consume(item):
        started.set()
        go.wait(10)

    consumer = BackgroundConsumer(consume, capacity=2)
    consumer.put(0)
    started.wait(10)
    consumer.put(1)
    consumer.put(2)
    blocked = threading.Thread(target=consumer.put, args=(3,))
    blocked.start()
    blocked.join(0.2)
    assert blocked.is_alive()
    go.set()
    blocked.join(10)
    assert not blocked.is_alive()
    consumer.close()


def test_an_error_comes_out_of_put_or_of_the_end():
    def consume(item):
        if item == 1:
            raise OSError("disk is full")
        done.append(item)

    done = []
    consumer = BackgroundConsumer(consume)
    with pytest.raises(OSError, match="disk is full"):
        _put(consumer, range(100))
    consumer.close()
    assert done == [0]
    with pytest.raises(OSError, match="disk is full"), BackgroundConsumer(consume) as consumer:
        consumer.put(1)


def test_an_error_of_the_block_is_not_hidden_and_ends_the_thread():
    go, done = threading.Event(), []

    def consume(item):
        go.wait(10)
        done.append(item)

    consumer = BackgroundConsumer(consume)
    _put(consumer, range(2))
    threading.Timer(0.1, go.set).start()
    with pytest.raises(KeyError, match="mine"), consumer:
        raise KeyError("mine")
    assert done in ([0], [])  # what waited is dropped
    assert not consumer._thread.is_alive()


def test_a_task_hands_its_result_over_in_the_thread_that_asks():
    task, found, go = BackgroundTask(), [], threading.Event()
    task.poll()
    task.wait()

    def work():
        go.wait(10)
        return threading.get_ident()

    task.start(work, lambda result: found.append((result, threading.get_ident())))
    task.poll()
    assert found == []
    go.set()
    task.wait()
    ((worker, asker),) = found
    assert asker == threading.get_ident() != worker
    task.poll()
    assert len(found) == 1


def test_one_task_at_a_time_and_none_is_lost():
    task, found = BackgroundTask(), []
    for number in range(5):
        task.start(lambda number=number: number, found.append)
        assert found == [*range(number)]
    task.wait()
    assert found == [*range(5)]


def test_an_error_of_a_task_is_raised_once():
    task = BackgroundTask()

    def fail():
        raise ValueError("no figures")

    task.start(fail, lambda result: None)
    with pytest.raises(ValueError, match="no figures"):
        task.wait()
    task.wait()
    task.start(lambda: 1, lambda result: None)
    task.wait()
