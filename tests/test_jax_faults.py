"""Canaries: known faults of XLA:CPU, and which versions of jaxlib have them.

Each test compiles a program as a user's process does, in a process of its own, and fails where a version
behaves otherwise than the lists below say: a new version has the fault, or an old fault is mended.
"""

import json
import os
import subprocess
import sys

import jaxlib

# openxla/xla issue 49176: a write of a shifted slice of the array itself reads what it has written.
WRONG_VALUES = {"0.10.2"}
# jax issue 40101: a write of less than 256 bytes inside of a loop copies the whole array each time.
COPYING_WRITES = set[str]()

SHIFTED = """
import jax, json, numpy as np

def shifted(x):
    base = x + np.int32(1)
    return base.at[1:].set(base[:-1]).reshape((1, *base.shape))

x = np.arange(128, dtype=np.int32).reshape(8, 16)
expected = np.concatenate([x[:1], x[:-1]])[None] + 1
print(json.dumps(int((np.asarray(jax.jit(shifted)(x)) != expected).sum())))
"""

# 2,000 writes into 8 MB take about as long as one, whose time is that of copying the argument; where each
# write copies the whole array they take about 1,000 times as long, so that a factor of 30 is no noise.
WRITES = """
import jax, jax.numpy as jnp, json, time

def seconds(writes):
    body = lambda t, x: x.at[t + 1].set(0.5 * x[t] + 1.0)
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, writes, body, x))
    times, argument = [], jnp.zeros(2_000_000)
    for _ in range(4):
        start = time.perf_counter()
        loop(argument).block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times[1:])

print(json.dumps(seconds(2_000) / seconds(1)))
"""


def printed(code: str) -> float:
    """Run a program without the tests' flags and cache, and read the JSON that it prints."""
    ours = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_writes_of_a_shifted_slice():
    wrong = printed(SHIFTED)
    has_it = jaxlib.__version__ in WRONG_VALUES
    assert bool(wrong) == has_it, f"jaxlib {jaxlib.__version__}: {wrong} of 128 values are wrong (xla 49176)"


def test_small_writes_inside_of_a_loop():
    ratio = printed(WRITES)
    has_it = jaxlib.__version__ in COPYING_WRITES
    assert (ratio > 30) == has_it, (
        f"jaxlib {jaxlib.__version__}: 2,000 small writes take {ratio:.0f} times as long as one (jax 40101)"
    )
