"""The `w2v-jax` command: finds the subcommand, turns bad input into one line and exit status 2."""

import importlib
import os
import sys
from collections.abc import Sequence

from experiments.huge_pages import start_over_with_huge_pages

# name -> (module, summary). Modules are imported only when their command runs.
COMMANDS = {
    "pretrain": ("experiments.pretrain", "pre-train across simulated clients, or centrally"),
    "finetune": ("experiments.finetune", "train a speech recognizer on an encoder, and score it"),
    "transcribe": ("experiments.transcribe", "audio files to text, by a fine-tuned run"),
    "convert": ("experiments.convert", "Hugging Face and fairseq models to run folders, and back"),
    "watch": ("experiments.watch", "how runs go on, live in the terminal"),
    "compare": ("experiments.compare", "held-out curves of several runs side by side"),
    "profile": ("experiments.profile", "where the operations and the memory of a training step go"),
    "feasibility": (
        "experiments.feasibility",
        "which devices could pre-train, in how long, and are we there yet",
    ),
    "export": ("experiments.export", "a training step for boards, with the runner that times it there"),
    "plans grid": ("experiments.plan_grid", "plans over lengths and batches, kept for the feasibility table"),
    "plans": ("experiments.plans", "compilers' memory plans of a step for boards that are not here"),
    "reproduce all": (
        "experiments.reproduce_all",
        "are we there yet, and the paper's tables and figures beside ours: one HTML page",
    ),
    "reproduce fig1": (
        "experiments.reproduce_fig1",
        "the paper's Figure 1: federated against centralised, supervised against both",
    ),
    "reproduce fig5": (
        "experiments.reproduce_fig5",
        "the paper's Figure 5: federated pre-training, and ASR after it, with references",
    ),
    "reproduce frontier": (
        "experiments.reproduce_frontier",
        "the paper's memory wall: memory against time by training method, its OOM cells again",
    ),
    "reproduce table1": (
        "experiments.reproduce_table1",
        "the paper's Table 1: parameters and FLOPs by module",
    ),
    "reproduce table2": (
        "experiments.reproduce_table2",
        "the paper's Table 2: seconds of a step by device, printed, modelled, measured",
    ),
    "reproduce section41": (
        "experiments.reproduce_section41",
        "the paper's projection to 2027, its sensitivity, and today's boards",
    ),
    "reproduce fig2": ("experiments.reproduce_fig2", "the paper's Figure 2: memory and compute by layer"),
    "reproduce fig3": ("experiments.reproduce_fig3", "the paper's Figure 3: memory and FLOPs against length"),
    "reproduce fig4": ("experiments.reproduce_fig4", "the paper's Figure 4: fp32 against mixed precision"),
    "study mechanism": (
        "experiments.study_mechanism",
        "what loss-weighted averaging rewards: clean and spoilt clients, temperatures",
    ),
    "study length": (
        "experiments.study_length",
        "pre-training on clips cut to 1, 2, 4 and 8 s: cost and error rates",
    ),
    "data synth": ("experiments.data_synth", "write a synthetic corpus in the Common Voice layout"),
    "data prepare": ("experiments.data_prepare", "decode a Common Voice tarball or folder once, into shards"),
    "data describe": ("experiments.data_describe", "count and draw what a corpus holds"),
    "bench data": ("experiments.bench_data", "prepare and feed a corpus of Common Voice's size"),
    "bench rounds": ("experiments.bench_rounds", "seconds per round: this project beside its peers"),
    "bench utilisation": (
        "experiments.bench_utilisation",
        "how much of a device's rate a step reaches, and where the rest goes",
    ),
    "bench memory": ("experiments.bench_memory", "what training takes of memory and of time, by method"),
    "bench cohorts": ("experiments.bench_cohorts", "memory and time of a round against its clients"),
    "bench compile": ("experiments.bench_compile", "seconds to compile a round, cold and cached"),
    "bench clients": ("experiments.bench_clients", "seconds per round: loop, vmap and lanes"),
}
# Commands that go on where they were interrupted.
RESUMABLE = (
    "pretrain",
    "finetune",
    "data prepare",
    "study mechanism",
    "study length",
    "reproduce all",
    "reproduce fig1",
    "reproduce fig5",
    "reproduce frontier",
)


