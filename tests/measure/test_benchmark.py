"""The script of deploy/linux: its warm-up on a clock, and its memory on files, of the test."""

from __future__ import annotations

import argparse
import importlib.util
import io
import itertools
import types

import numpy as np
import pytest

from kzoo.measure.deploy import deploy_file

MS = 10**6


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("benchmark", deploy_file("linux/benchmark.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def warm_up(script, monkeypatch):
    """``warm_up`` on a clock that only ``invoke`` moves, by one duration after another."""
    now = 0

    def run(durations_ns, limit_seconds=10.0):
        durations = iter(durations_ns)

        def invoke():
            nonlocal now
            now += next(durations)

        return script.warm_up(invoke, limit_seconds)

    monkeypatch.setattr(script, "time", types.SimpleNamespace(perf_counter_ns=lambda: now))
    return run


def test_a_steady_model_is_warm_after_two_windows(warm_up):
    assert warm_up(itertools.repeat(10 * MS)) == ([10 * MS] * 40, 20, True)


def test_a_fast_model_runs_until_the_clock_has_risen(warm_up):
    runs, window, steady = warm_up(itertools.repeat(MS))
    assert (len(runs), window, steady) == (300, 20, True)


def test_a_slow_model_has_short_windows(warm_up):
    assert warm_up(itertools.repeat(60 * MS)) == ([60 * MS] * 10, 5, True)


def test_falling_times_are_run_until_they_fall_no_more(warm_up):
    falling = [100 * MS // (3 + index) for index in range(100)]
    runs, window, steady = warm_up(itertools.chain(falling, itertools.repeat(MS)))
    assert (len(runs), window, steady) == (140, 20, True)
    assert runs[:100] == falling


def test_a_step_within_the_tolerance_is_steady_and_one_above_is_not(warm_up):
    assert len(warm_up([10 * MS] * 20 + [10 * MS + MS // 6] * 20)[0]) == 40
    assert len(warm_up([10 * MS] * 20 + [10 * MS + MS // 4] * 40)[0]) == 60


def test_single_interruptions_do_not_hide_steadiness(warm_up):
    durations = [10 * MS] * 40
    durations[3] = durations[27] = 500 * MS
    assert warm_up(durations) == (durations, 20, True)


def test_ever_slower_is_stopped_by_the_time_and_not_steady(warm_up):
    runs, _, steady = warm_up((int(10 * MS * 1.05**index) for index in range(400)), 2.0)
    assert not steady
    assert sum(runs[:-1]) < 2e9 <= sum(runs)


def test_without_a_warm_up_nobody_looked_whether_it_is_steady(warm_up):
    assert warm_up([], 0) == ([], 20, None)


def test_a_model_of_no_time_is_stopped_by_the_count(warm_up, script):
    runs, _, steady = warm_up(itertools.repeat(1))
    assert (len(runs), steady) == (script.WARMUP_LIMIT_RUNS, False)


class Interpreter:
    """Takes 500 kB when it is made."""

    def __init__(self, kernel, **_):
        self.kernel = kernel

    def allocate_tensors(self):
        self.kernel.use(1500)
        self.kernel.use(1200)

    def invoke(self):
        pass

    def get_input_details(self):
        return [{"index": 0, "shape": np.array([1, 2]), "dtype": np.float32}]

    def set_tensor(self, index, values):
        assert (index, values.shape) == (0, (1, 2))


class Kernel:
    """A process of 1000 kB whose import took 2000 kB for a moment; as ``open`` shows it."""

    def __init__(self, writable: bool, status: bool = True):
        self.now, self.mark, self.writable, self.status = 1000, 2000, writable, status

    def use(self, kilobytes):
        self.now, self.mark = kilobytes, max(self.mark, kilobytes)

    def open(self, path, mode="r"):
        if path == "/proc/self/status" and self.status:
            return io.StringIO(f"Name:\tx\nVmHWM:\t{self.mark} kB\nVmRSS:\t{self.now} kB\n")
        if path == "/proc/self/clear_refs" and self.writable:
            assert mode == "w"
            self.mark = self.now
            return io.StringIO()
        if path == "model":
            return io.BytesIO(b"content")
        raise PermissionError(13, "refused", path)


def memory(script, monkeypatch, kernel: Kernel) -> dict:
    monkeypatch.setattr(script, "open", kernel.open, raising=False)
    options = argparse.Namespace(model="model", threads=1, seed=0, delegate=None)
    return script.peak_memory(lambda **given: Interpreter(kernel, **given), options)


@pytest.mark.parametrize(
    ("writable", "source", "peak"), [(True, "VmHWM", 1500), (False, "VmHWM, not reset", 2000)]
)
def test_the_source_says_whether_the_mark_was_reset(writable, source, peak, script, monkeypatch):
    answer = memory(script, monkeypatch, Kernel(writable))
    assert (answer["source"], answer["peak_bytes"]) == (source, peak * 1024)
    assert answer["baseline_bytes"] == 1000 * 1024


def test_without_proc_the_figures_are_ru_maxrss(script, monkeypatch):
    answer = memory(script, monkeypatch, Kernel(writable=False, status=False))
    assert answer["source"] == "ru_maxrss"
    assert answer["peak_bytes"] >= answer["baseline_bytes"] > 0
