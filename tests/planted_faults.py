"""Plant faults one by one and see the tests fail: python -m tests.planted_faults [NAME ...].

Each fault is applied to a copy of the tree; the tests named beside it must fail there. Prints a line
a fault and exits 1 if one went unnoticed.
"""

import dataclasses
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_COPIED = (".git", ".venv*", "runs", "dist")  # at the top; experiments/runs is code


@dataclasses.dataclass(frozen=True)
class Fault:
    """Replacements in one file, and the tests that must notice."""

    file: str
    changes: tuple[tuple[str, str], ...]
    tests: str


def fault(file: str, old: str, new: str, tests: str) -> Fault:
    """A fault of one replacement."""
    return Fault(file, ((old, new),), tests)


OBJECTIVE = "tests/w2v_jax/objective/test_objective.py"
METHODS = "tests/w2v_jax/objective/test_methods.py"
EQUIVALENCE = "tests/fed/test_equivalence.py"
AGGREGATION = "tests/fed/test_aggregation.py"
ATTENDANCE = "tests/fed/test_attendance.py"
PRIVACY = "tests/fed/test_privacy.py"
FROZEN = "tests/parity/test_frozen.py"
CTC = "tests/w2v_jax/recognition/test_ctc.py"

FAULTS = {
    "micro-batches divided by their own masked frames": fault(
        "w2v_jax/objective/accumulation.py",
        "sums.contrastive / jnp.maximum(whole.masked, 1.0)",
        "sums.contrastive / jnp.maximum(sums.masked, 1.0)",
        f"{METHODS} -k exact_methods",
    ),
    "micro-batches without the diversity loss": fault(
        "w2v_jax/objective/accumulation.py",
        "+ diversity + penalty, sums",
        "+ penalty, sums",
        f"{METHODS} -k exact_methods",
    ),
    "GroupNorm by a block's own statistics": fault(
        "w2v_jax/model/features.py",
        '"statistics": statistics} if index == 0',
        '"statistics": None} if index == 0',
        f"{METHODS} -k exact_methods",
    ),
    "no gradient through the statistics of blocks": fault(
        "w2v_jax/model/encoder_blocks.py",
        "jax.tree.map(jnp.add, gradients[FIRST], more)",
        "gradients[FIRST]",
        f"{METHODS} -k exact_methods",
    ),
    "a layer's gradient takes the place of the sum": fault(
        "w2v_jax/model/layer_gradients.py",
        "lax.dynamic_index_in_dim(v, index, keepdims=False) + sink.scale * g",
        "sink.scale * g",
        f"{METHODS} -k exact_methods",
    ),
    "blocks of queries draw the first block's dropout": fault(
        "w2v_jax/randomness.py", "rows = first_query + jnp", "rows = jnp", f"{METHODS} -k exact_methods"
    ),
    "loss weights of the wrong sign": fault(
        "fed/aggregation.py", "return -loss / temperature", "return loss / temperature", AGGREGATION
    ),
    "spoilt audio reaches no client": fault(
        "experiments/data/corruption.py",
        "SpoiltClips(clips, how) if name in chosen else clips",
        "SpoiltClips(clips, how) if name in () else clips",
        "tests/experiments/data/test_corruption.py",
    ),
    "agreement of updates without their weights": fault(
        "fed/divergence.py",
        "with_mean = products @ weights",
        "with_mean = products.mean(1)",
        "tests/fed/test_divergence.py -k whole",
    ),
    "kept models of the wrong clients": fault(
        "fed/round.py",
        "lambda leaf: leaf[client], self.after",
        "lambda leaf: leaf[client - 1], self.after",
        "tests/fed/test_divergence.py -k its_client",
    ),
    "easy clients taken for hard ones": fault(
        "experiments/study/mechanism/settings.py",
        'minus(0.0, client["own_contrastive"])',
        'minus(client["own_contrastive"], 0.0)',
        "tests/experiments/study/test_mechanism.py -k easy_and_good",
    ),
    "an eager framework's linear layers keep their results": fault(
        "profiling/eager_memory.py",
        "        x = self._half(x)\n        self.save(x)\n        if self._mixed",
        "        x = self._half(x)\n        self.save(Tensor(shape, x.itemsize))\n        if self._mixed",
        "tests/profiling/test_eager_memory.py",
    ),
    "a scan's traffic counted once": fault(
        "profiling/flops.py",
        'times * parameters["length"])',
        "times)",
        "tests/profiling/test_traffic.py",
    ),
    "a changed byte passes for the artifact": fault(
        "profiling/runner.py",
        "    if checksum != noted:",
        "    if False:",
        "tests/experiments/costs/test_export.py -k flipped",
    ),
    "a wrong loss passes the probe": fault(
        "profiling/runner.py",
        "if not (finite and abs(value - right) <= allowed * abs(right)):",
        "if not finite:",
        "tests/experiments/costs/test_export.py -k found_out",
    ),
    "gradients of a scaled loss stay scaled": fault(
        "experiments/costs/step/training_step.py",
        "            gradients = scale.unscale(gradients)\n",
        "",
        "tests/experiments/costs/test_training_step.py",
    ),
    "a device that is left out is fitted all the same": fault(
        "profiling/step_time.py",
        "fit([cell for cell in cells if cell.device.title != title])",
        "fit(list(cells))",
        "tests/profiling/test_step_time.py -k left_out_is_not",
    ),
    "memory without headroom": fault(
        "profiling/feasibility.py",
        "return int(device.memory_bytes * (1.0 -",
        "return int(device.memory_bytes * (1.0 - 0 *",
        "tests/profiling/test_feasibility.py",
    ),
    "traffic left out of a step's seconds": fault(
        "profiling/step_time.py",
        "return arithmetic + moving +",
        "return arithmetic +",
        "tests/profiling/test_step_time.py",
    ),
    "buffers that share a place counted twice": fault(
        "profiling/timeline.py",
        "end - max(buffer.offset, reached)",
        "end - buffer.offset",
        "tests/profiling/test_timeline.py",
    ),
    "a grouped convolution's gradient divided twice": fault(
        "profiling/flops.py",
        "    return each * met, each * (missed_too - met)",
        '    each //= parameters["batch_group_count"]\n    return each * met, each * (missed_too - met)',
        "tests/profiling/test_flops.py -k derivative",
    ),
    "a layer's operations lost": fault(
        "experiments/costs/step/module_costs.py",
        "    for index, share in enumerate(_split_evenly(stack, config.num_layers)):",
        "    for index, share in enumerate(_split_evenly(stack, config.num_layers)[1:]):",
        "tests/experiments/costs/test_step_costs.py -k sum",
    ),
    "a round's price forgets clients": fault(
        "experiments/costs/step/round_price.py",
        "clients * one.total.flops",
        "one.total.flops",
        "tests/experiments/costs/test_step_costs.py -k round",
    ),
    "the input gradient of a convolution loses its last taps": fault(
        "w2v_jax/model/convolutions.py",
        "part if blocks is None else blocks + part",
        "part if blocks is None else blocks",
        "tests/w2v_jax/model/test_convolutions.py",
    ),
    "a negative shifted onto the positive": fault(
        "w2v_jax/objective/negatives.py",
        "choice >= rank",
        "choice > rank",
        "tests/w2v_jax/objective/test_negatives.py",
    ),
    "masked-count factor dropped": fault(
        "w2v_jax/objective/pretraining_loss.py",
        "+ diversity_weight * diversity +",
        "+ diversity_weight * diversity / masked +",
        f"{OBJECTIVE} -k duplicating",
    ),
    "keys reused on resume": Fault(
        "fed/simulation.py",
        (
            (
                "    engine = prepare(simulation, server)\n",
                "    engine = prepare(simulation, server)\n    begun = int(server.round_index)\n",
            ),
            ("            round_index=round_index,\n", "            round_index=round_index - begun,\n"),
        ),
        "tests/experiments/pretrain/test_pretrain.py -k killed",
    ),
    "the same key every round": fault(
        "fed/round.py", "round_key(seed, round_index)", "round_key(seed, 0)", f"{EQUIVALENCE} -k plainly"
    ),
    "padding that is attended to": fault(
        "w2v_jax/model/context.py",
        "scores = jnp.where(valid[:, None, None, :], scores, MASKED_SCORE)",
        "scores = scores + 0.0 * MASKED_SCORE",
        f"{OBJECTIVE} -k longer_padded",
    ),
    "padding that reaches the positional convolution": fault(
        "w2v_jax/model/context.py",
        "x = jnp.where(valid[..., None], x, jnp.zeros_like(x))",
        "x = x + 0.0",
        f"{OBJECTIVE} -k longer_padded",
    ),
    "conv lengths off by one": fault(
        "w2v_jax/model/frame_counts.py",
        "(length - kernel) // stride + 1, 0)",
        "(length - kernel) // stride, 0)",
        FROZEN,
    ),
    "spans that reach into padding": fault(
        "w2v_jax/objective/masking.py",
        "<= frames - span",
        "<= frames - 1",
        "tests/w2v_jax/objective/test_masking.py",
    ),
    "tanh GELU": fault(
        "w2v_jax/model/layers.py",
        "return x * (0.5 * (1.0 + jax.lax.erf(x * 0.5**0.5)))",
        "return jax.nn.gelu(x, approximate=True)",
        FROZEN,
    ),
    "flax's epsilon": fault("w2v_jax/model/layers.py", "EPSILON = 1e-5", "EPSILON = 1e-3", FROZEN),
    "soft codes": fault(
        "w2v_jax/model/quantizer.py",
        "choice = choice + soft - jax.lax.stop_gradient(soft)",
        "choice = soft",
        FROZEN,
    ),
    "targets without gradient": fault(
        "w2v_jax/model/wav2vec2.py",
        'targets=out["quantized_projection"]',
        'targets=jax.lax.stop_gradient(out["quantized_projection"])',
        f"{OBJECTIVE} -k reach_every",
    ),
    "encoder gradient not scaled": fault(
        "w2v_jax/model/layers.py", "(cotangent * scale,)", "(cotangent,)", f"{OBJECTIVE} -k encoder_gradient"
    ),
    "padded steps that train": fault(
        "fed/client.py",
        "jax.lax.cond(inputs.valid, update, lambda c, _: c, client, inputs)",
        "update(client, inputs)",
        f"{EQUIVALENCE} -k blocks",
    ),
    "padded clients that count": fault(
        "fed/engine/round_functions.py",
        "[weight <= 0, ~finite,",
        "[weight < 0, ~finite,",
        f"{EQUIVALENCE} -k layout",
    ),
    "clients that are not finite kept": fault(
        "fed/engine/round_functions.py",
        "~finite, norm >",
        "finite & ~finite, norm >",
        f"{AGGREGATION} -k finite",
    ),
    "states that are not finite kept": fault(
        "fed/engine/round_functions.py",
        "finite &= jnp.isfinite(optax.tree.norm(change))",
        "pass",
        f"{AGGREGATION} -k state",
    ),
    "updates that are too large kept": fault(
        "fed/engine/round_functions.py",
        "norm > max_update_norm]",
        "norm > jnp.inf]",
        f"{ATTENDANCE} -k too_large",
    ),
    "momentum moves a round that nobody answered": fault(
        "fed/engine/round_functions.py",
        "answered = accumulator.weight > 0",
        "answered = accumulator.weight >= 0",
        f"{ATTENDANCE} -k nobody",
    ),
    "late clients count": fault(
        "fed/attendance.py", "if when <= faults.deadline_steps", "if True", f"{ATTENDANCE} -k late"
    ),
    "FedProx pushes away": fault(
        "fed/algorithms/averaging.py", "g + mu * (x - start)", "g + mu * (start - x)", ATTENDANCE
    ),
    "the same noise every round": fault(
        "fed/round.py", "noise_key(seed, round_index)", "noise_key(seed, 0)", PRIVACY
    ),
    "updates that are not clipped": fault(
        "fed/engine/round_functions.py",
        "message, clipped = clip(message, privacy)",
        "pass",
        f"{PRIVACY} -k moves_the_sum",
    ),
    "the slowest chunk is chosen": fault(
        "fed/chunks.py", "best = min(ran)[0]", "best = max(ran)[0]", "tests/fed/test_chunks.py"
    ),
    "a chunk that does not fit is run": fault(
        "fed/chunks.py", "if _agreed(float(planned), max) <= limit:", "if True:", "tests/fed/test_chunks.py"
    ),
    "a graph's kernels are nobody's": fault(
        "profiling/kernels.py",
        "            unattributed += duration",
        "            unattributed += 0.0",
        "tests/profiling/test_kernels.py",
    ),
    "blocks of frames a frame off": fault(
        "w2v_jax/model/convolutions.py",
        "(place, rest - place), (0, 0), (0, 0)",
        "(place + 1, rest - place - 1), (0, 0), (0, 0)",
        "tests/w2v_jax/model/test_convolutions.py -k blocks",
    ),
    "a server optimizer without its state": fault(
        "fed/server.py",
        "        new.state,\n        server.round_index + 1,",
        "        server.optimizer_state,\n        server.round_index + 1,",
        "tests/fed/test_server.py",
    ),
    "wav files cut short taken for whole": fault(
        "w2v_jax/data/containers/wav.py",
        "if lost_frames > 0 and",
        "if False and",
        "tests/w2v_jax/data/test_data.py -k cut_short",
    ),
    "one key for all clients": fault(
        "fed/keys.py",
        "jax.random.fold_in(jax.random.fold_in(key, jnp.asarray(client)), jnp.asarray(local_step))",
        "jax.random.fold_in(key, jnp.asarray(local_step))",
        "tests/fed/test_keys.py",
    ),
    "FedAvg without weights": fault(
        "fed/aggregation.py", "return jnp.log(data_weight)", "return jnp.zeros_like(data_weight)", AGGREGATION
    ),
    "schedules that restart each round": fault(
        "fed/simulation.py",
        "first_step=round_index * simulation.steps_per_round",
        "first_step=0 * round_index",
        f"{EQUIVALENCE} -k schedules",
    ),
    "loss over all epochs": fault(
        "fed/engine/blocks.py",
        "done + column >= plan.loss_from_step",
        "done + column >= 0",
        f"{EQUIVALENCE} -k reported_loss",
    ),
    "metrics kept past the checkpoint": fault(
        "experiments/runs/folder.py",
        "line[unit] <= done",
        "line[unit] <= done + 1",
        "tests/experiments/runs/test_run_folder.py",
    ),
    "one crop for all epochs": fault(
        "w2v_jax/data/batches/crops.py",
        "generator(*self._identity, epoch, stable_id(self._paths[index]))",
        "generator(*self._identity, stable_id(self._paths[index]))",
        "tests/w2v_jax/data/test_data.py -k crop",
    ),
    "the Gumbel temperature stands still": fault(
        "w2v_jax/objective/pretraining_loss.py",
        '"gumbel_temperature": gumbel_temperature(config, step)',
        '"gumbel_temperature": gumbel_temperature(config, 0)',
        f"{OBJECTIVE} -k follows_the_step",
    ),
    "no layer is ever dropped": fault(
        "w2v_jax/model/context.py",
        "return y if kept is None else jnp.where(kept, y, x)",
        "return y",
        f"{OBJECTIVE} -k dropped_layers",
    ),
    "waveforms are not normalised": fault(
        "w2v_jax/model/wav2vec2.py",
        "if config.normalise_waveform:",
        "if False:",
        f"{OBJECTIVE} -k normalised",
    ),
    "the optimizer's state outlives the round": Fault(
        "fed/algorithm.py",
        (
            (
                "training.optimizer.init(server.parameters))\n",
                "jax.tree.map(lambda x: x + 0.1, training.optimizer.init(server.parameters)))\n",
            ),
        ),
        f"{EQUIVALENCE} -k plainly",
    ),
    "a convolution's kernel gradient off by a tap": fault(
        "w2v_jax/model/convolutions.py",
        "(before, after - unread), (1, stride)",
        "(before + 1, after - unread - 1), (1, stride)",
        "tests/w2v_jax/model/test_convolutions.py",
    ),
    "rules of aggregation swapped": fault(
        "experiments/federated/algorithm.py",
        "aggregation.RULES[settings.aggregation]",
        'aggregation.RULES["fedavg"]',
        "tests/experiments/pretrain/test_pretrain.py -k temperature",
    ),
    "a damaged header ends the archive": fault(
        "w2v_jax/data/release/tarball.py",
        "stream.last_byte > archive.offset or ",
        "",
        "tests/w2v_jax/data/test_preparation.py -k damaged_header",
    ),
    "damaged shards pass for whole": fault(
        "w2v_jax/data/prepared/shard_writer.py",
        "return held if whole else None",
        "return held",
        "tests/w2v_jax/data/test_preparation.py -k damaged_shard",
    ),
    "test clips are trained on": fault(
        "w2v_jax/data/release/assignment.py",
        'PRECEDENCE = ("test", "dev", "train", UNION)',
        'PRECEDENCE = ("train", "dev", "test", UNION)',
        "tests/w2v_jax/data/test_preparation.py -k counts",
    ),
    "records in the process's own order": fault(
        "w2v_jax/data/prepared/records.py",
        "SerializeToString(deterministic=True)",
        "SerializeToString()",
        "tests/w2v_jax/data/test_preparation.py -k two_at_once",
    ),
    "a stream begins again": fault(
        "w2v_jax/data/batches/pipeline.py",
        "self._batches[self._first_step + int(step)]",
        "self._batches[int(step)]",
        "tests/w2v_jax/data/test_pipeline.py -k later",
    ),
    "a speaker in two clients": fault(
        "fed/partition.py",
        "    return [sorted(groups) for groups in clients]\n\n\ndef single",
        "    clients[0].extend(clients[-1][:1])\n"
        "    return [sorted(groups) for groups in clients]\n\n\ndef single",
        "tests/fed/test_partition.py",
    ),
    "transcripts taken to fit without a blank between repeats": fault(
        "w2v_jax/recognition/ctc.py",
        "feasible = (needed_frames(labels, num_labels) <= num_frames)",
        "feasible = (num_labels <= num_frames)",
        f"{CTC} -k cannot_be_written",
    ),
    "blanks dropped before repeats are merged": fault(
        "w2v_jax/recognition/ctc.py",
        "tokens = np.asarray(best)[:num_frames]\n",
        "tokens = np.asarray(best)[:num_frames]\n    tokens = tokens[tokens != BLANK]\n",
        f"{CTC} -k greedy",
    ),
    "dropout in a frozen encoder": fault(
        "w2v_jax/recognition/frames.py",
        'dropout_keys=None if config.frozen == "encoder" else dropout_keys',
        "dropout_keys=dropout_keys",
        f"{CTC} -k frozen_encoder",
    ),
    "a head's statistics over padding": fault(
        "w2v_jax/recognition/heads.py",
        "share = valid.astype(x.dtype)[..., None]",
        "share = jnp.ones_like(valid, x.dtype)[..., None]",
        "tests/w2v_jax/recognition/test_heads.py -k valid_frames",
    ),
    "an unknown option without the right spelling": fault(
        "experiments/options/mistakes.py",
        "if option is None and spelling:",
        "if option is None and False:",
        "tests/experiments/options/test_mistakes.py -k misspelt_options",
    ),
    "somebody else's package taken for ours": fault(
        "experiments/process/child_process.py",
        '[sys.executable, "-P"]',
        "[sys.executable]",
        "tests/experiments/process/test_child.py",
    ),
    "help that waits for jax": fault(
        "experiments/study/mechanism/settings.py",
        "import numpy as np\n",
        "import jax\nimport numpy as np\n",
        "tests/experiments/cli/test_help.py -k takes_a_second",
    ),
    "a running variance that is biased": fault(
        "w2v_jax/recognition/heads.py",
        "unbiased = batch_variance * count / jnp.maximum(count - 1.0, 1.0)",
        "unbiased = batch_variance",
        "tests/w2v_jax/recognition/test_heads.py -k valid_frames",
    ),
    "a frame of every seam twice": fault(
        "w2v_jax/recognition/windows.py",
        "end = (window.keep_to - window.start) // frame_samples",
        "end = (window.keep_to - window.start) // frame_samples + 1",
        "tests/w2v_jax/recognition/test_windows.py -k every_frame",
    ),
    "one augmentation for all epochs": fault(
        "w2v_jax/data/batches/labelled.py",
        "generator(*self._identity, choice.epoch, stable_id(path))",
        "generator(*self._identity, stable_id(path))",
        "tests/w2v_jax/data/test_labelled.py -k anew",
    ),
    "updates that are not finite kept": fault(
        "w2v_jax/recognition/training.py",
        "jnp.where(finite, after, before)",
        "after",
        "tests/w2v_jax/recognition/test_recognition.py -k finite",
    ),
    "a sentence in train and in test, in another case": fault(
        "experiments/data/splits.py",
        'groups = [normalise(sentence, COARSEST_RULES) for sentence in column(clips, "sentence")]',
        'groups = list(column(clips, "sentence"))',
        "tests/experiments/data/test_transcribed.py -k once_normalised",
    ),
    "a shuffled transcript that is the clip's own": fault(
        "experiments/data/transcribed.py",
        "np.roll(order, 1)",
        "np.random.default_rng(seed).permutation(order)",
        "tests/experiments/data/test_transcribed.py -k own_transcript",
    ),
    "waveforms normalised against the folder's word": fault(
        "w2v_jax/interop/huggingface_config.py",
        '{"normalise_waveform": extractor.get("do_normalize", True)}',
        '{"normalise_waveform": True}',
        "tests/w2v_jax/interop/test_huggingface_folder.py -k normalised",
    ),
    "the best checkpoint lost in a crash": fault(
        "experiments/recognition/training_run.py",
        '["update"] == done != best.latest()',
        '["update"] == -1',
        "tests/experiments/recognition/test_finetune.py -k cut_off",
    ),
    "a figure in a guide that nothing printed": fault(
        "docs/guides/price-your-function.md",
        "302,727,570 operations",
        "302,727,579 operations",
        "tests/docs/test_docs.py -k blocks_run and price",
    ),
    "an option in the README that does not exist": fault(
        "README.md",
        "--aggregation loss-weighted",
        "--aggregate loss-weighted",
        "tests/docs/test_docs.py -k could_be",
    ),
    "a reference that lags behind the docstrings": fault(
        "fed/sampling.py",
        "Invite all clients to every round.",
        "Everyone.",
        "tests/docs/test_api_reference.py -k up_to_date",
    ),
    "events of an interrupted run stay beside those of its continuation": fault(
        "experiments/runs/tensorboard.py",
        "        os.truncate(path, end)\n",
        "        pass\n",
        "tests/experiments/runs/test_events.py -k each_step_once",
    ),
    "watch takes half a line for a whole one": fault(
        "experiments/watch/jsonl_tail.py",
        'come[: come.rfind(b"\\n") + 1]',
        "come",
        "tests/experiments/watch/test_watch.py -k half_written",
    ),
    "watch calls a run that was killed done": fault(
        "experiments/watch/run_state.py",
        'if complete and (self.folder / REPORT).exists() else "stopped"',
        "",
        "tests/experiments/watch/test_watch.py -k progress_metrics",
    ),
    "a tensor of a torch file may reach beyond its storage": fault(
        "w2v_jax/interop/inert_pickles.py",
        "last >= storage.count or ",
        "",
        "tests/w2v_jax/interop/test_torch_pickles.py",
    ),
    "a torch file sets attributes of anything": fault(
        "w2v_jax/interop/inert_pickles.py",
        "        elif type(made) is not dict:\n",
        "        elif False:\n",
        "tests/w2v_jax/interop/test_torch_pickles.py",
    ),
    "compressed entries of a torch file are read": fault(
        "w2v_jax/interop/torch_pickles.py",
        ".compress_type != zipfile.ZIP_STORED",
        ".compress_type < 0",
        "tests/w2v_jax/interop/test_torch_pickles.py",
    ),
    "Yogi's first moment starts above zero": fault(
        "fed/server.py",
        "optax.ScaleByAdamState(jnp.int32(0), zeros,",
        "optax.ScaleByAdamState(jnp.int32(0), optax.tree.full_like(params, 1e-6),",
        "tests/fed/test_server.py -k keep_their_bits",
    ),
    "a private sum divided by clients that were asked": fault(
        "experiments/pretrain/federation.py",
        "min(settings.clients_per_round, clients) * (1.0 - settings.client_dropout)",
        "min(settings.clients_per_round, clients) * 1.0",
        "tests/experiments/pretrain/test_federation.py",
    ),
    "a client without examples ends the run": fault(
        "fed/engine/blocks.py",
        "longest = max(1, *(",
        "longest = max(0, *(",
        "tests/fed/test_fedjax_bridge.py -k adds_nothing",
    ),
    "the band of clients is over another window than the loss": fault(
        "experiments/pretrain/rounds.py",
        "np.where(is_round, result.losses, result.round_losses)",
        "result.losses",
        "tests/experiments/pretrain/test_client_losses.py -k band",
    ),
    "clients of few clips are scored later than those of many": fault(
        "experiments/pretrain/settings.py",
        '"last-epoch" if options.local_epochs else "round"',
        '"last-epoch"',
        "tests/experiments/pretrain/test_client_losses.py -k same_steps",
    ),
    "a run may become shorter": fault(
        "experiments/runs/folder.py",
        "now > before",
        "now != before",
        "tests/experiments/runs/test_run_folder.py -k longer",
    ),
    "a lengthened run forgets its former plan": fault(
        "experiments/runs/folder.py",
        '"lengthened": [], **config',
        '**config, "lengthened": []',
        "tests/experiments/runs/test_run_folder.py -k longer",
    ),
    "stray weights override the model": fault(
        "w2v_jax/interop/huggingface_weights.py",
        "            return {single: None}\n",
        "            return dict.fromkeys(_candidates(folder))\n",
        "tests/w2v_jax/interop/test_huggingface_weights.py -k stray",
    ),
    "a padded batch without its attention mask": fault(
        "w2v_jax/interop/huggingface_config.py",
        '"return_attention_mask": True,',
        '"return_attention_mask": False,',
        "tests/w2v_jax/interop/test_huggingface_config.py -k padded",
    ),
    "training settings of the base model stand in for what a checkpoint leaves out": fault(
        "w2v_jax/interop/stated.py",
        "        name = nearest_preset(shape)\n",
        '        name = "base"\n',
        "tests/w2v_jax/interop/test_huggingface_config.py -k leaves_out",
    ),
    "a verdict inside the plan's error called certain": fault(
        "profiling/feasibility.py",
        '    if is_borderline(usable / needed, error):\n        return "borderline"\n',
        "",
        "tests/profiling/test_feasibility.py -k borderline",
    ),
    "the paper's memory class taken for the board's memory": fault(
        "profiling/devices.py",
        '            found[f"{name}-paper"] = _paper_row(name)\n',
        "            found[name] = _paper_row(name)\n",
        "tests/profiling/test_feasibility.py -k class",
    ),
    "the second half of a joined mp3 is lost": fault(
        "w2v_jax/data/containers/mp3.py",
        "return [_stream(data, part, damage) for part in parts], parts[-1].end",
        "return [_stream(data, parts[0], damage)], parts[-1].end",
        "tests/w2v_jax/data/test_containers.py -k joined",
    ),
    "speakers of made splits are not excluded": fault(
        "experiments/data/splits.py",
        'return set(column(pool.take(split), "client_id"))',
        "return set()",
        "tests/experiments/data/test_splits.py -k never_hears",
    ),
    "a clip in two splits is in both": fault(
        "w2v_jax/data/release/assignment.py",
        "for name in names if self.split_of.get(name) == split]",
        "for name in names if name in self.rows]",
        "tests/w2v_jax/data/test_release.py -k two_splits",
    ),
    "many comparisons judged as one": fault(
        "experiments/report/statistics.py",
        "    half = interval(values, comparisons)\n",
        "    half = interval(values)\n",
        "tests/experiments/report/test_statistics.py -k sign",
    ),
    "codes by the largest distance": fault(
        "w2v_jax/model/best_rq.py",
        "jnp.argmax(nearness, axis=-1)",
        "jnp.argmin(nearness, axis=-1)",
        "tests/w2v_jax/objective/test_best_rq.py -k codes_are_the_nearest",
    ),
    "codes from a frame's values in reverse": fault(
        "w2v_jax/model/best_rq.py",
        '"btc,gcd->btgd", features.astype(jnp.float32), projections',
        '"btc,gcd->btgd", features.astype(jnp.float32)[..., ::-1], projections',
        "tests/w2v_jax/objective/test_best_rq.py -k codes_are_the_nearest",
    ),
    "log-mel statistics over padding": fault(
        "w2v_jax/model/log_mel.py",
        "share = valid.astype(features.dtype)[..., None]",
        "share = jnp.ones_like(valid).astype(features.dtype)[..., None]",
        "tests/w2v_jax/objective/test_best_rq.py -k frames_are",
    ),
    "micro-batches of BEST-RQ divided by their own masked frames": fault(
        "w2v_jax/objective/best_rq.py",
        'divisor = sums["loss"].weight if masked is None else masked',
        'divisor = sums["loss"].weight',
        f"{METHODS} -k best-rq-exact",
    ),
    "chance by the rarest code": fault(
        "w2v_jax/objective/best_rq.py",
        "counts.max(-1).mean()",
        "counts.min(-1).mean()",
        "tests/w2v_jax/objective/test_best_rq.py -k chance",
    ),
    "padding pooled with a clip's frames": fault(
        "w2v_jax/recognition/keywords.py",
        "inside = valid[:, None, :] & (",
        "inside = jnp.ones_like(valid)[:, None, :] & (",
        "tests/w2v_jax/recognition/test_keywords.py -k pooling",
    ),
    "the input of the layers left out of their mean": fault(
        "w2v_jax/recognition/frames.py",
        'layers = (outputs["layers_input"], *outputs["hidden_layers"][:-1])',
        'layers = (outputs["hidden_layers"][0], *outputs["hidden_layers"][:-1])',
        "tests/experiments/models/test_keyword_conversion.py -k transformers_defines",
    ),
    "fewer labels that are not part of more": fault(
        "w2v_jax/recognition/label_budgets.py",
        "np.random.default_rng((seed, int(number)))",
        "np.random.default_rng((seed, int(number), round(1000 * share)))",
        "tests/experiments/recognition/test_keyword_runs.py -k nested",
    ),
    "crops that leave most of a batch empty": fault(
        "experiments/pretrain/crops.py",
        "if padding(clip_seconds, crop) <= MOST_PADDING and crop <",
        "if crop <",
        "tests/experiments/pretrain/test_crops.py -k longest",
    ),
    "collapse looked for in the codes that cannot collapse": fault(
        "experiments/runs/tasks.py",
        '        codes="prob_perplexity",\n',
        '        codes="code_perplexity",\n',
        "tests/experiments/runs/test_tasks.py -k collapse",
    ),
    "a probe pools padding": fault(
        "w2v_jax/recognition/pooling.py",
        "length = num_frames.astype(jnp.float32)[:, None, None] / segments",
        "length = jnp.full((len(num_frames), 1, 1), frames.shape[1] / segments)",
        "tests/w2v_jax/recognition/test_probes.py -k padding",
    ),
    "the smallest of the best penalties": fault(
        "w2v_jax/recognition/linear_probe.py",
        "accuracy >= found.dev_accuracy",
        "accuracy > found.dev_accuracy",
        "tests/w2v_jax/recognition/test_probes.py -k largest",
    ),
    "few labels unlike more of them": fault(
        "w2v_jax/recognition/label_budgets.py",
        "np.random.default_rng((seed, int(number)))",
        "np.random.default_rng((seed, int(number), int(100 * share)))",
        "tests/w2v_jax/recognition/test_probes.py -k few_labels",
    ),
    "a frozen encoder hears the padding of its batch": fault(
        "experiments/probe/encoded.py",
        "masked_group_norm=True",
        "masked_group_norm=False",
        "tests/experiments/probe/test_probe.py -k alike",
    ),
    "the round with the highest loss kept as the best": fault(
        "experiments/runs/best_round.py",
        '("heldout_loss", -1)',
        '("heldout_loss", 1)',
        "tests/experiments/pretrain/test_probing.py -k best_round",
    ),
    "a probe of characters hears the neighbours the wrong way round": fault(
        "w2v_jax/recognition/character_probes.py",
        "earlier = jnp.pad(each[0, ",
        "earlier = jnp.pad(each[2, ",
        "tests/w2v_jax/recognition/test_character_probes.py -k neighbours",
    ),
    "a probe of characters hears padding": fault(
        "w2v_jax/recognition/character_probes.py",
        "jnp.where(valid[:, None, :, None], (x - mean) / deviation, 0.0)",
        "(x - mean) / deviation",
        "tests/w2v_jax/recognition/test_character_probes.py -k padding",
    ),
    "the layer with the most errors is chosen": fault(
        "experiments/probe/metrics.py",
        "(min if self.lower_is_better else max)",
        "max",
        "tests/experiments/probe/test_characters.py -k compares_error_rates",
    ),
    "clips that do not fit in the frames are kept": fault(
        "experiments/probe/transcribed_clips.py",
        "needed > num_frames(lengths(clips))",
        "needed > lengths(clips)",
        "tests/experiments/probe/test_characters.py -k left_out",
    ),
    "more errors are called better": fault(
        "experiments/probe/metrics.py",
        "(difference < 0) == self.lower_is_better",
        "difference > 0",
        "tests/experiments/study/test_representations.py -k fewer_errors",
    ),
    "the doctor takes fairseq's bits for nats": fault(
        "experiments/doctor/fairseq_log.py",
        "found[name] * math.log(2)",
        "found[name]",
        "tests/experiments/doctor/test_foreign_logs.py -k fairseq_is_read",
    ),
    "the doctor forgives a loss of zero that the Trainer writes for NaN": fault(
        "experiments/doctor/transformers_log.py",
        'values.get("loss") == 0.0 and _hides_a_loss(values, loss_before)',
        "False",
        "tests/experiments/doctor/test_foreign_logs.py -k hide_losses",
    ),
    "the doctor reads a null loss as no loss": fault(
        "experiments/doctor/run_folder.py",
        "line[column] is not None or name in LOSSES",
        "line[column] is not None",
        "tests/experiments/doctor/test_planted_failures.py -k nan",
    ),
    "the doctor calls a run broken that has just begun": fault(
        "experiments/doctor/pretraining_checks.py",
        "not curves.finished and curves.steps < fewest",
        "False",
        "tests/experiments/doctor/test_planted_failures.py -k just_begun",
    ),
    "the worst finding does not decide": fault(
        "experiments/doctor/findings.py",
        "return max(worst,",
        "return min(worst,",
        "tests/experiments/doctor/test_command.py -k worst_finding",
    ),
    "folders of one name in two places are one speaker": fault(
        "experiments/data/importing/folders.py",
        '"/".join(parts) if parts[-1] in repeated else parts[-1]',
        "parts[-1]",
        "tests/experiments/data/importing/test_tree_layouts.py -k told_apart",
    ),
    "a recording without a speaker gets one of its own": fault(
        "experiments/data/importing/naming.py",
        "if speaker := plain(recording.speaker):",
        "if speaker := plain(recording.speaker or recording.name):",
        "tests/experiments/data/importing/test_tree_layouts.py -k flat_folder",
    ),
    "clips of one name in the place of one another": fault(
        "experiments/data/importing/naming.py",
        "while _key(unique) in taken:",
        "while False:",
        "tests/experiments/data/importing/test_tree_layouts.py -k more_than_case",
    ),
    "a segment that begins a frame late": fault(
        "experiments/data/importing/writing.py",
        "return round(start * sound.rate_hz),",
        "return round(start * sound.rate_hz) + 1,",
        "tests/experiments/data/importing/test_manifests.py -k kaldi_with_segments",
    ),
    "times of a cut's supervision counted from the recording's beginning": fault(
        "experiments/data/importing/lhotse.py",
        'start = float(cut.get("start", 0.0))',
        "start = 0.0",
        "tests/experiments/data/importing/test_manifests.py -k lhotse_cuts",
    ),
    "letters of fairseq left apart": fault(
        "experiments/data/importing/manifests.py",
        '"".join(line.split()).replace("|", " ")',
        'line.replace("|", " ")',
        "tests/experiments/data/importing/test_manifests.py -k fairseq",
    ),
    "a recording of two splits kept in the one that trains": fault(
        "experiments/data/importing/writing.py",
        "key=lambda recording: PRECEDENCE",
        "key=lambda recording: -PRECEDENCE",
        "tests/experiments/data/importing/test_tables.py -k several_tables",
    ),
    "half a corpus left by an import that fails": fault(
        "experiments/data/importing/writing.py",
        "shutil.rmtree(partial, ignore_errors=True)",
        "pass",
        "tests/experiments/data/importing/test_import_command.py -k leaves_nothing",
    ),
    "held-out clips that are trained on": fault(
        "experiments/pretrain/clients.py",
        "if index not in held]",
        "]",
        "tests/experiments/pretrain/test_few_speakers.py -k tenth",
    ),
    "a speaker whose only clip is held out": fault(
        "experiments/pretrain/clients.py",
        "and (shared or left[speakers[index]] > 1)",
        "",
        "tests/experiments/pretrain/test_few_speakers.py -k keeps_a_clip",
    ),
    "keywords of few speakers divided by keyword": fault(
        "experiments/data/splits.py",
        "FEWEST_SPEAKERS_APART = 3",
        "FEWEST_SPEAKERS_APART = 10",
        "tests/experiments/data/test_transcribed.py -k few_speakers_of_labels",
    ),
    "an old spelling that no command takes any more": fault(
        "experiments/options/vocabulary.py",
        "word not in known and RENAMED[word] in known",
        "word in known and RENAMED[word] in known",
        "tests/experiments/options/test_vocabulary.py -k old_spellings",
    ),
    "help that is silent on a default": fault(
        "experiments/options/help.py",
        'if "Default: " not in text:',
        'if option.required and "Default: " not in text:',
        "tests/experiments/cli/test_help.py -k says_its_default_once",
    ),
    "a study that does not know its own command by a new name": fault(
        "experiments/study/cells.py",
        "respell(shlex.split(held), RESPELT_FIELDS) != respell(shlex.split(cell.command), RESPELT_FIELDS)",
        "held != cell.command",
        "tests/experiments/study/test_cells.py -k spelt_otherwise",
    ),
    "minutes that are over stop nothing": fault(
        "experiments/recognition/run.py",
        "            if over:\n                return\n",
        "",
        "tests/experiments/recognition/test_time_budget.py -k stops_at_a_validation",
    ),
    "a pace that counts compiling": fault(
        "experiments/recognition/time_budget.py",
        "    jax.block_until_ready(work())\n    started = clock()\n",
        "    started = clock()\n",
        "tests/experiments/recognition/test_time_budget.py -k leaves_compiling_out",
    ),
    "the blank phase of the last validation, not of the scored checkpoint": fault(
        "experiments/recognition/report.py",
        "points=[finite], ",
        "",
        "tests/experiments/recognition/test_finetune.py -k empty_alignments",
    ),
    "one broken file of a folder fails all": fault(
        "experiments/recognition/transcribe.py",
        " if not (files[file] and lines)",
        "",
        "tests/experiments/recognition/test_finetune.py -k folder_is_transcribed",
    ),
    "the rate of a lengthened run by its former plan": fault(
        "experiments/pretrain/opening_line.py",
        "rate(settings.rounds, first)",
        "rate(planned_before, first)",
        "tests/experiments/pretrain/test_lengthening.py -k learning_rate",
    ),
    "the doctor judges private runs by norms before clipping": fault(
        "experiments/doctor/training_checks.py",
        "not curves.clipped_updates and not curves.values",
        "not curves.values",
        "tests/experiments/doctor/test_planted_failures.py -k private_run",
    ),
    "the doctor takes every loss of zero for one that is not finite": fault(
        "experiments/doctor/transformers_log.py",
        'values.get("loss") == 0.0 and _hides_a_loss(values, loss_before)',
        'values.get("loss") == 0.0',
        "tests/experiments/doctor/test_foreign_logs.py -k after_small_ones",
    ),
    "a bar in a cell ends the cell": fault(
        "experiments/report/tables.py",
        '.replace("|", "\\\\|")',
        "",
        "tests/experiments/report/test_tables.py",
    ),
    "a speaker's folder taken for a split's": fault(
        "experiments/data/importing/recording.py",
        "SPLIT_FOLDER.fullmatch(name)",
        "SPLIT_FOLDER.match(name)",
        "tests/experiments/data/importing/test_tree_layouts.py -k begin_like_splits",
    ),
    "a file whose row is left out listed twice": fault(
        "experiments/data/importing/layouts.py",
        "for path in found.named}",
        "for path in [recording.path for recording in found.recordings]}",
        "tests/experiments/data/importing/test_tables.py -k listed_once",
    ),
    "a recording without a segment passed over": fault(
        "experiments/data/importing/manifests.py",
        "if name not in used:",
        "if False:",
        "tests/experiments/data/importing/test_manifests.py -k no_segment",
    ),
    "an --out that is a link found after the work": fault(
        "experiments/data/importing/writing.py",
        "if out.is_symlink():",
        "if False:",
        "tests/experiments/data/importing/test_import_command.py -k before_the_work",
    ),
    "a damaged .gz ends in a traceback": fault(
        "experiments/data/importing/recording.py",
        "(OSError, EOFError, ValueError, zlib.error)",
        "(OSError, EOFError, ValueError)",
        "tests/experiments/data/importing/test_tables.py -k damaged_table",
    ),
    "updates that are too large counted twice in a report": fault(
        "experiments/pretrain/outcome.py",
        'count("skipped_clients") - large',
        'count("skipped_clients")',
        "tests/experiments/pretrain/test_report.py -k by_reason",
    ),
    "a report calls chance a gain over the control": fault(
        "experiments/pretrain/outcome.py",
        "not differs(found - control, error)",
        "found <= control",
        "tests/experiments/pretrain/test_report.py -k within_its_error",
    ),
    "flags and versions not folded": fault(
        "experiments/report/footer.py",
        "fold(title, flags + versions)",
        "flags + versions",
        "tests/experiments/report/test_page.py -k folded",
    ),
    "the spread of all clips in place of the interval over speakers": fault(
        "experiments/recognition/outcome.py",
        "half = interval(rates)",
        "half = interval(rates * 4)",
        "tests/experiments/recognition/test_report.py -k recognizers",
    ),
    "a tracked run gets lines twice": fault(
        "experiments/runs/tracking.py",
        'if step <= self._held["last"]:',
        "if False:",
        "tests/experiments/runs/test_tracking.py -k sends_each_line_once",
    ),
    "a tracked run that continues becomes another": fault(
        "experiments/runs/tracking.py",
        "known.get(library, fresh)",
        "fresh",
        "tests/experiments/runs/test_tracking.py -k sends_each_line_once",
    ),
    "the time left holds the compilation of the first round": fault(
        "experiments/process/progress.py",
        "first = 0 if self._compiled else 1",
        "first = 0",
        "tests/experiments/process/test_progress.py -k first_round",
    ),
    "a centralised run goes on with parameters that are not finite": fault(
        "experiments/pretrain/rounds.py",
        "None if result.finite else divergence(result.round_index)",
        "None",
        "tests/experiments/pretrain/test_divergence.py -k first_stretch",
    ),
    "the last of fairseq's validation subsets is held out": fault(
        "experiments/doctor/fairseq_log.py",
        "tag not in subsets[1:]",
        "tag not in subsets[:0]",
        "tests/experiments/doctor/test_tool_logs.py -k several_subsets",
    ),
    "a healthy accuracy over control is printed as a share": fault(
        "experiments/doctor/healthy_ranges.py",
        "least / control if control else least",
        "least",
        "tests/experiments/doctor/test_healthy_ranges.py -k inside_the_range",
    ),
    "a board's CPU is held against the rate of its GPU": fault(
        "experiments/costs/rate_share.py",
        'known.processor != {"cuda": "gpu"}.get(device.platform, device.platform)',
        "False",
        "tests/experiments/costs/test_rate_share.py -k part_that_trains",
    ),
    "error feedback that forgets what was not sent": fault(
        "fed/compression/compressed.py",
        'meant = jax.tree.map(jnp.add, _parts(fresh), trained.memory["unsent"])',
        "meant = _parts(fresh)",
        "tests/fed/compression/test_compressed.py -k meant",
    ),
    "codecs that leave the control of SCAFFOLD as it is": fault(
        "fed/compression/compressed.py",
        "if _shapes(part) == like}",
        'if name == "update"}',
        "tests/fed/compression/test_compressed.py -k serialised",
    ),
    "compressed messages counted as dense ones": fault(
        "fed/compression/compressed.py",
        "return codec.bytes_of(parts) + array_bytes(message) - array_bytes(parts)",
        "return array_bytes(message)",
        "tests/fed/compression/test_compressed.py -k serialised",
    ),
    "quantisation that rounds to the nearest level": fault(
        "fed/compression/quantisation.py",
        "jax.random.uniform(key, rows.shape)",
        "0.5",
        "tests/fed/compression/test_codecs.py -k keeps_the_mean",
    ),
    "quantisation by one scale for a whole array": fault(
        "fed/compression/quantisation.py",
        "jnp.abs(rows).max(1, keepdims=True) *",
        "jnp.zeros((len(rows), 1)) + jnp.abs(rows).max() *",
        "tests/fed/compression/test_codecs.py -k scales_of_their_own",
    ),
    "server state that clients read is not counted down": fault(
        "fed/compression/transfers.py",
        "algorithm.bytes_down(parameters) + read + state",
        "algorithm.bytes_down(parameters) + state",
        "tests/fed/compression/test_compressed.py -k by_algorithm",
    ),
    "low-rank changes without their factor": fault(
        "fed/compression/partial.py",
        "kernel + scale * jnp.matmul",
        "kernel + jnp.matmul",
        "tests/fed/test_partial.py -k merge_exactly",
    ),
    "FedProx pulls half as hard": fault(
        "fed/algorithms/averaging.py",
        "g + mu * (x - start)",
        "g + 0.5 * mu * (x - start)",
        "tests/fed/algorithms/test_fedjax.py -k fedprox",
    ),
    "real clients get no state that they read": fault(
        "fed/flower/messages.py",
        "return [id(value) in used for value",
        "return [id(value) not in used for value",
        "tests/fed/test_flower.py -k only_state",
    ),
    "a peer's missing interpreter goes by without a word": fault(
        "experiments/bench/rounds/peers/environments.py",
        "if python is None:",
        "if python == 0:",
        "tests/experiments/bench/test_bench_rounds.py -k interpreter",
    ),
    "clients that begin each round with the server's local leaves": fault(
        "fed/algorithms/personal.py",
        "start._replace(parameters=joined(start.parameters, own))",
        "start._replace(parameters=server.parameters)",
        "tests/fed/algorithms/test_personal.py -k loop_does",
    ),
    "an encoder that does not wait for the head": fault(
        "experiments/recognition/schedule.py",
        "jnp.where(step < updates, jnp.zeros_like(g), g)",
        "g",
        "tests/experiments/recognition/test_federated_finetuning.py -k waits",
    ),
    "withheld clips that are trained on": fault(
        "experiments/recognition/clients/labelled_clients.py",
        "if index not in chosen]",
        "]",
        "tests/experiments/recognition/test_federated_finetuning.py -k fifth",
    ),
}


