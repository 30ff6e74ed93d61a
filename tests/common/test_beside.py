"""A thread beside the caller's."""

import threading

import pytest

from projects.openimages.common.beside import Beside


def test_calls_are_made_in_order_in_one_other_thread():
    beside, made = Beside(100), []
    for number in range(50):
        beside.call(lambda n: made.append((n, threading.get_ident())), number)
    beside.finish()
    assert [number for number, _ in made] == list(range(50))
    assert len({thread for _, thread in made}) == 1
    assert made[0][1] != threading.get_ident()


def test_error_is_raised_once_and_what_waited_is_forgotten():
    beside, made = Beside(10), []
    begin = threading.Event()
    beside.call(begin.wait)
    beside.call(lambda: 1 / 0)
    beside.call(made.append, 'behind it')
    beside.call(begin.wait)
    begin.set()
    with pytest.raises(ZeroDivisionError):
        beside.finish()
    beside.finish()
    beside.call(made.append, 'later')
    beside.finish()
    assert made[-1] == 'later'


def test_thread_ends():
    before = threading.active_count()
    beside = Beside(1)
    beside.call(int)
    beside.finish()
    assert threading.active_count() == before
