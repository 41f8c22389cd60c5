"""Measure an exported training step on this machine. This file is copied to a board beside its artifact.

It needs Python 3.8 or later, numpy and jax; jax.export needs flatbuffers too.
docs/guides/boards.md explains its use.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

try:
    import numpy as np
except ImportError:
    if __name__ != "__main__":
        raise
    print("runner: error: numpy is not installed: python -m pip install numpy", file=sys.stderr)
    sys.exit(2)

FORMAT = 1
SAMPLE_SECONDS = 0.2
NEWER_DAYS = 183
PROBED = ("parameters", "optimizer")  # the probe compares how far the leaves below each of these move
# Rails that feed the whole board: Thor; Xavier NX, Orin NX and Nano; these and the old Nano in older
# releases.
WHOLE_RAILS = ("VIN", "VDD_IN", "5V_IN", "POM_5V_IN")
PARTIAL_RAILS = ("VDDQ_VDD2_1V8AO",)  # AGX Orin counts this rail in VIN_SYS_5V0 too
ENVIRONMENT = ("XLA_FLAGS", "JAX_PLATFORMS", "XLA_PYTHON_CLIENT_PREALLOCATE", "CUDA_VISIBLE_DEVICES")
RESULTS = (  # noqa: SIM905
    "versions path platform device_kind deserialise_seconds compile_seconds first_call_seconds step_seconds "
    "median_seconds p10_seconds p90_seconds mean_seconds spread steps audio_seconds_per_second program_bytes "
    "peak_bytes idle_bytes compiled_bytes lifetime_peak_bytes power"
).split()


class Refusal(Exception):
    """The step cannot be measured here; the message says why in one line."""


# ---- Arguments and the probe. The exporter imports `draw` and `probe_values`. ----


def draw(entry, seed, index):
    """Draw the first value of the argument `entry`, which has position `index` among state and inputs.

    RandomState's streams are frozen, so every numpy draws the same numbers. Two versions of jax may differ.
    """
    shape, spec = tuple(entry["shape"]), entry["draw"]
    random = np.random.RandomState([seed, index])
    if spec["kind"] == "constant":
        values = np.full(shape, spec["value"], entry["dtype"])
    elif spec["kind"] == "normal":
        values = random.normal(spec["mean"], spec["std"], shape)
    elif spec["kind"] == "uniform":
        values = random.uniform(spec["low"], spec["high"], shape)
    elif spec["kind"] == "range":
        values = np.broadcast_to(np.arange(shape[-1]), shape)
    else:
        raise ValueError(f"{entry['name']}: unknown draw {spec['kind']!r}")
    return np.asarray(values).astype(entry["dtype"])


def draw_arguments(manifest, seed, place=np.asarray):
    """Draw state and inputs; each array goes through `place` before the next is drawn."""
    entries, leaves = manifest["state"] + manifest["inputs"], len(manifest["state"])
    arrays = [place(draw(entry, seed, index)) for index, entry in enumerate(entries)]
    return arrays[:leaves], arrays[leaves:]


def step_inputs(manifest, inputs, seed, step):
    """Return the inputs of one step: the drawn ones with the step's own key and number."""
    own = {"key_data": np.array([seed, step], np.uint32), "step": np.array(step, np.int32)}
    return [own.get(entry["name"], inputs[index]) for index, entry in enumerate(manifest["inputs"])]


def probe_values(call, manifest, seed, steps, place=np.asarray):
    """Return the losses of the first steps, and how far the first step moves the state.

    Args:
        call: (list of state leaves, list of inputs) -> (list of new state leaves, loss).
        manifest: description of the artifact.
        seed: seed of state and inputs.
        steps: number of steps.
        place: function for each drawn array, such as moving it to the device.
    """
    state, inputs = draw_arguments(manifest, seed, place)
    losses, norms = [], {}
    for step in range(steps):
        state, loss = call(state, step_inputs(manifest, inputs, seed, step))
        losses.append(float(loss))
        if step == 0:
            norms = _change_norms(state, manifest, seed)
    return {"losses": losses, "change_norms": norms}


