"""Fine-tuning recipes by model size. Imports no jax."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuningRecipe:
    """Fine-tuning settings for one model size.

    Attributes:
        epochs: passes over the training clips.
        fewest_updates: updates of a run where the epochs have fewer, as with a small share of the labels.
        most_validations: validations of a run, about.
        batch_seconds: speech in a batch, at most.
        buckets: shapes of batches.
        head_width: the width of the head's blocks.
        encoder_learning_rate: peak rate of Adam.
        head_learning_rate: peak rate of Adadelta.
    """

    epochs: int
    fewest_updates: int = 1
    most_validations: int = 50
    batch_seconds: float
    buckets: int
    head_width: int
    encoder_learning_rate: float
    head_learning_rate: float


# SpeechBrain's Italian recipe: batches of 12 clips of up to 8 s.
_ITALIAN = FineTuningRecipe(
    epochs=45,
    batch_seconds=96.0,
    buckets=8,
    head_width=1024,
    encoder_learning_rate=1e-4,
    head_learning_rate=1.0,
)

_TINY = FineTuningRecipe(
    epochs=45,
    batch_seconds=32.0,
    buckets=4,
    head_width=256,
    encoder_learning_rate=1e-3,
    head_learning_rate=1.0,
)

FINE_TUNING = {
    "tiny": _TINY,
    "base": _ITALIAN,
    "large": _ITALIAN,
    "large-lv60": _ITALIAN,
    "log-mel-tiny": _TINY,
    "log-mel-small": _TINY,
    "best-rq-tiny": _TINY,
    "best-rq-small": _TINY,
    "best-rq-base": _ITALIAN,
}

# Keyword clips are of about a second, and whole corpora of minutes: epochs are short.
_SMALL_KEYWORDS = dataclasses.replace(
    _TINY, epochs=20, fewest_updates=600, most_validations=20, head_width=128
)
_LARGE_KEYWORDS = dataclasses.replace(
    _ITALIAN, epochs=20, fewest_updates=600, most_validations=20, batch_seconds=64.0, head_width=256
)
KEYWORDS = {
    name: _SMALL_KEYWORDS if recipe is _TINY else _LARGE_KEYWORDS for name, recipe in FINE_TUNING.items()
}
RECIPES = {"recognition": FINE_TUNING, "keywords": KEYWORDS}
MAX_FINE_TUNING_SECONDS = 8.0
