"""Times one .tflite model on the machine it runs on, and prints one JSON object as its last line.

    python3 benchmark.py MODEL --runtime ai-edge-litert --threads 2

Self-contained: Python 3.9 or newer, NumPy and one runtime; it is copied to a device as it stands.
Exit codes: 2 wrong use, 3 the model file or the runtime is missing, 4 the runtime refuses the
model. A damaged model may end the process by a signal: run it in a process you can lose.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import glob
import hashlib
import importlib
import importlib.metadata
import json
import os
import re
import resource
import statistics
import sys
import tempfile
import time
import warnings

RUNTIMES = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow",
}
EDGETPU = "libedgetpu.1.dylib" if sys.platform == "darwin" else "libedgetpu.so.1"
WARMUP_SECONDS = 0.3  # at least; two windows of a 0.1 ms model pass before the clock has risen
WARMUP_LIMIT_RUNS = 20_000
STEADY_TOLERANCE = 0.02
MEMORY_RUNS = 10
POWER_SECONDS = 0.5


def main() -> None:
    options = parse()
    if not os.path.isfile(options.model):
        fail(3, f"model file {options.model!r} does not exist")
    if options.cpus is not None:
        pin(options.cpus)
    import numpy  # before the clock starts: import_ms is the runtime's own

    interpreter_class, import_ms = load_runtime(options.runtime)
    measure = peak_memory if options.memory else run_inputs if options.inputs else latency
    record = {
        "runtime": options.runtime,
        "runtime_version": version(options.runtime),
        "call": "interpreter.invoke()",
        "threads": options.threads,
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
    }
    try:
        record.update(measure(interpreter_class, options))
    except OSError as error:  # a full disk is not the model's fault
        fail(3, str(error))
    except Exception as error:
        advice = ""
        if "unresolved custom op: edgetpu-custom-op" in str(error):
            advice = "; it is compiled for the Edge TPU and runs with --on coral, and nowhere else"
        runtime = f"{options.runtime} {record['runtime_version']}"
        fail(4, f"{runtime} refuses the model: {error}{advice}")
    if measure is latency:
        record["import_ms"] = import_ms
    print(json.dumps(record), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="a .tflite file")
    parser.add_argument("--runtime", choices=list(RUNTIMES), default="ai-edge-litert")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--warm-up", type=float, default=10.0, help="seconds of warm-up, at most; 0 is none"
    )
    parser.add_argument("--min-runs", type=int, default=100, help="timed runs, at least")
    parser.add_argument("--min-seconds", type=float, default=1.0, help="timed seconds, at least")
    parser.add_argument("--max-seconds", type=float, default=60.0, help="stop timing, whatever")
    parser.add_argument("--max-runs", type=int, default=100_000, help="stop timing, whatever")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of times")
    parser.add_argument("--seed", type=int, default=0, help="of the random input")
    parser.add_argument(
        "--supplies", default="/sys/class/power_supply", help="where batteries tell their current"
    )
    parser.add_argument("--cpus", help="the cores to run on, such as 0,4-7")
    parser.add_argument("--delegate", choices=["xnnpack", "none", "edgetpu"])
    parser.add_argument(
        "--delegate-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the Edge TPU: device=usb, device=pci:1",
    )
    parser.add_argument(
        "--inputs", help="raw input tensors, one set after another, instead of times"
    )
    parser.add_argument("--outputs", help="where the raw outputs for --inputs are written")
    options = parser.parse_args()
    if bool(options.inputs) != bool(options.outputs):
        parser.error("--inputs and --outputs go together")
    if options.threads < 1:
        parser.error(f"--threads is at least 1, not {options.threads}")
    if not 0 <= options.warm_up < float("inf"):
        parser.error(f"--warm-up is 0 or more seconds, not {options.warm_up}")
    return options


def fail(code: int, message: str) -> None:
    """Ends the process with one line on stderr."""
    line = " ".join(message.split())
    print(f"error: {line[:400]}{'...' if len(line) > 400 else ''}", file=sys.stderr, flush=True)
    sys.exit(code)


def pin(cpus: str) -> None:
    """Keeps this process, and the threads it starts, on these cores: "0,4-7", as taskset has it.

    The kernel leaves out the cores of a list that are not there; here they are an error.
    """
    meant = "a list of this machine's cores is meant, such as 0,4-7"
    chosen = set()
    for part in cpus.split(","):
        found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if not found or int(found[2] or found[1]) < int(found[1]):
            fail(2, f"--cpus {cpus}: {meant}")
        chosen |= set(range(int(found[1]), int(found[2] or found[1]) + 1))
    try:
        os.sched_setaffinity(0, chosen)
    except OSError as error:  # none of them is there
        fail(2, f"--cpus {cpus}: {error.strerror}; {meant}")
    if missing := chosen - os.sched_getaffinity(0):
        fail(2, f"--cpus {cpus}: core {min(missing)} is not to be had; {meant}")


def load_runtime(name: str) -> tuple:
    """Returns the runtime's Interpreter class and the milliseconds its import took."""
    warnings.simplefilter("ignore")  # TensorFlow announces the end of tf.lite.Interpreter
    start = time.perf_counter_ns()
    try:
        module = importlib.import_module(RUNTIMES[name])
        found = module.lite.Interpreter if name == "tensorflow" else module.Interpreter
    except Exception as error:  # tflite-runtime under NumPy 2 fails by AttributeError, too
        fail(3, f"the runtime {name} cannot be imported here: {error}; pip install {name}")
    return found, milliseconds(start)


