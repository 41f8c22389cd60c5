"""The words of the command line: the group of every option, and the spellings of older versions.

An option has one name in all commands, singular even where it takes several values: --model is a model
preset, --batch the utterances in a batch, --seconds the length of an utterance, --device a device of the
catalogue, --target a device that the compiler makes programs for, --clients and --clients-per-round counts of
clients, --method a way to compute gradients, --precision the numbers of matrix products.
"""

from collections.abc import Mapping, Sequence

from experiments.options.spelling import NAMES, dashed, option_name

POSITIONAL = "Arguments"
OTHER = "Other"

# Help lists the groups in this order, and the options of a group in the order of the command's dataclass.
GROUPS = {
    "Data": (
        "data source split exclude-speakers-of heldout-speakers column labels train-minutes max-seconds "
        "language tokens pieces alphabet accents apostrophes shuffle-transcripts window-seconds locale "
        "speakers clips clips-per-speaker words words-per-sentence conditions hours timings "
        "representations finished layout speaker table path-column speaker-column text-column texts "
        "texts-line copy"
    ),
    "Model": (
        "task model objective init run features freeze head-blocks head-width pooling segments layers "
        "heads dropout keep-dropout masked-group-norm kind weight-norm"
    ),
    "Training": (
        "updates minutes batch batch-seconds seconds optimizer learning-rate encoder-learning-rate "
        "head-learning-rate head-optimizer head-only-updates schedule clip-norm label-smoothing augment"
    ),
    "Federation": (
        "preset rounds clients clients-per-round local-steps local-epochs algorithm algorithm-options "
        "client-states compress-up compress-down error-feedback aggregation temperature server-optimizer "
        "server-learning-rate proximal partition dirichlet-alpha dirichlet-column personalise fleet link"
    ),
    "Privacy": "dp-clip-norm dp-clipping dp-noise-multiplier dp-epsilon dp-delta",
    "Failures": (
        "client-dropout overshoot speed-spread deadline-steps max-update-norm corruption corrupted-clients"
    ),
    "Experiment": (
        "scale seeds encoders trainings repeats steps items sections runners workloads fedjax single-step "
        "make gradient-batch gradient-seconds compiled check measure doubling-months memory-doubling-months "
        "from-year"
    ),
    "Compute": (
        "precision method memory-budget device target platforms headroom forms lanes chunk shards "
        "distributed jobs workers seed"
    ),
    "Evaluation": "evaluate-every diagnose-every probe-every probe-data keep-best select-by",
    "Output": "out checkpoint-every keep-checkpoints track every-seconds once list dry-run html json",
}
_GROUP_OF = {f"--{name}": group for group, names in GROUPS.items() for name in names.split()}

# Old spellings. A command takes one where it has an option of the new name and none of the old.
RESPELT_FIELDS = {dashed(field): option_name(field) for field in NAMES}
RENAMED = RESPELT_FIELDS | {
    "--probe": "--check",
    "--no-probe": "--no-check",
    "--dropout": "--keep-dropout",
    "--no-dropout": "--no-keep-dropout",
}


def group_of(option: str) -> str:
    """Find the group of an option, such as --model; positional arguments have one of their own."""
    return _GROUP_OF.get(option, OTHER) if option.startswith("-") else POSITIONAL


def respell(words: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Replace options by other names, also in --OPTION=VALUE and with underscores in place of dashes."""
    respelt = []
    for word in words:
        typed, equals, value = word.partition("=")
        name = names.get(typed.replace("_", "-"))
        respelt.append(word if name is None else f"{name}{equals}{value}")
    return respelt


def old_spellings(words: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Find the old spellings among words, with their new ones.

    Args:
        words: a command line, after the command.
        known: names of the command's options.
    """
    typed = [word.partition("=")[0].replace("_", "-") for word in words]
    return {
        word: RENAMED[word]
        for word in dict.fromkeys(typed)
        if word in RENAMED and word not in known and RENAMED[word] in known
    }
