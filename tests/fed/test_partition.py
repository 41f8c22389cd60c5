import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed.partition import balanced, dirichlet, dirichlet_equal, iid, single
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


AMOUNTS = st.lists(st.floats(0.5, 500), min_size=3, max_size=80)


@given(seconds=AMOUNTS, clients=st.integers(1, 20), seed=st.integers(0, 3), labels=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_every_kind_deals_everything_once_and_leaves_nobody_empty(seconds, clients, seed, labels):
    clients = min(clients, len(seconds))
    amounts = {f"g{i}": s for i, s in enumerate(seconds)}
    label_of = {name: f"label{i % labels}" for i, name in enumerate(amounts)}
    for deal in (
        lambda: iid(amounts, clients, seed),
        lambda: dirichlet(amounts, label_of, clients, 0.3, seed),
        lambda: dirichlet_equal(amounts, label_of, clients, 0.3, seed),
        lambda: balanced(amounts, clients, seed),
    ):
        dealt = deal()
        assert len(dealt) == clients
        assert all(dealt)
        assert sorted(name for group in dealt for name in group) == sorted(amounts)
        assert dealt == deal()
    assert [group for groups in single(amounts) for group in groups] == sorted(amounts)


@pytest.mark.parametrize(("clients", "share"), [(10, 0.02), (100, 0.05)])
def test_thousands_of_speakers_of_unequal_length_balance(clients, share):
    # As the 200,000 clips of `bench data`: 6,000 speakers, some of whom said much more than others.
    rng = np.random.default_rng(0)
    weights = rng.lognormal(0.0, 1.0, 6000)
    counts = rng.multinomial(194_000, weights / weights.sum()) + 1
    amounts = {f"s{i}": float(n) for i, n in enumerate(counts)}
    held = [sum(amounts[name] for name in group) for group in balanced(amounts, clients, 0)]
    assert (max(held) - min(held)) / np.median(held) < share


def test_iid_clients_hold_about_the_same_and_not_in_order():
    rng = np.random.default_rng(1)
    amounts = {f"clip{i:05d}": float(x) for i, x in enumerate(rng.uniform(1, 9, 5000))}
    dealt = iid(amounts, 10, 0)
    held = [sum(amounts[name] for name in group) for group in dealt]
    assert max(held) / min(held) < 1.02
    numbers = [np.mean([int(name[4:]) for name in group]) for group in dealt]
    assert max(numbers) - min(numbers) < 1000
    assert dealt != iid(amounts, 10, 1)


def test_small_alphas_skew_labels_and_large_ones_do_not():
    amounts = {f"s{i}": 1.0 for i in range(2000)}
    labels = {name: f"accent{i % 4}" for i, name in enumerate(amounts)}

    def largest_share(alpha):
        dealt = dirichlet(amounts, labels, 10, alpha, 0)
        shares = []
        for label in sorted(set(labels.values())):
            counts = np.array([sum(labels[name] == label for name in group) for group in dealt])
            shares.append(counts.max() / counts.sum())
        return np.mean(shares)

    assert largest_share(1000.0) < 0.12
    assert largest_share(0.05) > 0.5


def mixes_of(deal, alpha, clients=10, count=2000):
    """Deal four labels, one of them rare; return each client's amount and the share of its largest label."""
    amounts = {f"s{i}": 1.0 + i % 3 for i in range(count)}
    labels = {name: f"accent{(0, 0, 0, 1, 1, 1, 2, 2, 2, 3)[i % 10]}" for i, name in enumerate(amounts)}
    held, largest = [], []
    for group in deal(amounts, labels, clients, alpha, 0):
        by_label = [sum(amounts[n] for n in group if labels[n] == f"accent{k}") for k in range(4)]
        held.append(sum(by_label))
        largest.append(max(by_label) / sum(by_label))
    return np.array(held), np.array(largest)


@pytest.mark.parametrize("alpha", [1e-3, 0.3, 1000.0])
def test_clients_of_the_equal_partition_hold_the_same_amount_whatever_alpha_is(alpha):
    held, _ = mixes_of(dirichlet_equal, alpha)
    assert max(held) - min(held) <= 3.0  # one group at most
    unequal, _ = mixes_of(dirichlet, alpha)
    assert max(unequal) - min(unequal) > 3.0


def test_clients_of_the_equal_partition_have_few_labels_at_small_alphas_and_all_data_at_large_ones():
    _, skewed = mixes_of(dirichlet_equal, 0.01, clients=100)
    _, alike = mixes_of(dirichlet_equal, 1000.0)
    assert np.median(skewed) > 0.8  # less than 1, since labels run out
    np.testing.assert_allclose(alike, 0.3, atol=0.1)


@pytest.mark.parametrize("deal", [dirichlet, dirichlet_equal])
@pytest.mark.parametrize("alpha", [0.0, float("nan"), float("inf")])
def test_a_bad_alpha_is_refused(deal, alpha):
    with pytest.raises(FederationError, match="alpha must be positive"):
        deal({"a": 1.0}, {"a": "x"}, 1, alpha, 0)


def test_fewer_clips_than_clients_is_refused():
    with pytest.raises(FederationError, match="as many clips"):
        iid({"a": 1.0}, 2, 0)


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


@pytest.mark.parametrize(
    "amounts", [{"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 1.0}, {"a": float("nan"), "b": 1.0}]
)
def test_amounts_of_nothing_are_refused(amounts):
    labels = {"a": "x", "b": "y"}
    with pytest.raises(FederationError, match=r"amount of a must be positive, got (0|nan)"):
        dirichlet_equal(amounts, labels, 2, 1.0, 0)
    if amounts["b"] == 0.0:
        with pytest.raises(FederationError, match="add up to 0"):
            iid(amounts, 2, 0)
