"""Google's ``benchmark_model`` as a runner, for those who have it: LiteRT's and the classic one.

It prints a log, not a record, and sums up its runs: the median, minimum and maximum are told, the
single runs are not. Both tools print the same line for that
(``tensorflow/core/util/stats_calculator.h``, ``StatWithPercentiles``), and each its own summary
(``litert/tools/benchmark_litert_model.h``, ``tensorflow/lite/tools/benchmark/benchmark_model.cc``).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.files import sha256
from kzoo.measure.runtimes import BENCHMARK_MODEL
from kzoo.measure.statistics import Latency
from kzoo.measure.target import Setting
from kzoo.measure.targets.device import Ended, Runner, Transport

VARIABLE = "KZOO_BENCHMARK_MODEL"
CACHE = Path(".cache", "litert-cli", "binaries")
"""Under the home folder: where litert-cli keeps what it downloads, by Android's name of the ABI."""
CACHED_ABIS = {"aarch64": "arm64-v8a", "x86_64": "x86_64"}
PROCESSORS = {0x3E: "x86_64", 0xB7: "aarch64", 0x28: "armeabi-v7a"}
"""An ELF file's machine, of the processors there are phones with."""
FLAGS = {
    None: [],
    "xnnpack": ["--use_xnnpack=true"],
    "none": ["--use_xnnpack=false"],
    "gpu": ["--use_gpu=true"],
    "nnapi": ["--use_nnapi=true"],
}
"""Delegate → its flags."""
DELEGATES = {
    "TfLiteXNNPackDelegate": "XNNPACK",
    "TfLiteGpuDelegateV2": "GPU",
    "TfLiteNnapiDelegate": "NNAPI",
}
"""The log's name of one → ours."""
MEANT = "a list of this machine's cores is meant, such as 0,4-7"
KEPT = """kept=$(sed -n 's/^Cpus_allowed_list:[^0-9]*//p' /proc/self/status)
[ "$kept" = "$0" ] || { echo "error: only the cores $kept of these are to be had" >&2; exit 2; }
exec "$@"
"""
"""``taskset`` leaves out the cores of a mask that are not there, and says nothing; this does."""
WARM_UP = "after a warm-up of {:g} s"
NOT_STEADY = (
    "its warm-up took {:g} s, the most it may take elsewhere: this tool does not look whether the "
    "runs are steady"
)
NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"
MEBI = 1 << 20


def benchmark_model(abi: str) -> BenchmarkModel:
    """The program that ``KZOO_BENCHMARK_MODEL`` names, or the one that litert-cli downloaded."""
    cached = Path.home() / CACHE / CACHED_ABIS.get(abi, abi) / BENCHMARK_MODEL
    file = Path(os.environ.get(VARIABLE) or cached)
    if not file.is_file():
        raise MissingError(
            f"no {BENCHMARK_MODEL} for {abi} is here: there is no file {str(file)!r}; litert-cli "
            f"downloads one for phones (litert benchmark --android), {VARIABLE} names another"
        )
    with file.open("rb") as program:
        head = program.read(20)
    if head.startswith(b"\x7fELF"):
        made_for = PROCESSORS.get(head[-2], "another processor")
        if made_for != abi:
            raise MissingError(f"{str(file)!r} is for {made_for}; this device is {abi}")
    return BenchmarkModel(file)


