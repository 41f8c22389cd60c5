"""The table of commands, and the list of those that continue after an interruption."""

# name -> (module, summary). A module is imported only when its command runs.
COMMANDS = {
    "pretrain": ("experiments.pretrain.command", "pre-train across simulated clients, or centrally"),
    "finetune": (
        "experiments.recognition.finetune",
        "train a speech recognizer or keyword spotter on an encoder, and score it",
    ),
    "transcribe": ("experiments.recognition.transcribe", "transcribe audio files with a fine-tuned run"),
    "probe": ("experiments.probe.command", "judge frozen encoders by simple probes of their frames"),
    "convert": (
        "experiments.models.convert",
        "convert Hugging Face and fairseq models to run folders, and back",
    ),
    "watch": ("experiments.watch.command", "show the progress of runs live in the terminal"),
    "compare": ("experiments.pretrain.compare", "compare held-out curves of several runs"),
    "profile": (
        "experiments.costs.profile.command",
        "count operations and memory of a training step by module",
    ),
    "feasibility": (
        "experiments.feasibility.command",
        "estimate which devices could pre-train, and in how long",
    ),
    "export": (
        "experiments.costs.export",
        "export a training step for boards, with the runner that times it there",
    ),
    "plans grid": (
        "experiments.costs.devices.plan_grid",
        "make memory plans for many lengths and batch sizes, which feasibility reads",
    ),
    "plans": (
        "experiments.costs.devices.plans",
        "plan a training step's memory for boards that are not here, with their compilers",
    ),
    "reproduce all": (
        "experiments.reproduce.all",
        "reproduce all tables and figures of the paper: one HTML page",
    ),
    "reproduce fig1": (
        "experiments.reproduce.fig1",
        "the paper's Figure 1: federated against centralised, supervised against both",
    ),
    "reproduce fig5": (
        "experiments.reproduce.fig5.command",
        "the paper's Figure 5: federated pre-training, and ASR after it, with references",
    ),
    "reproduce frontier": (
        "experiments.reproduce.frontier.command",
        "the paper's memory wall: memory against time by method; cells that ran out of memory, tried again",
    ),
    "reproduce table1": (
        "experiments.reproduce.table1",
        "the paper's Table 1: parameters and FLOPs by module",
    ),
    "reproduce table2": (
        "experiments.reproduce.table2",
        "the paper's Table 2: seconds a step by device, as printed, modelled and measured",
    ),
    "reproduce section41": (
        "experiments.reproduce.section41",
        "the paper's projection to 2027, its sensitivity, and today's boards",
    ),
    "reproduce fig2": ("experiments.reproduce.fig2", "the paper's Figure 2: memory and compute by layer"),
    "reproduce fig3": ("experiments.reproduce.fig3", "the paper's Figure 3: memory and FLOPs against length"),
    "reproduce fig4": ("experiments.reproduce.fig4", "the paper's Figure 4: fp32 against mixed precision"),
    "study mechanism": (
        "experiments.study.mechanism.command",
        "measure which clients loss-weighted averaging favours, clean or spoilt, by temperature",
    ),
    "study representations": (
        "experiments.study.representations.command",
        "pre-train in several ways at equal audio, and probe the frozen encoders",
    ),
    "study few-labels": (
        "experiments.study.few_labels.command",
        "fine-tune the encoders of that study with few labels, beside encoders from scratch and log-mel",
    ),
    "study length": (
        "experiments.study.length",
        "pre-train on clips cut to 1, 2, 4 and 8 s: cost and error rates",
    ),
    "data synth": ("experiments.data.synth", "write a synthetic corpus in the Common Voice layout"),
    "data prepare": ("experiments.data.prepare", "decode a Common Voice tarball or folder once, into shards"),
    "data describe": ("experiments.data.describe", "count a corpus and draw charts of it"),
    "bench data": ("experiments.bench.data", "prepare and feed a corpus of Common Voice's size"),
    "bench rounds": (
        "experiments.bench.rounds.command",
        "measure seconds per round of this project and its peers",
    ),
    "bench utilisation": (
        "experiments.bench.utilisation",
        "measure what share of a device's peak rate a step reaches, and what takes the rest",
    ),
    "bench memory": (
        "experiments.bench.memory.command",
        "measure memory and time of training by method",
    ),
    "bench cohorts": (
        "experiments.bench.cohorts",
        "measure memory and time of a round against its number of clients",
    ),
    "bench compile": ("experiments.bench.compile", "measure seconds to compile a round, cold and cached"),
    "bench clients": ("experiments.bench.clients", "measure seconds per round: loop, vmap and lanes"),
}
# Commands that continue where they were interrupted.
RESUMABLE = (
    "pretrain",
    "finetune",
    "data prepare",
    "study mechanism",
    "study length",
    "study representations",
    "study few-labels",
    "reproduce all",
    "reproduce fig1",
    "reproduce fig5",
    "reproduce frontier",
)
