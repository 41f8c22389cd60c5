"""The options of `w2v-jax finetune`."""

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

from experiments.recognition import recipes


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneArguments:
    """Train a speech recognizer or a keyword spotter on an encoder and score it.

    Run the same command again to continue.

    example: w2v-jax finetune --init runs/ten-clients-tiny-fedavg --data corpora/en --out runs/asr
    """

    SHOWN_FIRST: ClassVar = (
        "task", "data", "labels", "train_minutes", "init",
        "freeze", "updates", "batch_seconds", "select_by", "out",
    )  # fmt: skip

    task: Literal["recognition", "keywords"] = "recognition"
    """recognition writes the words of a clip (CTC); keywords names the class of a clip, such as a word."""
    data: Path | None = None
    """A Common Voice locale's folder or its parent, with transcripts. Splits that it lacks are made: of
    disjoint speakers where there are ten (three for keywords), else of disjoint sentences. Default: a
    synthetic corpus."""
    out: Path | None = None
    """Run folder. Default: runs/finetune-<name of init>, or runs/keywords-<name of init>."""
    init: str = "scratch"
    """Encoder to start from: a run folder of w2v-jax pretrain (RUN@ROUND or RUN@best for another checkpoint),
    finetune or convert, hf:FOLDER with config.json and model.safetensors, or scratch for random
    parameters."""
    model: str | None = None
    """Model preset. Default: that of --init, or tiny from scratch."""
    features: Literal["encoder", "log-mel"] = "encoder"
    """Input of the head. log-mel is 80 log-mel bands in place of an encoder, as a baseline."""
    freeze: Literal["none", "feature-encoder", "encoder"] = "none"
    """Parts of the encoder that are never trained. feature-encoder freezes the convolutions, and encoder
    freezes all of it, as in a probe."""
    head_only_updates: int = 0
    """Number of first updates that train the head alone."""
    head_blocks: int | None = None
    """Number of blocks of linear, batch norm and leaky ReLU before the scores; 0 is a linear probe. Default:
    3, or 0 for keywords."""
    head_width: int | None = None
    """Width of the blocks. Default: the model's recipe."""
    pooling: Literal["mean", "attentive"] | None = None
    """For keywords, how the frames of a clip become one; attentive learns their weights. Default: mean."""
    segments: int | None = None
    """For keywords, number of equal parts of a clip that are pooled one by one. Default: 1, or 6 for log-mel
    features."""
    layers: Literal["last", "weighted"] | None = None
    """For keywords, frames of the encoder's last layer, or a trained mean of all its layers. Default:
    last."""
    label_smoothing: float | None = None
    """For keywords, share of a label that is spread over all classes, such as 0.1. Default: 0."""
    column: Literal["sentence", "client_id", "age", "gender", "accent"] = "sentence"
    """For keywords, column of the tables that holds the class of a clip."""
    labels: float | None = None
    """For keywords, percentage of the training clips of each class to use, such as 10. Of one seed, a smaller
    percentage is contained in a larger one. Default: all."""
    tokens: Literal["characters", "pieces"] = "characters"
    """Units of the text: characters, or SentencePiece unigrams trained on the training transcripts."""
    pieces: int = 1000
    """Number of SentencePiece unigrams, the blank included."""
    alphabet: str | None = None
    """Characters to recognise; the space comes by itself. Default: those of the training transcripts."""
    accents: Literal["keep", "fold"] = "keep"
    """fold writes è as e."""
    apostrophes: Literal["keep", "fold"] = "keep"
    """fold writes an apostrophe as a space."""
    language: str | None = None
    """Language of the transcripts, such as tr, for letter case. Default: the name of the data's folder if
    that language has a dotless i (tr, az), otherwise none."""
    train_minutes: float | None = None
    """Minutes of the training split to use at most; a smaller budget is contained in a larger one. Default:
    all."""
    max_seconds: float = recipes.MAX_FINE_TUNING_SECONDS
    """Longest training clip, in seconds; longer ones are left out, while dev and test keep every clip."""
    updates: int | None = None
    """Number of updates of the run. Default: the recipe's epochs, and at least 600 updates for keywords."""
    minutes: float | None = None
    """Minutes to train and validate for at most, in place of --updates. The pace is measured first, and the
    schedule is fitted to the updates that fit. Compiling, measuring and the scoring of test come on top. The
    same command continues a run that was stopped, for as many minutes again."""
    batch_seconds: float | None = None
    """Seconds of speech in a batch, at most. Default: the model's recipe."""
    encoder_learning_rate: float | None = None
    """Peak learning rate of Adam on the encoder. Default: the model's recipe."""
    head_learning_rate: float | None = None
    """Peak learning rate of the head's optimizer. Default: the model's recipe for adadelta, 1e-3 for
    adam."""
    head_optimizer: Literal["adadelta", "adam"] | None = None
    """Optimizer of the head. Default: adadelta, or adam for keywords, with --minutes and with --clients."""
    schedule: Literal["newbob", "tri-stage"] | None = None
    """Schedule of the learning rates. newbob lowers them when the validation loss stalls; tri-stage raises,
    holds and lowers them over the run. Default: newbob, or tri-stage for keywords, with --minutes and with
    --clients."""
    clip_norm: float = 5.0
    """Global norm that larger gradients are scaled down to."""
    dropout: float | None = None
    """Dropout in the encoder's layers. Default: the model's own."""
    augment: bool = True
    """Change the speed of training clips, and drop bands and chunks of them."""
    evaluate_every: int | None = None
    """Updates between validations, or rounds with --clients. Default: those of an epoch (with --clients, one
    round), or more, so that a run has at most about fifty validations, or twenty for keywords."""
    select_by: Literal["wer", "cer", "loss", "accuracy"] | None = None
    """Score that chooses the best checkpoint; the other scores break ties. While no words are recognised yet,
    the loss says more than error rates. Default: wer, or accuracy for keywords."""
    shuffle_transcripts: bool = False
    """Give each training clip the transcript or class of another one, as a control that learns without
    listening."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 rounds the operands of matrix products; everything else stays fp32."""
    clients: int | None = None
    """Number of clients among whom the speakers of the training clips are dealt, about equal seconds each.
    Training is then federated. Default: none, training is central."""
    partition: Literal["balanced", "speakers"] = "balanced"
    """speakers makes every speaker of the training clips a client, in place of --clients."""
    clients_per_round: int | None = None
    """Number of clients that a round invites, drawn anew. Default: all."""
    rounds: int | None = None
    """Number of rounds of federated training. Default: so many that all clients together go through as many
    batches as a central run of the recipe."""
    local_steps: int | None = None
    """Updates that a client makes in a round; the schedule of the learning rates follows them from round to
    round. Default: 5."""
    algorithm: str = "fedavg"
    """Federated algorithm, as of pretrain: a name such as scaffold, or FILE.py:NAME."""
    algorithm_options: tuple[str, ...] = ()
    """Settings of the algorithm, NAME=VALUE, such as mu=0.1 for fedprox. Default: the algorithm's."""
    client_states: Literal["memory", "disk"] = "memory"
    """Where the states of clients are held that some algorithms keep from round to round. Both continue after
    an interruption."""
    personalise: int | None = None
    """Updates that adapt a copy of the finished model to each client, or to each training speaker without
    --clients. A fifth of every speaker's training clips is withheld from training, and each copy is scored
    on those of its client. Default: none."""
    track: Literal["trackio", "wandb"] | None = None
    """Library that gets the run's scalars too, as TensorBoard has them, in the project w2v-jax. A run that
    continues stays one tracked run. Default: none."""
    seed: int = 0
    """Seed of everything random but the splits."""
