"""Arms and scales of the federated study of Figures 1 and 5."""

import dataclasses
from typing import Literal

ScaleName = Literal["smoke", "small", "paper"]

SCRATCH, CENTRALISED = "scratch", "centralised"
FEDERATED = (
    "ten-clients-fedavg",
    "ten-clients-loss-weighted",
    "hundred-clients-fedavg",
    "hundred-clients-loss-weighted",
)
PRETRAINED = (CENTRALISED, *FEDERATED)
ARMS = (SCRATCH, *PRETRAINED)
LOG_MEL, RANDOM = "log-mel", "random"
PROBED = (LOG_MEL, RANDOM, *PRETRAINED)
TUNED_ON = FEDERATED[0]  # its first seed chooses the learning rate of all pre-trained arms
BUDGET_ARMS = (SCRATCH, CENTRALISED, TUNED_ON)
TREND_ARMS = {"finetune": (TUNED_ON,), "probe": (CENTRALISED, TUNED_ON)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """The length of every run. A federated round and a centralised stretch see the same audio.

    Attributes:
        model: name of the model's preset.
        rounds: number of rounds of every pre-training.
        local_work: options of `pretrain` that set the work of a round, by preset.
        pretraining: further options of every `pretrain`.
        finetuning: options of every `finetune` except the encoder's learning rate.
        select_by: value on the validation split that chooses learning rates and checkpoints; the loss where
            error rates stay too high to rank anything.
        rates: encoder learning rates to try, once for scratch and once for pre-trained encoders.
        probe_rates: learning rates of a probe to try, for each kind of features.
        diagnose_every: rounds between two diagnoses of the clients of a federated run.
        most_clients: largest number of clients of an arm.
        synthetic_speakers: speakers of the corpus that is made where none is given.
        probe: options of every probe.
        budget_minutes: minutes of the smaller training splits; every budget is fine-tuned on too.
        trend_rounds: earlier rounds whose encoders are probed and fine-tuned too.
    """

    model: str
    rounds: int
    local_work: dict[str, tuple[str, ...]]
    pretraining: tuple[str, ...]
    finetuning: tuple[str, ...]
    select_by: Literal["wer", "cer", "loss"]
    rates: tuple[float, ...]
    probe_rates: tuple[float, ...]
    diagnose_every: int
    most_clients: int
    synthetic_speakers: int
    probe: tuple[str, ...]
    budget_minutes: tuple[float, ...]
    trend_rounds: tuple[int, ...]


_ADAM = ("--head-optimizer", "adam", "--schedule", "tri-stage")
_PROBE = (*_ADAM, "--head-blocks", "0", "--no-augment")

SCALES: dict[str, Scale] = {
    "smoke": Scale(
        model="tiny",
        rounds=2,
        local_work={
            "ten-clients": ("--clients", "5", "--local-steps", "2"),
            "hundred-clients": ("--clients", "10", "--clients-per-round", "5", "--local-steps", "2"),
            CENTRALISED: ("--local-steps", "10"),
        },
        pretraining=("--batch", "2", "--seconds", "0.8", "--evaluate-every", "1",
                     "--checkpoint-every", "1"),
        finetuning=(*_ADAM, "--updates", "4", "--batch-seconds", "16", "--evaluate-every", "2",
                    "--head-blocks", "1", "--head-width", "32"),
        select_by="loss",
        rates=(1e-3, 3e-3),
        probe_rates=(1e-2, 3e-2),
        diagnose_every=2,
        most_clients=10,
        synthetic_speakers=40,
        probe=(*_PROBE, "--updates", "4", "--batch-seconds", "16"),
        budget_minutes=(0.5,),
        trend_rounds=(1,),
    ),
    "small": Scale(
        model="tiny",
        rounds=24,
        local_work={
            "ten-clients": ("--local-steps", "24"),
            "hundred-clients": ("--local-steps", "12"),
            CENTRALISED: ("--local-steps", "240"),
        },
        pretraining=("--evaluate-every", "2", "--checkpoint-every", "4"),
        finetuning=(*_ADAM, "--updates", "600", "--batch-seconds", "16", "--evaluate-every", "100",
                    "--head-learning-rate", "1e-3"),
        select_by="loss",
        rates=(3e-4, 1e-3, 3e-3),
        probe_rates=(3e-3, 1e-2, 3e-2),
        diagnose_every=8,
        most_clients=100,
        synthetic_speakers=140,
        probe=(*_PROBE, "--updates", "600", "--batch-seconds", "16", "--evaluate-every", "150"),
        budget_minutes=(5.0, 15.0),
        trend_rounds=(4, 12),
    ),
    # The paper prints neither rounds nor local work of its federated runs. These are ours: with ten clients
    # a round is one epoch of a client's 19,473 clips. Fine-tuning is SpeechBrain's Italian recipe.
    "paper": Scale(
        model="base",
        rounds=20,
        local_work={
            "ten-clients": ("--local-steps", "4870"),
            "hundred-clients": ("--local-steps", "2435"),
            CENTRALISED: ("--local-steps", "48700"),
        },
        pretraining=("--precision", "bf16", "--evaluate-every", "1", "--checkpoint-every", "5"),
        finetuning=("--precision", "bf16", "--tokens", "pieces", "--pieces", "1000"),
        select_by="wer",
        rates=(3e-5, 1e-4, 3e-4),
        probe_rates=(1e-3, 3e-3, 1e-2),
        diagnose_every=5,
        most_clients=100,
        synthetic_speakers=140,
        probe=("--precision", "bf16", *_PROBE, "--updates", "20000"),
        budget_minutes=(60.0, 600.0),
        trend_rounds=(5, 10),
    ),
}  # fmt: skip