def fails(planted: Fault) -> bool:
    """Whether its tests fail on a copy of the tree with the fault in it.

    Raises:
        ValueError: the code to replace is no longer there.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        everywhere, at_top = (
            shutil.ignore_patterns("*cache*", ".coverage*"),
            shutil.ignore_patterns(*NOT_COPIED),
        )
        shutil.copytree(
            ROOT,
            copy,
            ignore=lambda at, names: (
                everywhere(at, names) | (at_top(at, names) if Path(at) == ROOT else set())
            ),
        )
        path = copy / planted.file
        text = path.read_text()
        for old, new in planted.changes:
            if old not in text:
                raise ValueError(f"{planted.file} no longer holds {old!r}")
            text = text.replace(old, new)
        path.write_text(text)
        # Run from the copy, so that it is imported and not the installed tree.
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-p",
            "no:cacheprovider",
            *planted.tests.split(" -k ")[:1],
        ]
        if " -k " in planted.tests:
            command += ["-k", planted.tests.split(" -k ")[1]]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise ValueError(f"{planted.tests} cannot be run: {(done.stdout + done.stderr)[-300:]}")
        return done.returncode == 1


def main(names: list[str]) -> int:
    """Plant the named faults, or all of them."""
    missed = 0
    chosen = {name: planted for name, planted in FAULTS.items() if not names or name in names}
    for tests in sorted({planted.tests for planted in chosen.values()}):
        if fails(Fault("README.md", (), tests)):
            sys.exit(f"{tests} fails without any fault: nothing can be told")
    for name, planted in chosen.items():
        caught = fails(planted)
        missed += not caught
        print(f"{'noticed ' if caught else 'MISSED  '} {name}", flush=True)
    print(f"{missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