def usage(group: str | None = None) -> str:
    """The text of `w2v-jax --help`, or of `w2v-jax GROUP --help`."""
    named = COMMANDS if group is None else {name: COMMANDS[name] for name in in_group(group)}
    width = max(map(len, named)) + 2
    lines = [f"  {name:<{width}}{summary}" for name, (_, summary) in named.items()]
    if group is not None:
        title = f"usage: w2v-jax {group} COMMAND [OPTIONS]"
        return "\n".join(
            [title, "", *lines, "", f"w2v-jax {group} COMMAND --help lists a command's options."]
        )
    return "\n".join(
        [
            "usage: w2v-jax COMMAND [OPTIONS]",
            "",
            "Federated wav2vec 2.0 pre-training in JAX.",
            "",
            *lines,
            "",
            "w2v-jax COMMAND --help lists a command's options.",
            "example: w2v-jax pretrain --model tiny --preset ten-clients --out runs/first",
        ]
    )


def in_group(word: str) -> list[str]:
    """Names of the commands whose first of two words this is."""
    return [name for name in COMMANDS if name.startswith(f"{word} ")]


def run_command(name: str, argv: Sequence[str]) -> int:
    """Run one subcommand's `main(argv)`; bad input prints one line and gives 2."""
    from experiments.arguments import UsageError, complain, option_of
    from fed.protocols import FederationError
    from profiling.targets import TargetError
    from w2v_jax.errors import UserError

    try:
        importlib.import_module(COMMANDS[name][0]).main(list(argv))
    except (UsageError, UserError, FederationError, TargetError) as error:
        complain(str(error))
        return 2
    except BrokenPipeError:
        return unread()
    except OSError as error:
        # A path that cannot be read or written; tracebacks say no more than this.
        what, option = "", None
        if error.filename:
            what, option = f" ({error.filename})", option_of(os.fsdecode(error.filename), argv)
        blamed = f"{option}: " if option else ""
        complain(
            f"{blamed}{error.strerror or error}{what}: check the folder, its permissions and the space left"
        )
        return 2
    except KeyboardInterrupt:
        complain("interrupted" + ("; the same command continues" if name in RESUMABLE else ""))
        return 130
    return 0


def unread() -> int:
    """Exit status where whoever read our output has gone, as `head` does."""
    os.dup2(
        os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
    )  # the interpreter would complain at its end
    return 141  # what a shell reports of a broken pipe


def show(text: str) -> int:
    """Print what is all of a command's output; its exit status."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        return unread()
    return 0


def console() -> int:
    """Entry point of the console script."""
    start_over_with_huge_pages()
    return main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names; its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        return show(usage())
    for words in (2, 1):
        name, after = " ".join(argv[:words]), argv[words:]
        second = words == 1 and after and not after[0].startswith("-")  # `plans gird` is no option of `plans`
        if name in COMMANDS and not (second and in_group(name)):
            return run_command(name, after)
    if in_group(argv[0]) and argv[1:2] in ([], ["-h"], ["--help"]):
        return show(usage(argv[0]))
    from experiments.arguments import complain

    complain(unknown(argv))
    return 2


def unknown(argv: Sequence[str]) -> str:
    """What to say of words that begin with no command."""
    from experiments.arguments import closest, nearest

    word, typed = argv[0], " ".join(argv[:2])
    if (group := in_group(word)) and argv[1].startswith("-"):
        return f"{argv[1]} comes after a command: choose from {', '.join(group)}"
    if group:
        return nearest(typed, [word] * (word in COMMANDS) + group, "command")
    named_so = [name for name in COMMANDS if word in name.split()]
    close = named_so[0] if named_so else closest(typed, COMMANDS) or closest(word, COMMANDS)
    hint = f": did you mean {close}?" if close else ""
    return f"unknown command '{word}'{hint} (w2v-jax --help lists all)"


if __name__ == "__main__":
    sys.exit(main())
