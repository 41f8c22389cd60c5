"""Write the results of a finished fine-tuning run: results.json, transcripts, report."""

from typing import Any

from experiments.process.files import write_json
from experiments.recognition import report
from experiments.recognition.clients import report as client_report
from experiments.recognition.scoring import Recognised
from experiments.runs.folder import RunFolder


def finish(
    folder: RunFolder,
    test: Recognised,
    chosen: dict[str, Any],
    lines: list[dict[str, Any]],
    personalised: dict[str, Any] | None,
) -> None:
    """Write the results of a run into its folder, and print the test error rates.

    Args:
        folder: the folder of the run.
        test: the test split as the chosen checkpoint recognises it.
        chosen: metrics of the validation whose checkpoint is scored.
        lines: metrics of all validations.
        personalised: of `personalisation.personalised`, if there is one.
    """
    rates = test.rates()
    result = {
        "test": rates,
        "dev": {name: chosen[f"dev_{name}"] for name in ("wer", "cer", "loss")},
        "best_update": chosen["update"],
        "updates": lines[-1]["update"],
        "audio_seconds": sum(line["audio_seconds"] for line in lines),
        "train_seconds": sum(line["train_seconds"] for line in lines),
        "per_speaker": test.by_speaker(),
        "worst": test.worst(),
        "provenance": folder.provenance,
    }
    if personalised is not None:
        result["personalised"] = personalised
    paths = [clip.row.path for clip in test.transcribed.clips]
    report.write_transcripts(folder.path, paths, test.transcribed.texts, test.hypotheses)
    write_json(folder.path / "results.json", result)
    report.write(folder.path)
    print(f"test: WER {100 * rates['wer']:.1f} %, CER {100 * rates['cer']:.1f} %")
    if personalised is not None:
        print(client_report.told(personalised))
    if silent := report.blank_phase(folder.path, result):
        print(silent)
    print(f"report: {folder.path / 'report.html'}")
