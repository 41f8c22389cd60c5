"""Read a log of fairseq's trainer, in its JSON or its simple format, as hydra or the console writes it.

The formats are those of fairseq/logging/progress_bar.py. Losses are logged in bits and become nats here.
"""

import dataclasses
import json
import math
import re
from collections.abc import Iterator

from experiments.doctor.curves import Curves, Spelling

SPELLING = Spelling(
    rate="optimization.lr",
    batch="dataset.max_tokens or optimization.update_freq",
    length="optimization.max_update",
    masks="Set model.mask_prob to 0.65 and model.mask_length to 10.",
    codes="a lower optimization.lr, or with more weight on diversity (the first of criterion.loss_weights)",
    clipping="optimization.clip_norm",
    best="checkpoint_best.pt",
    start="checkpoint.finetune_from_model with a model that has learnt",
)
# Name of a value by column, without the prefix of the split.
TRAINING = {
    "loss_0": "loss", "accuracy": "accuracy", "code_perplexity": "codes", "lr": "rate",
    "gnorm": "gradient_norm", "ntokens": "masked_frames",
}  # fmt: skip
VALIDATION = {
    "loss_0": "heldout_loss", "accuracy": "heldout_accuracy", "code_perplexity": "heldout_codes",
    "wer": "wer", "uer": "cer",
}  # fmt: skip
IN_BITS = ("loss", "heldout_loss")
IN_PERCENT = ("wer", "cer")
OVERFLOW = "gradient overflow detected"
OUT_OF_SCALES = "Minimum loss scale reached"
# A line of the simple format: (subset, numbers) of a validation, or (tag, numbers) of training.
SIMPLE = re.compile(
    r"valid on '([^']+)' subset \| (.*)|(?:\[|\| |^)(train_inner|train)\b(?:\]\[\w+\] - | \| )(.*)"
)
DISTRACTORS, GROUPS, ENTRIES = 100, 2, 640  # of fairseq's recipes for wav2vec 2.0
PROJECTION_EXCESS = 0.5 / (256 * 0.1**2)  # nats; see run_folder: 256 dimensions, temperature 0.1
BASE_SHAPE = {"encoder_embed_dim": 768, "encoder_layers": 12}


def parse(text: str) -> Curves | None:
    """Read a log; None if it is no log of fairseq's trainer."""
    records = list(_records(text))
    subsets = list(dict.fromkeys(tag for tag, record in records if record and not tag.startswith("train")))
    records = [(tag, record) for tag, record in records if tag not in subsets[1:]]
    known = {name for _, record in records for name in record}
    if not any(tag == "train_inner" or tag == "train" for tag, _ in records) or "num_updates" not in known:
        return None
    points: dict[float, dict[str, float]] = {}
    overflows = 0
    for tag, record in records:
        overflows += tag == OVERFLOW
        # The train line of an epoch repeats the means of its train_inner lines.
        inner = any(other == "train_inner" for other, _ in records)
        if "num_updates" not in record or (tag == "train" and inner):
            continue
        point = points.setdefault(record["num_updates"], {"step": record["num_updates"]})
        point |= _values(record, VALIDATION if tag in subsets else TRAINING)
        if tag not in subsets:
            point["skipped_updates"], overflows = float(overflows), 0
    ordered = [points[step] for step in sorted(points)]
    contrastive = {"code_perplexity", "accuracy"} <= known
    if ordered and OUT_OF_SCALES in text:
        ordered[-1]["loss"] = math.nan
    curves = _curves(text, ordered, contrastive, ctc=bool({"wer", "uer"} & known))
    if len(subsets) < 2:
        return curves
    note = f"The log validates on {', '.join(subsets)}; the held-out values are those of {subsets[0]}."
    return dataclasses.replace(curves, notes=(*curves.notes, note))


def _curves(text: str, points: list[dict[str, float]], contrastive: bool, ctc: bool) -> Curves:
    planned, notes = _setting(text, "max_update"), ["fairseq logs bits; losses are in nats here."]
    shape = {name: _setting(text, name) for name in BASE_SHAPE}
    base = contrastive and all(shape[name] in (None, BASE_SHAPE[name]) for name in BASE_SHAPE)
    if base and None in shape.values():
        notes.append("The log does not tell the model's shape: wav2vec 2.0 base is assumed.")
    done = "done training" in text
    return Curves(
        writer="fairseq",
        kind="wav2vec2" if contrastive else "ctc" if ctc else "unknown",
        points=points,
        spelling=SPELLING,
        planned=planned,
        finished=done or (planned is not None and bool(points) and points[-1]["step"] >= planned),
        size="base" if base else None,
        chance_loss=math.log(DISTRACTORS + 1) if contrastive else None,
        chance_excess=PROJECTION_EXCESS,
        groups=GROUPS if contrastive else 0,
        entries=ENTRIES if contrastive else 0,
        peak_rate=max((p["rate"] for p in points if "rate" in p), default=None),
        optimizer="adam",
        notes=tuple(notes),
    )


def _records(text: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield (tag, numbers by column) of the lines that hold statistics, and of overflows.

    The tag is train_inner, train or the name of a validation subset, such as valid or dev_other.
    """
    for line in text.splitlines():
        if OVERFLOW in line:
            yield OVERFLOW, {}
            continue
        if (brace := line.find("{")) >= 0 and '"epoch"' in line:
            # All columns but those of train_inner begin with the tag.
            record = _json_numbers(line[brace:])
            counted = next((name for name in record if name.endswith("num_updates")), "")
            tag = counted.removesuffix("num_updates").removesuffix("_") or "train_inner"
            yield tag, {name.removeprefix(f"{tag}_"): value for name, value in record.items()}
        elif found := SIMPLE.search(line):
            yield found[1] or found[3], _simple_numbers(found[2] or found[4])


def _json_numbers(body: str) -> dict[str, float]:
    try:
        held = json.loads(body)
    except ValueError:
        return {}
    return _numbers(held.items()) if isinstance(held, dict) else {}


def _simple_numbers(body: str) -> dict[str, float]:
    """Read `key=value, key=value`, as during an epoch, or `key value | key value`, as at its end."""
    if "=" in body:
        return _numbers(re.findall(r"(\w+)=([^,\s]+)", body))
    return _numbers(pair for part in body.split("|") if len(pair := part.split()) == 2)


def _numbers(pairs) -> dict[str, float]:
    found = {}
    for name, value in pairs:
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            continue
    return found


def _values(record: dict[str, float], columns: dict[str, str]) -> dict[str, float]:
    """Rename a record's columns.

    The loss is `loss_0`, which has no regularisers, where there is one; else `nll_loss`, which is a mean over
    labels where `loss` is one over sentences.
    """
    name = next((name for name in ("loss_0", "nll_loss") if name in record), "loss")
    columns = columns | {name: columns["loss_0"]}
    found = {name: record[column] for column, name in columns.items() if column in record}
    found |= {name: found[name] * math.log(2) for name in IN_BITS if name in found}
    return found | {name: found[name] / 100 for name in IN_PERCENT if name in found}


def _setting(text: str, name: str) -> float | None:
    """Find a positive number in the configuration that fairseq prints at its start."""
    found = re.search(rf"""['"]?\b{name}['"]?[:=] ?(\d+)""", text)
    return float(found[1]) if found and float(found[1]) else None
