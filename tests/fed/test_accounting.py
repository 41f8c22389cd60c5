"""Compare privacy accounting with figures known from the literature and from the library itself."""

import builtins
import math

import pytest

from fed.privacy import accounting
from fed.protocols import FederationError

SETTING = {"sampling_probability": 0.01, "rounds": 100, "delta": 1e-6}


@pytest.mark.parametrize(
    ("accountant", "known"), [("rdp", 0.8944), pytest.param("pld", 0.8018, marks=pytest.mark.slow)]
)
def test_noise_for_a_hundred_rounds_at_epsilon_two(accountant, known):
    found = accounting.noise_multiplier(2.0, accountant=accountant, **SETTING)
    assert found == pytest.approx(known, abs=2e-4)
    spent = accounting.epsilon(found, accountant=accountant, **SETTING)
    assert 1.99 < spent <= 2.0


def test_full_participation_is_the_gaussian_mechanism():
    # One release at noise 1: delta(eps) = Phi(1/2 - eps) - e^eps Phi(-1/2 - eps), Balle and Wang 2018.
    spent = accounting.epsilon(1.0, sampling_probability=1.0, rounds=1, delta=1e-5)

    def phi(x):
        return 0.5 * math.erfc(-x / math.sqrt(2))

    assert phi(0.5 - spent) - math.exp(spent) * phi(-0.5 - spent) == pytest.approx(1e-5, rel=0.02)


def test_edges():
    assert accounting.epsilon(1.0, sampling_probability=0.1, rounds=0, delta=1e-5) == 0.0
    assert accounting.epsilon(0.0, sampling_probability=0.1, rounds=3, delta=1e-5) == math.inf
    with pytest.raises(FederationError, match="sampling probability"):
        accounting.epsilon(1.0, sampling_probability=0.0, rounds=3, delta=1e-5)
    with pytest.raises(FederationError, match="delta must be between"):
        accounting.epsilon(1.0, sampling_probability=0.1, rounds=3, delta=1.0)
    with pytest.raises(FederationError, match="epsilon must be positive"):
        accounting.noise_multiplier(0.0, **SETTING)


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("dp_accounting"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(FederationError, match=r"pip install 'w2v-jax\[privacy\]'"):
        accounting.epsilon(1.0, **SETTING)
