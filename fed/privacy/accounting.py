"""The privacy that rounds with clipped updates and Gaussian noise spend, by Google's dp-accounting.

Each client takes part in a round independently with the sampling probability (Poisson sampling,
`fed.sampling.poisson`). Neighbouring populations differ in one client.
"""

from typing import Any, Literal

from fed.protocols import FederationError

Accountant = Literal["pld", "rdp"]


def epsilon(
    noise_multiplier: float,
    *,
    sampling_probability: float,
    rounds: int,
    delta: float,
    accountant: Accountant = "pld",
) -> float:
    """Compute the epsilon that `rounds` rounds spend at `delta`.

    Args:
        noise_multiplier: standard deviation of the noise over the clip norm; 0 gives infinity.
        sampling_probability: probability that a client takes part in a round, above 0, at most 1.
        rounds: number of rounds that were released.
        delta: the second number of (epsilon, delta).
        accountant: "pld" composes privacy loss distributions, the tighter bound; "rdp" composes Renyi
            divergences.

    Raises:
        FederationError: dp-accounting is not installed, or a value is out of range.
    """
    _check(sampling_probability, delta)
    if rounds == 0:
        return 0.0
    if noise_multiplier <= 0:
        return float("inf")
    dp = _library()
    made = _make(accountant)()
    made.compose(_event(dp, noise_multiplier, sampling_probability), rounds)
    return float(made.get_epsilon(delta))


def noise_multiplier(
    target_epsilon: float,
    *,
    sampling_probability: float,
    rounds: int,
    delta: float,
    accountant: Accountant = "pld",
) -> float:
    """Find the least noise multiplier, to 1e-4, with which `rounds` rounds stay within (epsilon, delta).

    Args:
        target_epsilon: above 0.
        sampling_probability, rounds, delta, accountant: as for `epsilon`.

    Raises:
        FederationError: dp-accounting is not installed, or a value is out of range.
    """
    _check(sampling_probability, delta)
    if target_epsilon <= 0:
        raise FederationError(f"epsilon must be positive, got {target_epsilon}")
    dp = _library()
    return float(
        dp.calibrate_dp_mechanism(
            _make(accountant),
            lambda multiplier: dp.SelfComposedDpEvent(_event(dp, multiplier, sampling_probability), rounds),
            target_epsilon,
            delta,
            dp.LowerEndpointAndGuess(0.0, 1.0),
            tol=1e-4,
        )
    )


def require() -> None:
    """Check before a run that its privacy can be accounted for.

    Raises:
        FederationError: dp-accounting is not installed.
    """
    _library()


def _event(dp: Any, multiplier: float, probability: float) -> Any:
    return dp.PoissonSampledDpEvent(probability, dp.GaussianDpEvent(multiplier))


def _make(accountant: Accountant) -> Any:
    if accountant == "pld":
        from dp_accounting import pld

        return pld.PLDAccountant
    from dp_accounting import rdp

    return rdp.RdpAccountant


def _check(sampling_probability: float, delta: float) -> None:
    if not 0 < sampling_probability <= 1:
        raise FederationError(f"sampling probability must be in (0, 1], got {sampling_probability}")
    if not 0 < delta < 1:
        raise FederationError(f"delta must be between 0 and 1, got {delta}")


def _library() -> Any:
    try:
        import dp_accounting
    except ModuleNotFoundError as error:
        raise FederationError("privacy needs dp-accounting: pip install 'w2v-jax[privacy]'") from error
    return dp_accounting
