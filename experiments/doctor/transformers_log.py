"""Read trainer_state.json, which the Trainer of transformers writes beside each checkpoint.

Its `log_history` is documented with `TrainerState`: a record for each log, and one for each evaluation.
"""

import json
import math
from typing import Any

from experiments.doctor.curves import Curves, Kind, Spelling

FILE = "trainer_state.json"
SPELLING = Spelling(
    rate="--learning_rate",
    batch="--per_device_train_batch_size or --gradient_accumulation_steps",
    length="--max_steps or --num_train_epochs",
    masks="Raise mask_time_prob of the model's configuration.",
    codes="a lower --learning_rate, or with a higher diversity_loss_weight of the model",
    clipping="--max_grad_norm",
    best="--load_best_model_at_end",
    start="--model_name_or_path with a pre-trained model",
)
COLUMNS = {
    "loss": "loss", "learning_rate": "rate", "grad_norm": "gradient_norm", "eval_loss": "heldout_loss",
    "eval_wer": "wer", "eval_cer": "cer", "eval_accuracy": "heldout_accuracy",
}  # fmt: skip
LARGE_LOSS = 0.1  # nats; from above it, no model comes to less than 0.00005 by the next record


def parse(text: str) -> Curves | None:
    """Read the file's text; None if it is no trainer_state.json."""
    try:
        state = json.loads(text)  # Python's own reader takes NaN, which the Trainer writes
    except ValueError:
        return None
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        return None
    points: dict[float, dict[str, float]] = {}
    filtered, loss_before = 0, math.inf
    for record in state["log_history"]:
        if not isinstance(record, dict) or "step" not in record:
            continue
        values = _values(record)
        if values.get("loss") == 0.0 and _hides_a_loss(values, loss_before):
            values["loss"], filtered = math.nan, filtered + 1
        elif math.isfinite(values.get("loss", math.nan)):
            loss_before = values["loss"]
        if values:
            points.setdefault(record["step"], {"step": float(record["step"])}).update(values)
    known = {name for point in points.values() for name in point}
    kind: Kind = "ctc" if known & {"wer", "cer"} else "keywords" if "heldout_accuracy" in known else "unknown"
    planned, done = state.get("max_steps"), state.get("global_step") or 0
    notes = []
    if filtered:
        notes.append(
            f"{filtered} training losses of exactly 0 are read as not finite: the Trainer writes 0 in their "
            "place (--logging_nan_inf_filter), and no finite gradient norm stands beside them."
        )
    return Curves(
        writer="transformers",
        kind=kind,
        points=[points[step] for step in sorted(points)],
        spelling=SPELLING,
        planned=planned or None,
        finished=bool(planned) and done >= planned,
        peak_rate=max((point["rate"] for point in points.values() if "rate" in point), default=None),
        notes=tuple(notes),
    )


def _hides_a_loss(values: dict[str, float], loss_before: float) -> bool:
    """Tell whether a logged loss of 0 stands for one that is not finite, and not for a small one.

    Older Trainers round losses to four decimals, so a model that has converged logs 0 as well; but then its
    gradient is finite, or its loss was small before.

    Args:
        values: of the record.
        loss_before: last finite loss that was not hidden; infinity if there is none.
    """
    return not math.isfinite(values.get("gradient_norm", math.nan)) and loss_before > LARGE_LOSS


def _values(record: dict[str, Any]) -> dict[str, float]:
    """Rename the columns of a record; null stands for a number that is not finite."""
    found = {}
    for column, name in COLUMNS.items():
        value = record.get(column, "")
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            found[name] = math.nan if value is None else float(value)
    return found
