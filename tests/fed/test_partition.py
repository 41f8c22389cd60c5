import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed.partition import balanced
from fed.protocols import FederationError
from fed.sampling import everyone, uniform


@given(
    seconds=st.lists(st.floats(0.5, 500), min_size=3, max_size=80),
    clients=st.integers(1, 20),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_every_speaker_in_exactly_one_client(seconds, clients, seed):
    clients = min(clients, len(seconds))
    amounts = {f"speaker{i}": s for i, s in enumerate(seconds)}
    dealt = balanced(amounts, clients, seed)
    assert len(dealt) == clients
    assert all(dealt)
    assert sorted(name for group in dealt for name in group) == sorted(amounts)
    assert dealt == balanced(amounts, clients, seed)
    held = [sum(amounts[name] for name in group) for group in dealt]
    # The LPT rule: no client holds more than the mean plus the longest speaker.
    assert max(held) <= sum(seconds) / clients + max(seconds) + 1e-6


def test_many_speakers_balance_closely():
    rng = np.random.default_rng(0)
    amounts = {f"s{i}": float(x) for i, x in enumerate(rng.lognormal(3, 1, 2000))}
    held = [sum(amounts[name] for name in group) for group in balanced(amounts, 10, 0)]
    assert max(held) / min(held) < 1.001


def test_fewer_speakers_than_clients_is_refused():
    with pytest.raises(FederationError, match="there are 2"):
        balanced({"a": 1.0, "b": 2.0}, 3, 0)


def test_uniform_sampling_is_by_seed_and_round():
    names = [f"c{i}" for i in range(100)]
    sample = uniform(names, 20, seed=5)
    assert sample(3) == uniform(names[::-1], 20, seed=5)(3)
    assert len(set(sample(3))) == 20
    assert sample(3) != sample(4)
    assert sample(3) != uniform(names, 20, seed=6)(3)
    counts = np.unique([name for r in range(500) for name in sample(r)], return_counts=True)[1]
    assert counts.min() > 60
    assert counts.max() < 145


def test_everyone_is_everyone():
    assert everyone(["a", "b"])(7) == ["a", "b"]


def test_more_clients_per_round_than_clients_is_refused():
    with pytest.raises(FederationError, match="between 1 and 3"):
        uniform(["a", "b", "c"], 4, 0)
