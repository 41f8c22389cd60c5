"""`pretrain --rounds` on a run of fewer rounds: what its learning rate does, and what refuses it."""

from pathlib import Path

import pytest

from experiments.options.errors import UsageError
from experiments.pretrain.opening_line import lengthened
from experiments.pretrain.options import PretrainArguments
from experiments.pretrain.settings import Settings, check_lengthening, resolve

RUN = Path("runs/private")


def settings(**options) -> Settings:
    return Settings(**resolve(PretrainArguments(**options)))


def test_a_privacy_budget_is_for_the_rounds_that_it_was_planned_for():
    options = {"rounds": 9, "dp_clip_norm": 1.0, "aggregation": "uniform"}
    check_lengthening(settings(**options, dp_noise_multiplier=1.0), 5, RUN)
    spent = settings(**options, dp_epsilon=3.0)
    check_lengthening(spent, None, RUN)
    with pytest.raises(
        UsageError, match=r"--rounds 9: the run's noise spends --dp-epsilon 3.0 in its 5 rounds"
    ) as refused:
        check_lengthening(spent, 5, RUN)
    assert "--init runs/private --rounds 4 --out runs/private-more;" in str(refused.value)
    best = settings(**options, dp_epsilon=3.0, keep_best="heldout_loss")
    with pytest.raises(UsageError, match=r"--init runs/private@best --rounds 4"):
        check_lengthening(best, 5, RUN)


def test_a_lengthened_run_tells_what_its_learning_rate_does():
    """A schedule of 20 rounds of 10 steps has come to its last tenth; one of 40 has more than half left."""
    longer = settings(rounds=40, learning_rate=1e-3)
    warmup = longer.warmup_share * 400
    expected = 1e-3 * (1 - 0.9 * (201 - warmup) / (400 - warmup))
    line = lengthened(longer, steps_per_round=10, latest=20, planned_before=20)
    assert line == (
        "the run began with --rounds 20 and now has --rounds 40: from round 21 on the learning rate follows "
        f"the longer schedule; it goes from 0.0001 in round 20 to {expected:.2g}, and ends at 0.0001 in "
        "round 40"
    )
    assert 3e-4 < expected < 7e-4
    # Without a checkpoint there is no rate to go from.
    assert lengthened(longer, 10, 0, 20).endswith(
        "from round 1 on the learning rate follows the longer schedule"
    )