def _change_norms(state, manifest, seed):
    """Compute the norms of the change of parameters and of the optimizer state."""
    squares = {}
    for index, entry in enumerate(manifest["state"]):
        prefix, below, _ = entry["name"].partition("/")
        if below and prefix in PROBED and np.dtype(entry["dtype"]).kind == "f":
            # The old value is drawn again instead of kept, to save memory. The new value is copied, because
            # jax does not donate an array whose memory numpy shares.
            new, old = np.asarray(state[index].copy()), draw(entry, seed, index)
            change = np.subtract(new, old, dtype=np.float64)
            squares[prefix] = squares.get(prefix, 0.0) + float(np.vdot(change, change))
    return {prefix: math.sqrt(total) for prefix, total in squares.items()}


def first_wrong(expected, found, tolerance):
    """Describe the first probe value outside its tolerance; return None if all are inside."""
    checks = [
        (f"the loss of step {step}", right, found["losses"][step], tolerance)
        for step, right in enumerate(expected["losses"])
    ]
    # The difference of two states keeps fewer digits than a loss.
    for prefix, right in expected["change_norms"].items():
        checks.append((f"the change of {prefix}", right, found["change_norms"].get(prefix), 10 * tolerance))
    for name, right, value, allowed in checks:
        finite = value is not None and math.isfinite(value) and math.isfinite(right)
        if not (finite and abs(value - right) <= allowed * abs(right)):
            return f"{name} is {value}, expected {right} within {allowed:g} of that"
    return None


# ---- Checks of files and versions. ----


def load_manifest(folder):
    """Read the artifact's description and its checksum, and check the files of the artifact that exist.

    Raises:
        Refusal: a file is missing, damaged or of another format.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise Refusal(f"no such folder: {folder}")
    path = folder / "artifact.json"
    text, noted = _bytes(path), _bytes(folder / "artifact.json.sha256")
    checksum = _checked(path, text, noted.decode("ascii", "replace").strip())
    try:
        manifest = json.loads(text.decode("utf-8"))
        found = manifest["format"]
    except (ValueError, KeyError, TypeError):
        raise Refusal(f"{path} is not the description of an artifact: export it anew") from None
    if found != FORMAT:
        raise Refusal(f"{path} has format {found}, this runner reads {FORMAT}: use that export's runner")
    for entry in [*manifest["programs"].values(), manifest.get("plain")]:
        if entry and (folder / entry["file"]).exists():  # a program for another platform may be left out
            _checked(folder / entry["file"], _bytes(folder / entry["file"]), entry["sha256"])
    return manifest, checksum


def _bytes(path):
    """Read a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refusal(f"cannot read {path}: {error.strerror}") from None


def _checked(path, content, noted):
    """Compare a file's content with its noted checksum; return the checksum."""
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != noted:
        raise Refusal(f"{path} is damaged or was changed (its SHA-256 is not the exported one): copy it anew")
    return checksum


def window_refusal(manifest, jax_version, today, supported):
    """Say why jax.export does not promise that this jax runs the artifact; return None if it does.

    The promise counts days between releases of jax, whose dates are not known here. So every older jax is
    refused, and every newer jax is refused from 183 days after the export on.

    Args:
        manifest: description of the artifact.
        jax_version: version of the jax here.
        today: datetime.date.
        supported: the lowest and the highest calling convention that this jax knows.
    """
    exported = manifest["exported"]
    theirs, convention = exported["jax"], exported["calling_convention_version"]
    low, high = supported
    if not low <= convention <= high:
        return f"the artifact has calling convention {convention}, the jax here knows {low} to {high}"
    if _release(jax_version) < _release(theirs):
        return (
            f"jax {jax_version} is older than the exporting jax {theirs}, and jax.export promises to run an "
            "artifact on a jax at most 3 weeks older (--ignore-window tries it)"
        )
    days = (today - datetime.date(*map(int, exported["date"].split("-")))).days
    if _release(jax_version) > _release(theirs) and days > NEWER_DAYS:
        return (
            f"jax {jax_version} is newer than the exporting jax {theirs}, the export {days} days old, and "
            "jax.export promises to run it on a jax at most 6 months newer (--ignore-window tries it)"
        )
    return None


