"""Programs of lanes are compiled for their share of the cores, and nothing else is confined."""

import contextlib
import os
import threading

import jax
import jax.numpy as jnp
import pytest

from fed.engine import lane_threads

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
needs_cores = pytest.mark.skipif(len(CORES) < 2, reason="one core, or cores cannot be chosen here")


@needs_cores
def test_all_threads_are_confined_and_released():
    stop, born = threading.Event(), []
    before = threading.Thread(target=stop.wait)
    before.start()
    os.sched_setaffinity(before.native_id, set(CORES[1:]))
    with lane_threads.compiling_for(1):
        held = lane_threads._affinities()
        assert held[threading.get_native_id()] == held[before.native_id] == set(CORES[:1])
        born.append(threading.Thread(target=stop.wait))
        born[0].start()
    held = lane_threads._affinities()
    assert held[threading.get_native_id()] == held[born[0].native_id] == set(CORES)
    # A thread that had cores of its own has them again.
    assert held[before.native_id] == set(CORES[1:])
    stop.set()
    for thread in (before, *born):
        thread.join()


@needs_cores
def test_threads_are_released_after_an_error():
    with pytest.raises(RuntimeError), lane_threads.compiling_for(1):
        raise RuntimeError
    assert os.sched_getaffinity(0) == set(CORES)


def test_the_first_call_alone_is_confined(monkeypatch):
    confined = []

    @contextlib.contextmanager
    def watched(cores):
        confined.append(cores)
        yield

    monkeypatch.setattr(lane_threads, "compiling_for", watched)
    program = lane_threads.for_lanes(jax.jit(lambda x: 2 * x), 2)
    results = [float(program(jnp.float32(value))) for value in (1, 2, 3)]
    assert results == [2.0, 4.0, 6.0]
    assert confined == ([len(CORES) // 2] if CORES else [])
    assert program.lower(jnp.float32(1)).compile() is not None


def test_a_lane_alone_has_all_cores():
    jitted = jax.jit(lambda x: x)
    assert lane_threads.for_lanes(jitted, 1) is jitted
