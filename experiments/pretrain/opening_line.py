"""The line that a pre-training run begins with."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp

from experiments.pretrain.settings import Settings
from experiments.pretrain.training import optimizer_config
from w2v_jax import memory_methods, optim


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
        f"\n{lengthened(settings, steps_per_round, latest or 0, planned_before)}" if planned_before else ""
    )
    return (
        f"{settings.model} ({parameters:,} parameters){method}, {who}, "
        f"{steps_per_round} local steps of {settings.batch_size} x {settings.crop_seconds} s, "
        f"{heldout}, {skipped} clips skipped{start}"
        f"{longer}"
    )


def lengthened(settings: Settings, steps_per_round: int, latest: int, planned_before: int) -> str:
    """Tell in a line that a run is lengthened, and what its learning rate does.

    Args:
        settings: the settings of the run, with its new length.
        steps_per_round: local steps of a client.
        latest: the round that it continues after; 0 for none.
        planned_before: rounds of the former plan.
    """

    def rate(rounds: int, step: int) -> str:
        config = optimizer_config(dataclasses.replace(settings, rounds=rounds), steps_per_round)
        return f"{float(optim.make_learning_rate(config)(jnp.int32(step))):.2g}"

    first, end = latest * steps_per_round, settings.rounds * steps_per_round - 1
    line = (
        f"the run began with --rounds {planned_before} and now has --rounds {settings.rounds}: from round "
        f"{latest + 1} on the learning rate follows the longer schedule"
    )
    if not latest:
        return line
    return (
        f"{line}; it goes from {rate(planned_before, first - 1)} in round {latest} to "
        f"{rate(settings.rounds, first)}, and ends at {rate(settings.rounds, end)} in round {settings.rounds}"
    )
