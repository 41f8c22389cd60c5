"""The line that a pre-training run begins with."""

from collections.abc import Sequence

from experiments.pretrain.settings import Settings
from w2v_jax import memory_methods


def opening_line(
    settings: Settings,
    *,
    parameters: int,
    client_seconds: Sequence[float],
    steps_per_round: int,
    heldout: str,
    skipped: int,
    latest: int | None,
    planned_before: int | None,
) -> str:
    """Describe a run in a line; a second line says that it was lengthened.

    Args:
        settings: the settings of the run.
        parameters: how many numbers the model has.
        client_seconds: seconds of speech of each client.
        steps_per_round: local steps of a client.
        heldout: the speakers or clips that are set aside, in words.
        skipped: clips that are left out.
        latest: the round that it continues after; None for a new run.
        planned_before: rounds of the former plan; None for a run that is not lengthened.
    """
    method = "" if settings.method == memory_methods.PLAIN else f", method {settings.method}"
    who = (
        "no clients"
        if settings.centralised
        else f"{settings.clients_per_round} of {len(client_seconds)} clients a round, "
        f"{min(client_seconds):.0f} to {max(client_seconds):.0f} s of speech each"
    )
    start = f", continuing after round {latest}" if latest else ""
    longer = (
        f"\nthe run began with --rounds {planned_before} and now has --rounds {settings.rounds}: from round "
        f"{(latest or 0) + 1} on the learning rate follows the longer schedule"
    )
    return (
        f"{settings.model} ({parameters:,} parameters){method}, {who}, "
        f"{steps_per_round} local steps of {settings.batch_size} x {settings.crop_seconds} s, "
        f"{heldout}, {skipped} clips skipped{start}"
        f"{longer if planned_before else ''}"
    )