def version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # tensorflow-cpu, a build from source
        module = sys.modules[RUNTIMES[distribution].split(".")[0]]
        return getattr(module, "__version__", "unknown")


def latency(interpreter_class: type, options: argparse.Namespace) -> dict:
    """Init, first inference, warm-up until steady, then every timed ``invoke()`` in nanoseconds."""
    content = read(options.model)
    with captured_stderr() as log:
        start = time.perf_counter_ns()
        interpreter = create(interpreter_class, content, options)
        init_ms = milliseconds(start)
    described = fill_inputs(interpreter, options.seed)
    gc.disable()
    start = time.perf_counter_ns()
    interpreter.invoke()
    first_ms = milliseconds(start)
    warmup_ns, window, steady = warm_up(interpreter.invoke, options.warm_up)
    samples_ns, stopped_by, power_w = timed(interpreter.invoke, options)
    delegate, share = delegated(interpreter, "".join(log))
    more = {}
    if options.delegate == "edgetpu":
        delegate = "edgetpu" if delegate in ("none", "unknown") else f"edgetpu, {delegate}"
        more["delegate_version"] = edgetpu_version()
    return {
        "model_sha256": hashlib.sha256(content).hexdigest(),
        "model_bytes": len(content),
        "init_ms": init_ms,
        "first_ms": first_ms,
        "warmup_ns": warmup_ns,
        "warmup_runs": len(warmup_ns),
        "window": window,
        "steady": steady,
        "samples_ns": samples_ns,
        "stopped_by": stopped_by,
        "power_w": power_w,
        "input": described,
        "inputs": details(interpreter.get_input_details()),
        "outputs": details(interpreter.get_output_details()),
        "delegate": delegate,
        "delegated_share": share,
        **more,
    }


def create(interpreter_class: type, content: bytes, options: argparse.Namespace) -> object:
    """An interpreter that has its tensors."""
    more = {}
    if options.delegate in ("none", "edgetpu"):
        module = sys.modules[RUNTIMES[options.runtime]]
        module = module.lite.experimental if options.runtime == "tensorflow" else module
    if options.delegate == "none":
        kinds = module.OpResolverType
        more["experimental_op_resolver_type"] = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    elif options.delegate == "edgetpu":
        more["experimental_delegates"] = [load_edgetpu(module.load_delegate, options)]
    interpreter = interpreter_class(model_content=content, num_threads=options.threads, **more)
    interpreter.allocate_tensors()
    return interpreter


def load_edgetpu(load_delegate: object, options: argparse.Namespace) -> object:
    """The delegate for a Coral Edge TPU; each of its known failures ends with what to do."""
    given = dict(option.partition("=")[::2] for option in options.delegate_option)
    try:
        return load_delegate(EDGETPU, given)
    except OSError as error:
        fail(
            3,
            f"the Edge TPU's library {EDGETPU} cannot be loaded ({error}); "
            "https://coral.ai/docs/accelerator/get-started/ tells how to install it "
            "(on Debian: apt-get install libedgetpu1-std)",
        )
    except ValueError as error:
        message = " ".join(str(error).split())
        message = message.removeprefix(f"Failed to load delegate from {EDGETPU}").strip()
        message = message[:120] or "no reason given"
        fail(
            3,
            f"{EDGETPU} does not start ({message}): no Edge TPU is attached (lsusb; is it in "
            "a USB 3 port?), this user may not use it (groups plugdev, apex), or the library was "
            f"built for another TensorFlow than {options.runtime} "
            f"{version(options.runtime)} (google-coral/edgetpu#401)",
        )