def _release(version):
    return tuple(int(digits) for digits in re.findall(r"\d+", version)[:3])


# ---- The board. Readers take a file system's root and return None for values that cannot be read. ----


def _text(path):
    """Read a text file."""
    try:
        return path.read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _number(path, scale=1.0):
    """Read a number from a file and scale it."""
    try:
        return float(_text(path) or "") * scale
    except ValueError:
        return None


def _said(*command):
    """Run a tool and return its output; None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _found(pattern, text):
    """Return the first group of a pattern's match in a text."""
    match = re.search(pattern, text or "", re.MULTILINE)
    return match.group(1) if match else None


def describe_board(root="/"):
    """Describe the board by facts that do not change while the step runs."""
    root = Path(root)
    model, release = _text(root / "proc/device-tree/model"), _text(root / "etc/nv_tegra_release")
    memory = _found(r"^MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo"))
    keys = ("model name", "CPU implementer", "CPU part")  # Linux on ARM gives numbers instead of a name
    name, *numbers = (_found(rf"^{key}\s*: (.*)$", _text(root / "proc/cpuinfo")) for key in keys)
    governors = {_text(path) for path in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")}
    return {
        "model": model,
        "machine": os.uname().machine,
        "cpu": name or ("implementer {}, part {}".format(*numbers) if all(numbers) else None),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": int(memory) * 1024 if memory else None,
        "unified_memory": bool(
            re.search("jetson|orin|tegra|raspberry", f"{model} {os.uname().release}", re.I)
        ),
        "kernel": os.uname().release,
        "l4t": release.splitlines()[0] if release else None,
        "power_mode": _said("nvpmodel", "-q") if root == Path("/") else None,
        "governors": sorted(filter(None, governors)),
    }


def board_now(root="/"):
    """Read clocks, temperatures and throttling at this moment."""
    root, real = Path(root), Path(root) == Path("/")
    cores = sorted(root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"))
    clocks = {path.parts[-3]: _number(path, 1e3) for path in cores}  # kHz
    clocks.update({p.parent.name: _number(p) for p in sorted(root.glob("sys/class/devfreq/*/cur_freq"))})
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*"))
    card = "--query-gpu=clocks.sm,temperature.gpu,power.limit,clocks_throttle_reasons.active"
    return {
        "clocks_hz": clocks,
        "temperatures_celsius": {f"{z.name} {_text(z / 'type')}": _number(z / "temp", 1e-3) for z in zones},
        "throttled": _said("vcgencmd", "get_throttled") if real else None,  # Raspberry Pi
        "nvidia_smi": _said("nvidia-smi", card, "--format=csv") if real else None,
    }


def find_rails(root="/", platform="cpu"):
    """Find the power rails: {name: function that reads watts, or returns None while it has no figure}.

    The functions raise OSError or ValueError when a rail cannot be read.
    """
    root, rails = Path(root), {}

    def product(scale, *paths):
        return lambda: scale * float(np.prod([float(path.read_text()) for path in paths]))

    # JetPack 4 has NVIDIA's driver (milliwatts), later ones have the kernel's (millivolts and milliamperes).
    for label in sorted(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*")):
        milliwatts = label.parent / f"in_power{label.name[len('rail_name_') :]}_input"
        rails[_text(label) or label.name] = product(1e-3, milliwatts)
    for label in sorted(root.glob("sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in[123]_label")):
        files = [label.parent / f"{kind}{label.name[2]}_input" for kind in ("in", "curr")]
        rails[_text(label) or label.name] = product(1e-6, *files)
    for power in sorted(root.glob("sys/bus/i2c/drivers/ina238/*/hwmon/hwmon*/power1_input")):
        rails["VIN"] = product(1e-6, power)  # Thor's whole board, in microwatts
    rails.pop("NC", None)  # not connected
    if rails:
        return rails
    if platform == "cuda":
        return {"nvidia-smi": _card_watts} if root == Path("/") and shutil.which("nvidia-smi") else {}
    for energy in sorted(root.glob("sys/class/powercap/intel-rapl:*/energy_uj")):
        kind = _text(energy.parent / "name") or ""
        if kind.startswith(("package", "dram")):  # these zones contain the others
            rails[f"{energy.parent.name} {kind}"] = _counter_watts(energy)
    return rails


def _card_watts():
    """Read the power of the NVIDIA card that jax uses."""
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    query = ("--query-gpu=power.draw", "--format=csv,noheader,nounits", "-i", card)
    return float(_said("nvidia-smi", *query) or "")


def _counter_watts(path):
    """Return a function that converts an energy counter (microjoules) to watts since its last call."""
    last = []

    def watts():
        now = (time.perf_counter(), float(path.read_text()) * 1e-6)
        before, last[:] = list(last), [now]
        if not before or now[1] < before[0][1]:  # no interval yet, or the counter started again from zero
            return None
        return (now[1] - before[0][1]) / (now[0] - before[0][0])

    return watts


class PowerSampler(threading.Thread):
    """Read rails about five times a second until stopped."""

    def __init__(self, rails):
        super().__init__(daemon=True)
        self.rails, self.rows, self.failures, self.ended = rails, [], {}, threading.Event()

    def sample(self):
        row = {}
        for name, read in self.rails.items():
            try:
                row[name] = read()
            except (OSError, ValueError) as error:
                self.failures[name] = str(error)
        self.rows.append({name: watts for name, watts in row.items() if watts is not None})

    def run(self):
        self.sample()
        while not self.ended.wait(SAMPLE_SECONDS):
            self.sample()
        self.sample()

    def stop(self):
        self.ended.set()
        self.join()

    def summary(self, step_seconds):
        """Return the watts of each rail and in total with joules a step, and notes on missing figures."""
        whole = [name for name in WHOLE_RAILS if name in self.rails][:1]
        total = whole or [name for name in self.rails if name not in PARTIAL_RAILS]
        sums = [sum(row[name] for name in total) for row in self.rows if total and set(total) <= set(row)]
        notes = [f"power rail {name} could not always be read: {why}" for name, why in self.failures.items()]
        if not self.rails:
            notes.append("no power rails can be read here: no energy")
        elif not sums:
            notes.append(f"{' + '.join(total)} gave no power: no energy")
        elif not whole:
            notes.append(f"no rail feeds the whole board: power is that of {' + '.join(total)}")
        watts = float(np.mean(sums)) if sums else None
        rails = {}
        for name in self.rails:
            read = [row[name] for row in self.rows if name in row]
            rails[name] = {"mean_watts": float(np.mean(read)) if read else None, "samples": len(read)}
        joules = None if watts is None else watts * step_seconds
        return {"rails": rails, "total_of": total, "mean_watts": watts, "joules_per_step": joules}, notes


def _resident(field):
    """Read this process's VmRSS or VmHWM in bytes; without /proc, return ru_maxrss."""
    kilobytes = _found(rf"^{field}:\s*(\d+)", _text(Path("/proc/self/status")))
    return 1024 * int(kilobytes) if kilobytes else _most_resident(resource.RUSAGE_SELF)


def _most_resident(whose):
    """Return ru_maxrss in bytes; macOS counts bytes, Linux kilobytes."""
    return resource.getrusage(whose).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _settle():
    """Return freed memory to the system, count the peak anew, and return the resident bytes."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


# ---- The child process, which does everything that needs jax. ----


class Measurement:
    """One measurement. `record` becomes timings.json; it is saved at every stage."""

    def __init__(self, args):
        self.args, self.folder = args, Path(args.folder)
        self.manifest, checksum = load_manifest(self.folder)
        kept = ("description", "settings", "exported", "audio_seconds", "flops", "memory")
        self.record = {
            "format": FORMAT,
            "status": None,
            "artifact": {"checksum": checksum, **{key: self.manifest.get(key) for key in kept}},
            "device": args.device,
            "date_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": shlex.join(["python", "runner.py", *sys.argv[1 : sys.argv.index("--child")]]),
            "environment": {name: os.environ.get(name) for name in ENVIRONMENT},
            "board": describe_board(),
            "probe": {"passed": None, "expected": self.manifest["probe"], "found": None},
            **dict.fromkeys(RESULTS),
            "notes": [],
        }
        self.call_seconds = []

    def stage(self, words):
        print(words, flush=True)
        self.record["stage"] = words
        _write(Path(self.args.child), self.record)

    def note(self, words):
        print("note: " + words, flush=True)
        self.record["notes"].append(words)

    def wrong(self, words):
        self.record["status"] = "wrong_result"
        self.record["notes"].append(words)

    def run(self):
        """Fill the record.

        Raises:
            Refusal: the step cannot be measured on this machine or with this jax.
        """
        self.stage("starting jax")
        self.start_jax()
        self.record["path"] = self.choose_path()
        self.stage(f"reading the step ({self.record['path']} path, {self.record['platform']})")
        step = self.load_export() if self.record["path"] == "export" else self.load_plain()
        self.stage("compiling")
        self.compile(step)
        if self.manifest["probe"] and not self.args.skip_probe:
            self.stage("checking the first steps")
            self.check_probe()
        else:
            self.note("the results were not checked")
        if self.record["status"] is None:
            self.stage(f"timing, for {self.args.seconds:g} s and {self.args.min_steps} steps at least")
            self.time_steps()

    def start_jax(self):
        for name in ("jax", "jaxlib"):
            _need(name)
        import jax

        try:
            self.device = jax.devices()[0]
        except (RuntimeError, AssertionError) as error:
            why = str(error).splitlines() or ["is jax installed with its CUDA plugin?"]
            raise Refusal(f"jax finds no device for --platform {self.args.platform}: {why[0]}") from None
        platform = "cuda" if self.device.platform == "gpu" else self.device.platform
        self.record.update(versions=_versions(jax), platform=platform, device_kind=self.device.device_kind)
        jax.block_until_ready(jax.device_put(np.zeros(1, np.float32)))
        self.record["idle_bytes"] = _settle()
        self.jax = jax

    def choose_path(self):
        if self.args.path == "plain":
            return "plain"
        ours = self.jax.__version__
        try:
            from jax import export
        except ImportError as error:
            why = f"jax {ours} has no jax.export"
            if error.name == "absl":  # jax 0.5.3 needs it and does not require it
                why = f"jax.export of jax {ours} needs absl: python -m pip install absl-py"
        else:
            low = export.minimum_supported_calling_convention_version
            high = export.maximum_supported_calling_convention_version
            version = self.manifest["exported"]["jax"] if self.args.ignore_window else ours
            why = window_refusal(self.manifest, version, datetime.date.today(), (low, high))
        if why is None:
            return "export"
        if self.args.path == "auto" and self.manifest.get("plain"):
            self.note(f"{why}: the plain path is taken")
            return "plain"
        raise Refusal(f"{why}; --path plain lowers the step from its source")

    def load_export(self):
        _need("flatbuffers")
        from jax import export

        programs, platform = self.manifest["programs"], self.record["platform"]
        if platform not in programs:
            raise Refusal(f"the artifact has no program for {platform}, only for {', '.join(programs)}")
        blob = _bytes(self.folder / programs[platform]["file"])
        begun = time.perf_counter()
        exported = export.deserialize(bytearray(blob))
        self.record["deserialise_seconds"] = time.perf_counter() - begun
        return exported.call

    def load_plain(self):
        if not self.manifest.get("plain"):
            raise Refusal("the artifact has no plain step")
        path = self.folder / self.manifest["plain"]["file"]
        names: dict[str, Any] = {"__name__": "plain_step"}
        exec(compile(_bytes(path), str(path), "exec"), names)
        return names["make_step"](self.manifest)

    def compile(self, step):
        entries, leaves = self.manifest["state"] + self.manifest["inputs"], len(self.manifest["state"])
        shapes = [self.jax.ShapeDtypeStruct(tuple(e["shape"]), np.dtype(e["dtype"])) for e in entries]
        # An exported program does not record that its state is donated.
        jitted = self.jax.jit(step, donate_argnums=tuple(range(leaves)))
        begun = time.perf_counter()
        self.compiled = jitted.lower(*shapes).compile()
        self.record["compile_seconds"] = time.perf_counter() - begun
        self.record["program_bytes"] = _program_bytes(self.compiled)

    def place(self, array):
        # A copy that jax owns, because an array that shares numpy's memory cannot be donated.
        moved = self.jax.device_put(array)
        own = self.jax.block_until_ready(moved.copy())
        moved.delete()
        return own

    def call(self, state, inputs):
        inputs = self.jax.block_until_ready([self.jax.device_put(array) for array in inputs])
        begun = time.perf_counter()
        outputs = self.jax.block_until_ready(self.compiled(*state, *inputs))
        self.call_seconds.append(time.perf_counter() - begun)
        self.record["first_call_seconds"] = self.call_seconds[0]
        return list(outputs[:-1]), outputs[-1]

    def check_probe(self):
        expected = self.manifest["probe"]
        found = probe_values(self.call, self.manifest, expected["seed"], len(expected["losses"]), self.place)
        wrong = first_wrong(expected, found, expected["relative_tolerance"])
        self.record["probe"].update(passed=wrong is None, found=found)
        if wrong:
            self.wrong(wrong)

    def time_steps(self):
        args, manifest, record = self.args, self.manifest, self.record
        warm_up = args.warm_up if self.call_seconds else max(args.warm_up, 1)  # the first call is not timed
        record["compiled_bytes"] = _settle()
        if not os.access("/proc/self/clear_refs", os.W_OK):
            self.note("the kernel cannot count the peak anew, so the peak includes compiling")
        state, inputs = draw_arguments(manifest, args.seed, self.place)
        _settle()  # drawing in float64 may take more memory than a step
        sampler = PowerSampler(find_rails(platform=record["platform"]))
        samples, spent, step = [], 0.0, 0
        while spent < args.seconds or len(samples) < args.min_steps:
            if step == warm_up:
                record["board"]["before"] = board_now()
                sampler.start()
            state, loss = self.call(state, step_inputs(manifest, inputs, args.seed, step))
            if not math.isfinite(float(loss)):
                return self.wrong(f"the loss of step {step} is {float(loss)}")
            if step >= warm_up:
                samples.append(self.call_seconds[-1])
                spent += samples[-1]
            step += 1
        sampler.stop()
        record["board"]["after"] = board_now()
        on_device = self.device.memory_stats() or {}  # None on a CPU
        peak = on_device.get("peak_bytes_in_use", _resident("VmHWM") - record["idle_bytes"])
        record.update(_statistics(samples, manifest["audio_seconds"]), peak_bytes=peak)
        record["power"], notes = sampler.summary(record["mean_seconds"])
        for words in notes:
            self.note(words)
        record["status"] = "timed"
        return None


def _versions(jax):
    """Return the versions of Python and of the packages that matter."""
    versions = {"python": sys.version.split()[0], "jax": jax.__version__, "numpy": np.__version__}
    for name in ("jaxlib", "flatbuffers", "jax-cuda12-plugin", "jax-cuda13-plugin"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _program_bytes(compiled):
    """Return XLA's memory plan in bytes; None where it is missing or all zero, as in an old jax."""
    plan = compiled.memory_analysis()
    parts = {"arguments": "argument", "outputs": "output", "temporaries": "temp", "aliased": "alias"}
    sizes = {name: getattr(plan, f"{part}_size_in_bytes", 0) for name, part in parts.items()}
    return sizes if any(sizes.values()) else None


def _statistics(samples, audio_seconds):
    """Summarise the seconds of timed steps."""
    median, p10, p90 = (float(np.percentile(samples, percent)) for percent in (50, 10, 90))
    return {
        "step_seconds": samples,
        "median_seconds": median,
        "p10_seconds": p10,
        "p90_seconds": p90,
        "mean_seconds": float(np.mean(samples)),
        "spread": (p90 - p10) / median,
        "steps": len(samples),
        "audio_seconds_per_second": audio_seconds / median,
    }


def _need(package):
    """Refuse to go on without a package."""
    if importlib.util.find_spec(package) is None:
        raise Refusal(f"{package} is not installed: python -m pip install {package}")


def _out_of_memory(error):
    """Tell whether an error means that memory ran out."""
    text = str(error)
    # A kernel can also exhaust a GPU's registers or shared memory, which is another fault.
    exhausted = "RESOURCE_EXHAUSTED" in text and not re.search("shared memory|register", text, re.IGNORECASE)
    signs = ("CUDA_ERROR_OUT_OF_MEMORY", "std::bad_alloc", "LLVM ERROR: out of memory")
    return isinstance(error, MemoryError) or exhausted or any(sign in text for sign in signs)


def measure_here(args):
    """Child: measure, and write the record to the file `args.child`."""
    with contextlib.suppress(OSError):  # asks the kernel to kill this process before others
        Path("/proc/self/oom_score_adj").write_text("1000")
    measurement = Measurement(args)
    record = measurement.record
    try:
        measurement.run()
    except Refusal as refusal:
        record["refused"] = str(refusal)
    except Exception as error:
        record["reason"] = f"{type(error).__name__}: {error}".splitlines()[0]
        if not _out_of_memory(error):
            _write(Path(args.child), record)
            raise
        record["status"] = "out_of_memory"
    _write(Path(args.child), record)
    return 0


# ---- The parent process, which outlives a step that the kernel kills. ----


def measure(args, arguments):
    """Measure in a child process and return the exit status."""
    load_manifest(args.folder)
    out = Path(args.out)
    if out.is_dir() or not os.access(str(out.parent), os.W_OK):
        raise Refusal(f"cannot write {out}")
    environment = dict(os.environ, JAX_ENABLE_COMPILATION_CACHE="false")  # else compiling takes no time
    if (
        args.platform != "cpu"
    ):  # boards share memory, so memory that jax takes in advance is missing elsewhere
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if args.platform != "auto":
        environment["JAX_PLATFORMS"] = args.platform
    with tempfile.TemporaryDirectory() as scratch:
        saved, log = Path(scratch) / "record.json", Path(scratch) / "stderr.txt"
        command = [sys.executable, os.path.abspath(__file__), *arguments, "--child", str(saved)]
        with log.open("wb") as stderr:
            child = subprocess.run(command, stderr=stderr, env=environment, check=False)
        record = json.loads(saved.read_text()) if saved.exists() else {}
        said = log.read_text(errors="replace").strip() or "it printed no error"
    if "refused" in record:
        raise Refusal(record["refused"])
    stage, reason, status = record.pop("stage", "starting"), record.pop("reason", None), record.get("status")
    if record and not status and child.returncode == -signal.SIGKILL:
        status, reason = "out_of_memory", "killed by SIGKILL, as the kernel does when memory runs out"
    elif record and not status and child.returncode == -signal.SIGABRT and _out_of_memory(said[-4000:]):
        status, reason = "out_of_memory", said.splitlines()[-1]
    if not status:
        log = out.with_name(out.name + ".log")
        log.write_text(said + "\n")
        stack = ("@", "***")  # lines of a C++ stack trace
        last = [line for line in said.splitlines() if not line.lstrip().startswith(stack)][-1:] or [said]
        print(f"runner: error: failed while {stage}: {reason or last[0]} (see {log})", file=sys.stderr)
        return 1
    record["status"] = status
    if status == "out_of_memory":
        record["notes"].append(f"out of memory while {stage}: {reason}")
    elif child.returncode:
        record["notes"].append(f"after measuring, the process ended with status {child.returncode}")
    record["lifetime_peak_bytes"] = _most_resident(resource.RUSAGE_CHILDREN)
    _write(out, record)
    print(_summary(record) + f"\nwritten to {out}")
    if status == "wrong_result":
        print(f"runner: error: wrong result: {record['notes'][-1]}", file=sys.stderr)
        return 1
    return 0


def _summary(record):
    """Summarise the record for the terminal."""
    if record["status"] != "timed":
        return record["notes"][-1]
    watts, joules = record["power"]["mean_watts"], record["power"]["joules_per_step"]
    compiled = (record["compiled_bytes"] - record["idle_bytes"]) / 1e6
    where = "on the device" if record["platform"] == "cuda" else f"above idle, {compiled:.0f} from compiling"
    return (
        f"{record['artifact']['description']} ({record['path']} path, {record['platform']}):\n"
        f"  step    {record['median_seconds']:.4g} s median of {record['steps']}, "
        f"{record['p10_seconds']:.4g} to {record['p90_seconds']:.4g} s from p10 to p90\n"
        f"  audio   {record['audio_seconds_per_second']:.3g} s a second\n"
        f"  memory  {record['peak_bytes'] / 1e6:.0f} MB at most {where}\n"
        "  energy  " + ("not known" if joules is None else f"{joules:.3g} J a step at {watts:.3g} W")
    )


def _write(path, record):
    """Write a JSON file whole or not at all; NaN and infinity, which JSON lacks, become words."""
    record = json.loads(json.dumps(record), parse_constant=str)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(str(part), str(path))


def _parse(arguments):
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="runner",
        description="Measure an exported training step on this machine.",
        epilog="example:\n  python runner.py base-4x5.5 --out orin.json --device orin-agx --seconds 30\n\n"
        "exit status: 0 measured, or out of memory; 1 wrong result, or failed; 2 refused",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    paths, platforms = ("auto", "export", "plain"), ("auto", "cpu", "cuda")
    add("folder", metavar="FOLDER", help="the exported artifact")
    add("--out", metavar="FILE", required=True, help="where to write the timings, as JSON")
    add("--platform", choices=platforms, default="auto", help="auto: cuda where jax has a GPU, else cpu")
    add("--path", choices=paths, default="auto", help="auto: plain only where this jax cannot run the export")
    add("--seconds", type=float, default=10.0, help="time steps for this many seconds (default 10)")
    add("--min-steps", type=int, default=5, help="time at least this many steps (default 5)")
    add("--warm-up", type=int, default=2, help="steps before the timed ones (default 2)")
    add("--device", metavar="NAME", help="this machine's name in reports, such as orin-agx")
    add("--ignore-window", action="store_true", help="try a jax for which jax.export gives no promise")
    add("--skip-probe", action="store_true", help="do not check the results of the first steps")
    add("--seed", type=int, default=0, help="seed of the timed steps' state and inputs (default 0)")
    add("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if not 0 <= args.seconds < math.inf or args.min_steps < 1 or args.warm_up < 0:
        parser.error("--seconds and --warm-up must be at least 0, --min-steps at least 1")
    if not 0 <= args.seed < 2**32:
        parser.error("--seed must be between 0 and 2**32 - 1")
    return args


def main(arguments=None):
    """Run the command line and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = _parse(arguments)
    try:
        return measure_here(args) if args.child else measure(args, arguments)
    except Refusal as refusal:
        print(f"runner: error: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
