"""`w2v-jax convert`: Hugging Face and fairseq checkpoints to run folders, and runs to Hugging Face."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertArguments:
    """Convert a Hugging Face folder or a fairseq .pt to a run folder, or a run folder to Hugging Face.

    Pretrain, finetune and transcribe begin from the run folder; transformers opens the Hugging Face folder
    with from_pretrained. Pickled weights are read without running the code that they name. Settings that a
    checkpoint does not state come from the preset of its shape; the command prints which these are.

    example: w2v-jax convert runs/ten-clients-tiny-fedavg --out converted/tiny
    """

    source: Annotated[Path, tyro.conf.Positional]
    """A Hugging Face folder (config.json and model.safetensors, or pytorch_model.bin, or an index of
    several), a fairseq *.pt, or a run folder of pretrain (RUN@ROUND or RUN@best), finetune or
    convert."""
    out: Path
    """Folder to write; it must not be there yet, or be empty."""
    kind: (
        Literal[
            "Wav2Vec2ForPreTraining", "Wav2Vec2Model", "Wav2Vec2ForCTC", "Wav2Vec2ForSequenceClassification"
        ]
        | None
    ) = None
    """Class to write for Hugging Face. Default: the run's own; Wav2Vec2Model is the encoder alone."""
    weight_norm: Literal["parametrizations", "weight_g"] = "parametrizations"
    """Names of the two arrays of Hugging Face's positional convolution; torch before 2.0 needs weight_g."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(ConvertArguments, argv, "w2v-jax convert")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UsageError(f"--out {options.out} is there already and not empty: choose another folder")
    xla_flags.configure_xla(1)
    from experiments.models import conversion

    provenance = record_provenance("convert")
    lines = conversion.convert(options.source, options.out, options.kind, options.weight_norm, provenance)
    print("\n".join(lines))