def edgetpu_version() -> str | None:
    """What the Edge TPU's library says of itself: BuildLabel(...), RuntimeVersion(14)."""
    try:
        function = ctypes.CDLL(EDGETPU).edgetpu_version
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_char_p
    return (function() or b"").decode(errors="replace") or None


def run_inputs(interpreter_class: type, options: argparse.Namespace) -> dict:
    """Runs the input sets of a file one by one, and writes the raw outputs to another."""
    import numpy

    content = read(options.model)
    interpreter = create(interpreter_class, content, options)
    given, used, images = read(options.inputs), 0, 0
    with open(options.outputs, "wb") as file:
        while used < len(given):
            for tensor in interpreter.get_input_details():
                count = int(numpy.prod(tensor["shape"]))
                size = count * numpy.dtype(tensor["dtype"]).itemsize
                if len(given) - used < size:
                    fail(2, f"--inputs has {len(given)} bytes, no multiple of the model's inputs")
                values = numpy.frombuffer(given, tensor["dtype"], count, used)
                interpreter.set_tensor(tensor["index"], values.reshape(tensor["shape"]))
                used += size
            interpreter.invoke()
            images += 1
            for tensor in interpreter.get_output_details():
                file.write(interpreter.get_tensor(tensor["index"]).tobytes())
    return {
        "model_sha256": hashlib.sha256(content).hexdigest(),
        "model_bytes": len(content),
        "images": images,
        "inputs": details(interpreter.get_input_details()),
        "outputs": details(interpreter.get_output_details()),
    }


def warm_up(invoke: object, limit_seconds: float) -> tuple:
    """Runs until the medians of two consecutive windows differ by less than 2 %.

    Returns every warm-up run in nanoseconds, the window's length in runs, and whether it got steady
    before ``limit_seconds`` or WARMUP_LIMIT_RUNS; None where the limit is 0, so that nobody looked.
    A window is 20 runs, or 5 of a model over 50 ms.
    """
    runs, spent, window, medians = [], 0, 20, []
    while spent < limit_seconds * 1e9 and len(runs) < WARMUP_LIMIT_RUNS:
        start = time.perf_counter_ns()
        invoke()
        runs.append(time.perf_counter_ns() - start)
        spent += runs[-1]
        if len(runs) == 1 and runs[0] > 50e6:
            window = 5
        if len(runs) % window == 0:
            medians.append(statistics.median(runs[-window:]))
            close = len(medians) > 1 and agree(medians[-2], medians[-1])
            if close and spent >= WARMUP_SECONDS * 1e9:
                return runs, window, True
    return runs, window, False if limit_seconds else None


def agree(before: float, after: float) -> bool:
    return abs(after - before) < STEADY_TOLERANCE * before


def timed(invoke: object, options: argparse.Namespace) -> tuple:
    """Every timed run in nanoseconds; why it stopped: minimum, max-seconds or max-runs; the power.

    The power is the mean of what was drawn after each half second of runs, in watts, read between
    two of them; None without a sensor.
    """
    clock = time.perf_counter_ns
    samples, total, watts = [], 0, []
    while True:
        start = clock()
        invoke()
        elapsed = clock() - start
        samples.append(elapsed)
        total += elapsed
        if total >= POWER_SECONDS * 1e9 * (len(watts) + 1):
            watts.append(power(options.supplies))
        if len(samples) >= options.min_runs and total >= options.min_seconds * 1e9:
            return samples, "minimum", mean(watts)
        if total >= options.max_seconds * 1e9:
            return samples, "max-seconds", mean(watts)
        if len(samples) >= options.max_runs:
            return samples, "max-runs", mean(watts)


def power(supplies: str) -> float | None:
    """What the whole device draws now, in watts, from its battery's current and voltage."""
    found = []
    for folder in glob.glob(os.path.join(glob.escape(supplies), "*")):
        try:
            values = []
            for name in ("current_now", "voltage_now"):  # in millionths
                with open(os.path.join(folder, name)) as file:
                    values.append(int(file.read()) / 1e6)
            found.append(abs(values[0] * values[1]))
        except (OSError, ValueError):
            continue
    return max(found) if found else None


def mean(watts: list) -> float | None:
    told = [each for each in watts if each is not None]
    return sum(told) / len(told) if told else None


