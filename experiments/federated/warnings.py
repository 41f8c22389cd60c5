"""The warnings of federated rounds."""

from fed.simulation import RoundResult


def fruitless(result: RoundResult, rate_option: str = "--learning-rate") -> str | None:
    """Describe why no client that answered counted in a round; None if one did, or if none answered.

    Args:
        result: the round.
        rate_option: the option that sets the learning rate.
    """
    if not result.clients or len(result.clients) > len(result.skipped):
        return None
    reasons = {"not finite": len(result.not_finite), "too large": len(result.too_large)}
    reasons["without anything learnt"] = len(result.skipped) - sum(reasons.values())
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    advice = f"; lower {rate_option} if this goes on" if result.not_finite else ""
    return f"warning: round {result.round_index} used no client's update ({why}){advice}"
