"""Speech for `fed.simulation` in Python: a corpus dealt to clients, as `w2v-jax pretrain` deals it."""

from pathlib import Path
from typing import Any

from experiments.pretrain import clients, crops, settings
from experiments.pretrain.options import PretrainArguments
from w2v_jax.config import ModelConfig
from w2v_jax.data.common_voice import Utterance
from w2v_jax.objective.pretraining import Objective, pretraining_objective

# The options of `w2v-jax pretrain` that say which data clients have and how much of them they hear.
OPTIONS = (
    *("model", "objective", "clients", "partition", "dirichlet_alpha", "dirichlet_column", "split"),
    *("exclude_speakers_of", "heldout_speakers", "local_steps", "local_epochs", "batch_size", "crop_seconds"),
    *("corruption", "corrupted_clients", "seed"),
)


class SpeechSource(clients.SpeechClients):
    """A ClientSource of a speech corpus.

    Attributes:
        config: the model's configuration.
        heldout: clips that no client has.
        steps_per_round: most local steps of a client in a round.
        notes: lines on what was chosen, left out or changed.
    """

    def __init__(self, data: clients.ClientData, work: clients.LocalWork, seed: int, config: ModelConfig):
        super().__init__(data.clients, work, seed)
        self.config = config
        self.heldout: list[Utterance] = list(data.split.heldout)
        self.steps_per_round = max(self.plan(name, 0).num_steps for name in self.client_ids())
        self.notes: list[str] = [
            f"{len(data.clients)} clients, {data.split.described}",
            *(f"{count} clips skipped: {why}" for why, count in data.corpus.skipped_by_reason().items()),
            *(f"{count} clips changed: {why}" for why, count in data.corpus.changed_by_reason().items()),
        ]

    def objective(self) -> Objective:
        """Build the model's objective of pre-training."""
        return pretraining_objective(self.config)


def speech_source(data: str | Path | None = None, **options: Any) -> SpeechSource:
    """Read a corpus and deal its clips to clients.

    Args:
        data: folder of a Common Voice locale, its parent or a prepared data set; None makes a synthetic
            corpus, which is no speech.
        options: those options of `w2v-jax pretrain` that OPTIONS names.

    Raises:
        UserError: the corpus cannot be read, has too little for the clients, or an option is out of range.
        TypeError: an option has nothing to do with data, or is none.
    """
    if unread := [name for name in options if name not in OPTIONS]:
        raise TypeError(f"speech_source does not read {unread[0]}; it reads {', '.join(OPTIONS)}")
    folder = None if data is None else Path(data)
    held = settings.Settings(**settings.resolve(PretrainArguments(data=folder, **options)))
    config = ModelConfig.from_dict(dict(held.model_config))
    found = clients.load(held, config)
    held, notes = crops.settled(held, found, config)
    work = clients.LocalWork(
        batch_size=held.batch_size,
        crop_samples=held.crop_samples,
        steps=held.local_steps,
        epochs=held.local_epochs,
        loss_window=held.loss_window,
    )
    source = SpeechSource(found, work, held.seed, config)
    source.notes += notes
    return source