def peak_memory(interpreter_class: type, options: argparse.Namespace) -> dict:
    """Peak resident bytes after init and 10 runs, and resident bytes right after the import."""
    baseline = status_bytes("VmRSS")
    source = reset_peak()
    if baseline is None:
        baseline = peak_bytes(source)
    content = read(options.model)
    interpreter = create(interpreter_class, content, options)
    described = fill_inputs(interpreter, options.seed)
    for _ in range(MEMORY_RUNS):
        interpreter.invoke()
    return {
        "model_sha256": hashlib.sha256(content).hexdigest(),
        "peak_bytes": peak_bytes(source),
        "baseline_bytes": baseline,
        "source": source,
        "input": described,
    }


def reset_peak() -> str:
    """Sets the kernel's high-water mark to what is resident now, and names the source of the peak.

    "VmHWM"; or "VmHWM, not reset" where the kernel refuses, and "ru_maxrss" where it has no VmHWM:
    in these two the import's own peak may hide the needs of a small model.
    """
    if status_bytes("VmHWM") is None:
        return "ru_maxrss"
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:  # in some containers
        return "VmHWM, not reset"
    return "VmHWM"


def peak_bytes(source: str) -> int:
    if source != "ru_maxrss":
        return status_bytes("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def status_bytes(field: str) -> int | None:
    """A field of /proc/self/status in bytes, or None where the system has none."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def read(path: str) -> bytes:
    # Bytes, never the path: loading by path crashes or hangs on truncated files, bytes are refused.
    with open(path, "rb") as file:
        return file.read()


def fill_inputs(interpreter: object, seed: int) -> str:
    """Sets every input, once, and returns what was put in."""
    import numpy

    random = numpy.random.default_rng(seed)
    said = []
    for tensor in interpreter.get_input_details():
        shape, dtype = tensor["shape"], numpy.dtype(tensor["dtype"])
        if dtype in (numpy.uint8, numpy.int8, numpy.int16):
            bounds = numpy.iinfo(dtype)
            values = random.integers(bounds.min, bounds.max, shape, dtype, endpoint=True)
            said.append(f"random pixels, seed {seed}, {dtype} over its full range")
        elif dtype.kind == "f":
            values = random.uniform(0, 255, shape).astype(dtype)
            said.append(f"random pixels, seed {seed}, {dtype} in [0, 255]")
        else:  # indices and flags: a random one may point outside of a table
            values = numpy.zeros(shape, dtype)
            said.append(f"zeros, {dtype}")
        interpreter.set_tensor(tensor["index"], values)
    return "; ".join(said)


def details(tensors: list) -> list:
    import numpy

    return [
        {
            "name": tensor["name"],
            "shape": [int(size) for size in tensor["shape"]],
            "dtype": str(numpy.dtype(tensor["dtype"])),
        }
        for tensor in tensors
    ]


def delegated(interpreter: object, log: str) -> tuple:
    """The delegate's name and the share of the model's nodes it took.

    The name is the runtime's own log line; the nodes are those between the inputs and the outputs
    of each DELEGATE node. ``("unknown", None)`` where the runtime does not tell.
    """
    try:
        nodes = interpreter._get_ops_details()
    except Exception:
        return "unknown", None
    own = [node for node in nodes if node["op_name"] != "DELEGATE"]
    partitions = [node for node in nodes if node["op_name"] == "DELEGATE"]
    if not partitions:
        return "none", 0.0
    producer = {int(out): node for node in own for out in node["outputs"]}
    taken = set()
    for partition in partitions:
        outside = {int(tensor) for tensor in partition["inputs"]}
        pending = [int(tensor) for tensor in partition["outputs"]]
        while pending:
            tensor = pending.pop()
            node = producer.get(tensor)
            if tensor not in outside and node is not None and node["index"] not in taken:
                taken.add(node["index"])
                pending.extend(int(each) for each in node["inputs"])
    named = re.search(r"Created TensorFlow Lite (.+?) delegate", log)
    share = round(len(taken) / len(own), 4) if own else None
    return (named.group(1) if named else "unknown"), share


@contextlib.contextmanager
def captured_stderr() -> object:
    """Gives a list that holds, after the block, what was written to stderr at C level in it."""
    log: list = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield log
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = file.read().decode(errors="replace")
            log.append(text)
            sys.stderr.write(text)
            sys.stderr.flush()


def milliseconds(start_ns: int) -> float:
    return (time.perf_counter_ns() - start_ns) / 1e6


if __name__ == "__main__":
    main()
