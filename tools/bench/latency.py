"""kzoo's latencies beside those of ai-edge-litert's own benchmark tool, and beside each other.

Of each file, in turns and each time in a fresh process on one thread: the median of
``ai_edge_litert.tools.benchmark_litert_model`` (which tells hundredths of a millisecond), of kzoo's
Python runner, which calls the interpreter, and of its C runner, which calls what the tool does. A
ratio is over the tool. Then so many records of the first file by each runner: their spread is the
largest p50 less the smallest, over the median. On an idle machine ratios and spreads are to be
within 3 %; the load is printed, as a busy one's are not.

    python tools/bench/latency.py [FILE ...] [--rounds 5] [--records 10] [--json FILE]

Without files five networks are built and converted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench_record import finish, medians
from conversion import silenced

NAMES = ("mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "resnet50", "densenet121")
TOOL = "benchmark_litert_model"
LIMIT = 0.03
RUNNERS = {"kzoo, Python runner": "ai-edge-litert", "kzoo, C runner": "litert-c"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=10)
    parser.add_argument("--runs", type=int, default=100, help="timed runs, of every side")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"load {load:.1f} on {os.cpu_count()} cores: {'busy' if load > 0.5 else 'idle'}")
    with tempfile.TemporaryDirectory() as folder:
        files = options.files or made(Path(folder))
        far = [name for name in (beside(file, options) for file in files) if name]
        print(f"further than {LIMIT:.0%} from the tool: {', '.join(far) or 'none'}")
        repeat(files[0], options)


def made(folder: Path) -> list[Path]:
    """Float files of five architectures, with random weights."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import kzoo

    files = [folder / f"{name}.tflite" for name in NAMES]
    with silenced():
        for name, file in zip(NAMES, files, strict=True):
            kzoo.convert(kzoo.build(name, seed=0), file)
    return files


def beside(file: Path, options: argparse.Namespace) -> str:
    """Measures one file by all; its name where the C runner, its like, is too far from the tool."""
    times: dict[str, list[float]] = {TOOL: [], **{side: [] for side in RUNNERS}}
    for _ in range(options.rounds):
        times[TOOL].append(by_tool(file, options.runs))
        for side, runtime in RUNNERS.items():
            times[side].append(by_kzoo(file, runtime, options.runs))
    rows = medians(times)
    path = options.json and options.json.with_suffix(f".{file.stem}.json")
    finish(f"an inference of {file.stem}", "ms", rows, TOOL, path)
    ratio = rows["kzoo, C runner"]["median"] / rows[TOOL]["median"]
    return file.stem if abs(ratio - 1) > LIMIT else ""


def by_tool(file: Path, runs: int) -> float:
    """The median that the tool tells, ms; 20 % of its runs are for warming up."""
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [sys.executable, "-m", f"ai_edge_litert.tools.{TOOL}", "--model", str(file)]
        command += ["--num_runs", str(runs), "--warmup_runs", str(runs // 5), "--num_threads", "1"]
        subprocess.run([*command, "--result_json", result.name], check=True, capture_output=True)
        return json.loads(Path(result.name).read_text())["latency"]["median_ms"]


def by_kzoo(file: Path, runtime: str, runs: int) -> float:
    """The p50 of a record, ms."""
    from kzoo.measure.profile import profile

    return profile(file, runtime=runtime, min_runs=runs, min_seconds=0).runs[0].latency.p50_ms


def repeat(file: Path, options: argparse.Namespace) -> None:
    """Ten records of one file by each runner, and how far apart they are."""
    times: dict[str, list[float]] = {side: [] for side in RUNNERS}
    for _ in range(options.records):
        for side, runtime in RUNNERS.items():
            times[side].append(by_kzoo(file, runtime, options.runs))
    path = options.json and options.json.with_suffix(".repeated.json")
    finish(
        f"{options.records} records of {file.stem}",
        "ms",
        medians(times),
        "kzoo, Python runner",
        path,
    )
    for side, values in times.items():
        spread = (max(values) - min(values)) / statistics.median(values)
        told = "within" if spread <= LIMIT else "above"
        print(f"  {side}: spread {spread:.1%}, {told} {LIMIT:.0%}")


if __name__ == "__main__":
    main()
