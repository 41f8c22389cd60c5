"""The warnings of federated rounds."""

from fed import simulation
from fed.simulation import RoundResult


def fruitless(result: RoundResult, rate_option: str = "--learning-rate") -> str | None:
    """Describe why no client that answered counted in a round; None if one did, or if none answered.

    Args:
        result: the round.
        rate_option: the option that sets the learning rate.
    """
    if (why := simulation.fruitless(result)) is None:
        return None
    advice = f"; lower {rate_option} if this goes on" if result.not_finite else ""
    return f"warning: {why}{advice}"