@dataclass(frozen=True)
class BenchmarkModel(Runner):
    """A `kzoo.measure.targets.device.Runner`.

    Attributes:
        file: the program. The libraries ``libLiteRt*.so`` beside it go with it.
    """

    file: Path
    name: str = BENCHMARK_MODEL

    def command(self, transport: Transport, setting: Setting) -> tuple[list[str], dict]:
        """As `kzoo.measure.targets.device.Runner.command`."""
        if setting.delegate not in FLAGS:
            known = ", ".join(name for name in FLAGS if name)
            raise UsageError(f"{self.name} has no delegate {setting.delegate!r}; it has {known}")
        parts = {each.name: each for each in self.file.parent.glob("libLiteRt*.so")}
        folder = transport.put_together({self.name: self.file} | parts)
        return [f"{folder}/{self.name}"], {"LD_LIBRARY_PATH": folder}

    def argv(self, command: list[str], model: str, setting: Setting, options: list) -> list:
        """Its own flags for those of deploy/linux/benchmark.py; ``taskset`` keeps it on cores."""
        if unknown := {"--inputs", "--ops"} & {*options}:
            what = "outputs" if "--inputs" in unknown else "times of operators"
            raise UsageError(f"{self.name} gives no {what}; take another --runtime")
        if setting.cpus is not None:
            mask, kept = _mask(setting.cpus)
            command = ["taskset", mask, "sh", "-c", KEPT, kept, *command]
        argv = [*command, f"--graph={model}", f"--num_threads={setting.threads}"]
        argv += FLAGS[setting.delegate]
        if "--memory" in options:
            return [*argv, "--report_peak_memory_footprint=true", "--num_runs=10", "--min_secs=0"]
        return [
            *argv,
            "--warmup_runs=1",  # the first inference
            f"--warmup_min_secs={_warm_up(setting):g}",
            f"--num_runs={setting.min_runs}",
            f"--min_secs={setting.min_seconds:g}",
            f"--max_secs={setting.max_seconds:g}",
        ]

    def record(self, ended: Ended, model: Path, setting: Setting) -> dict:
        """What the log tells, as the record of deploy/linux/benchmark.py; its gaps are None."""
        log = ended.stdout.decode(errors="replace") + "\n" + ended.stderr
        if unknown := re.search(r"Unconsumed cmdline flags: *(\S+)", log):
            raise UsageError(f"this {self.name} has no flag {unknown[1]}: another tool's delegate?")
        runs = [dict(re.findall(rf"(\w+)={NUMBER}", line)) for line in _lines(log, r"\bcount=\d")]
        if setting.cpus and (said := _lines(log, "^(taskset: .*affinity|error: only the cores)")):
            raise UsageError(f"--cpus {setting.cpus}: {said[0].partition(': ')[2]}; {MEANT}")
        if ended.returncode or len(runs) < 2:
            said = _lines(log, r"(?i)\b(error|fail)") or log.strip().splitlines() or ["nothing"]
            raise BadInputError(
                f"{str(model)!r}: {self.name} ended with exit code {ended.returncode}: {said[-1]}"
            )
        warmup, timed = runs[0], runs[-1]
        if "median" not in timed:
            raise MissingError(
                f"this {self.name} prints no median, only a mean: take one of 2024 or later"
            )
        delegate, share = _delegate(log)
        count, peak, grown = int(timed["count"]), _peak(log), _grown(log)
        record = {
            "runtime": self.name,
            "runtime_version": f"sha256 {sha256(self.file)[:12]}",
            "call": "inference",
            "input": f"random, of {self.name}",
            "inputs": [],
            "outputs": [],
            "model_sha256": sha256(model),
            "model_bytes": model.stat().st_size,
            "threads": setting.threads,
            "delegate": delegate,
            "delegated_share": share,
            "import_ms": None,
            "init_ms": _init(log),
            "first_ms": float(warmup.get("first", warmup["curr"])) / 1e3,
            "warmup_runs": int(warmup["count"]) - 1,
            "steady": None,
            "warm_up": WARM_UP.format(_warm_up(setting)) if setting.warm_up else None,
            "notes": [NOT_STEADY.format(_warm_up(setting))] if setting.warm_up else [],
            "stopped_by": "minimum" if count >= setting.min_runs else "max-seconds",
            "samples_ns": [],
            "latency": Latency(
                count=count,
                p50_ms=float(timed["median"]) / 1e3,
                p90_ms=None,
                valid=False,
                p99_ms=None,
                min_ms=float(timed.get("min", timed["curr"])) / 1e3,
                max_ms=float(timed.get("max", timed["curr"])) / 1e3,
                spread=None,
            ),
        }
        if peak is not None and grown is not None:
            record |= {
                "peak_bytes": int(peak * MEBI),
                "baseline_bytes": int((peak - grown) * MEBI),
                "source": self.name,
            }
        return record


def _mask(cpus: str) -> tuple[str, str]:
    """A list of cores, "0,4-7", as the mask that ``taskset`` takes, "f1", and as Linux has it."""
    cores = set()
    for part in cpus.split(","):
        found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise UsageError(f"--cpus {cpus}: {MEANT}")
        cores |= {*range(int(found[1]), int(found[2] or found[1]) + 1)}
    starts = sorted(core for core in cores if core - 1 not in cores)
    ends = sorted(core for core in cores if core + 1 not in cores)
    parts = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    return f"{sum(1 << core for core in cores):x}", ",".join(parts)


def _warm_up(setting: Setting) -> float:
    """Seconds; the flag that ends its timed runs ends its warm-up, too."""
    return min(setting.warm_up, setting.max_seconds)


def _lines(log: str, pattern: str) -> list[str]:
    return [line.strip() for line in log.splitlines() if re.search(pattern, line)]


def _number(log: str, pattern: str) -> float | None:
    found = re.search(pattern + NUMBER, log)
    return float(found[1]) if found else None


def _init(log: str) -> float:
    """Milliseconds; the classic tool prints microseconds, LiteRT's rounds to 0.01 ms."""
    classic = _number(log, r"Inference timings in us: Init: ")
    told = classic / 1e3 if classic is not None else _number(log, r"Model initialization: +")
    if told is None:
        raise BadInputError("benchmark_model's log has no line of its initialization")
    return told


def _peak(log: str) -> float | None:
    """MiB."""
    classic = _number(log, r"Overall peak memory footprint \(MB\) via periodic monitoring: ")
    return classic if classic is not None else _number(log, r"Peak memory: +")


def _grown(log: str) -> float | None:
    """MiB since the tool's start."""
    delta = r"Memory footprint delta from the start of the tool \(MB\): init=\S+ overall="
    classic = _number(log, delta)
    return classic if classic is not None else _number(log, r"Overall footprint: +")


def _delegate(log: str) -> tuple[str, float | None]:
    """The delegate that the runtime says it gave nodes to, and their share of all."""
    taken = re.findall(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\)", log)
    if not taken:
        return "unknown", None
    share = round(int(taken[0][0]) / int(taken[0][1]), 4) if len(taken) == 1 else None
    return DELEGATES.get(taken[0][2], taken[0][2]), share
