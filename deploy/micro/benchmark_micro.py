"""deploy/linux/benchmark.py with TensorFlow Lite for Microcontrollers as the runtime.

    python3 benchmark_micro.py MODEL --runtime tflite-micro            # times of its kernels here
    python3 benchmark_micro.py MODEL --runtime tflite-micro --memory   # the arena

It needs the file beside it, linux/benchmark.py, Python 3.9, NumPy and the package tflite-micro. The
interpreter runs on this machine with the reference kernels: its times are no microcontroller's.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "linux"))

import benchmark

ARENAS = (16 << 20, 256 << 20, 2 << 30)
"""Bytes, tried in turn where it is not to be measured: every one is written to at the start."""
STEP = 16
"""Bytes: the alignment of an arena, to which the smallest one is told."""


class Interpreter:
    """The interpreter of tflite-micro with the methods of a tf.lite.Interpreter."""

    def __init__(self, model_content: bytes, num_threads: int = 1) -> None:  # noqa: ARG002
        from tflite_micro import runtime

        self._content, self._runtime = model_content, runtime
        graph = runtime.convert_bytearray_to_object(model_content).subgraphs[0]
        self._inputs = [graph.tensors[i].name.decode() for i in graph.inputs]
        self._outputs = [graph.tensors[i].name.decode() for i in graph.outputs]

    def allocate_tensors(self, arena: int | None = None) -> None:
        """Raises RuntimeError with what the interpreter printed."""
        for size in (arena,) if arena else ARENAS:
            try:
                with benchmark.captured_stderr() as log:
                    self._micro = self._runtime.Interpreter.from_bytes(
                        self._content, arena_size=size
                    )
                return
            except RuntimeError as error:
                said = "".join(log).strip()
                if said and "missing:" not in said:
                    raise RuntimeError(f"{error}: {said}") from error
        raise RuntimeError(f"it does not fit an arena of {size:,} bytes")

    def get_input_details(self) -> list:
        return self._details(self._inputs, self._micro.get_input_details)

    def get_output_details(self) -> list:
        return self._details(self._outputs, self._micro.get_output_details)

    def _details(self, names: list, of: object) -> list:
        return [{**of(index), "index": index, "name": name} for index, name in enumerate(names)]

    def set_tensor(self, index: int, values: object) -> None:
        self._micro.set_input(values, index)

    def get_tensor(self, index: int) -> object:
        return self._micro.get_output(index)

    def invoke(self) -> None:
        """Raises RuntimeError with what the interpreter printed."""
        try:
            self._micro.invoke()
        except RuntimeError as error:
            with benchmark.captured_stderr() as log, contextlib.suppress(RuntimeError):
                self._micro.invoke()  # again: to listen each time would count in the times
            raise RuntimeError(f"{error}: {''.join(log)}") from error

    def allocations(self) -> dict:
        """Bytes of the arena by the recording allocator: ``total``, ``head`` and ``tail``."""
        with benchmark.captured_stderr() as log:
            self._micro.print_allocations()
        found = re.findall(r"Arena allocation (total|head|tail) (\d+) bytes", "".join(log))
        return {name: int(size) for name, size in found}

    def _get_ops_details(self) -> list:
        return []  # none is a delegate's


def load_runtime(_: str) -> tuple:
    """As `benchmark.load_runtime`."""
    start = time.perf_counter_ns()
    try:
        from tflite_micro import runtime  # noqa: F401
    except Exception as error:
        benchmark.fail(3, f"tflite-micro cannot be imported: {error}; pip install 'kzoo[micro]'")
    return Interpreter, benchmark.milliseconds(start)


def arena(interpreter_class: type, options: object) -> dict:
    """The smallest arena that the model runs in.

    The recording allocator tells what was taken of a large one. If that does not do for an arena,
    as what is used for a while during the preparation may count on top, it is found by bisection.
    """
    content = benchmark.read(options.model)
    interpreter = interpreter_class(content)
    interpreter.allocate_tensors()
    described = benchmark.fill_inputs(interpreter, options.seed)
    interpreter.invoke()
    recorded = interpreter.allocations()
    least = smallest(content, recorded["total"])
    return {
        "model_sha256": benchmark.hashlib.sha256(content).hexdigest(),
        "model_bytes": len(content),
        "peak_bytes": least,
        "baseline_bytes": 0,
        "source": "arena",
        "recorded_bytes": recorded["total"],
        "found_by": "recording" if least == recorded["total"] else "bisection",
        "head_bytes": recorded["head"],
        "tail_bytes": recorded["tail"],
        "input": described,
    }


def smallest(content: bytes, recorded: int) -> int:
    """Bytes, to STEP: ``recorded``, or the least above it that the model's tensors fit."""

    def fits(size: int) -> bool:
        try:
            Interpreter(content).allocate_tensors(size)
        except RuntimeError:
            return False
        return True

    low, high = recorded, recorded
    while not fits(high):
        low, high = high, 2 * high
    while high - low > STEP:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


if __name__ == "__main__":
    # The same program with another runtime, and another question about memory.
    benchmark.RUNTIMES = {"tflite-micro": "tflite_micro"}
    benchmark.load_runtime = load_runtime
    benchmark.peak_memory = arena
    benchmark.main()
