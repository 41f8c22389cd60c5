"""Read SpeechBrain's train_log.txt, a line for each epoch, as its FileTrainLogger writes it.

A line is `epoch: 1, lr: 1.00e-04 - train loss: 3.1 - valid loss: 2.9, valid WER: 98.2`.
"""

from experiments.doctor.curves import Curves, Kind, Spelling

SPELLING = Spelling(
    rate="lr in the YAML file",
    batch="batch_size, max_batch_length or grad_accumulation_factor in the YAML file",
    length="number_of_epochs or optimizer_step_limit in the YAML file",
    masks="Set mask_prob in the YAML file to 0.65.",
    codes="a lower lr, or with a higher diversity_loss_weight in the YAML file",
    clipping="max_grad_norm in the YAML file",
    best="the checkpoint that the recipe keeps by its validation",
    start="wav2vec2_hub in the YAML file with a pre-trained model",
)
SPLITS = ("train", "valid")
NAMES = {
    "train loss": "loss", "train acc": "accuracy", "train accuracy": "accuracy",
    "valid loss": "heldout_loss", "valid acc": "heldout_accuracy", "valid accuracy": "heldout_accuracy",
    "valid wer": "wer", "valid cer": "cer", "valid per": "cer",
}  # fmt: skip
IN_PERCENT = ("wer", "cer")


def parse(text: str) -> Curves | None:
    """Read the file's text; None if it is no train_log.txt."""
    records = [found for line in text.splitlines() if (found := _record(line))]
    if not records:
        return None
    by_updates = all("steps" in record for record in records)
    points, rates = [], []
    for record in records:
        point = {"step": record["steps" if by_updates else "epoch"]}
        point |= {name: record[column] for column, name in NAMES.items() if column in record}
        point |= {name: point[name] / 100 for name in IN_PERCENT if name in point}
        if held := [value for name, value in record.items() if name.startswith("lr")]:
            point["rate"] = max(held)
            rates.append(max(held))
        points.append(point)
    known = {name for point in points for name in point}
    kind: Kind = "ctc" if known & {"wer", "cer"} else "unknown"
    notes = []
    if kind == "unknown" and by_updates and "heldout_accuracy" in known:
        kind = "wav2vec2"
        notes.append(
            "The log is taken for that of the wav2vec 2.0 recipe, of the base shape. The recipe sums its "
            "loss over a batch, so that no loss is compared with the logarithm of the distractors."
        )
    return Curves(
        writer="SpeechBrain",
        kind=kind,
        points=points,
        spelling=SPELLING,
        unit="updates" if by_updates else "epochs",
        finished=False,
        size="base" if kind == "wav2vec2" else None,
        peak_rate=max(rates, default=None),
        notes=tuple(notes),
    )


def _record(line: str) -> dict[str, float]:
    """Read the numbers of a line by name in small letters; empty if it is the line of no epoch."""
    parts = [part.split(", ") for part in line.strip().split(" - ")]
    found: dict[str, float] = {}
    for name, _, value in (item.partition(": ") for part in parts for item in part):
        try:
            found[name.strip().lower()] = float(value)
        except ValueError:
            continue  # a word, such as the name of an optimizer
    has_split = any(name.startswith(SPLITS) for name in found)
    return found if "epoch" in found and has_split else {}
