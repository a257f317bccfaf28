"""LiteRT for arm64 under the real qemu, against the same library for this machine."""

from __future__ import annotations

import importlib.util
import shutil

import numpy as np
import pytest

from kzoo.errors import MissingError, UsageError
from kzoo.measure.profile import profile
from kzoo.measure.runtimes import C_RUNTIME
from kzoo.measure.target import Setting, open_target
from kzoo.measure.targets import emulated

needs_qemu = pytest.mark.skipif(
    not shutil.which(emulated.QEMU) or importlib.util.find_spec("ziglang") is None,
    reason="needs qemu and zig: apt-get install qemu-user-static; pip install 'kzoo[devices]'",
)
QUICK = Setting(runtime=C_RUNTIME, min_runs=2, min_seconds=0)


@pytest.fixture(scope="module")
def targets():
    """This machine, and the emulated one."""
    with open_target("host") as host, open_target("emulated:arm64") as arm64:
        try:
            arm64.runner_for(QUICK).command(arm64.transport, QUICK)
        except MissingError as error:  # no network to fetch the libraries from
            pytest.skip(str(error))
        yield host, arm64


def both(file, targets, images: int = 4) -> list[np.ndarray]:
    """The outputs of the same random images on both."""
    host, _ = targets
    record = host.time_runs(file, QUICK)
    (given,), (made,) = record["inputs"], record["outputs"]
    random = np.random.default_rng(0)
    shape = (images, *given["shape"])
    if given["dtype"] == "float32":
        pixels = random.uniform(0, 255, shape).astype("float32")
    else:
        bounds = np.iinfo(given["dtype"])
        pixels = random.integers(bounds.min, bounds.max, shape, given["dtype"], endpoint=True)
    return [
        np.frombuffer(
            target.outputs(file, pixels.tobytes(), QUICK)["outputs"], made["dtype"]
        ).reshape(images, -1)
        for target in targets
    ]


@needs_qemu
@pytest.mark.parametrize("name", ["pretrainedResnet_quant", "vww_96_int8"])
def test_int8_outputs_are_those_of_this_machine_bit_for_bit(name, mlperf_tiny, targets):
    here, there = both(mlperf_tiny / f"{name}.tflite", targets)
    assert np.ptp(here, axis=0).any()  # the images differ, and so do their outputs
    assert here.tobytes() == there.tobytes()


@needs_qemu
@pytest.mark.parametrize("name", ["pretrainedResnet", "vww_96_float"])
def test_float_outputs_are_those_of_this_machine_within_1e_6(name, mlperf_tiny, targets):
    here, there = both(mlperf_tiny / f"{name}.tflite", targets)
    assert np.ptp(here, axis=0).any()
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)


@needs_qemu
def test_a_small_model_gives_the_same(small, targets):
    here, there = both(small, targets)
    assert here.tobytes() == there.tobytes()


@needs_qemu
@pytest.mark.usefixtures("targets")
def test_the_record_says_that_it_is_emulated(small):
    record = profile(small, on="emulated:arm64", min_runs=2, min_seconds=0)
    assert (record.kind, record.runner) == ("emulated", C_RUNTIME)
    assert emulated.NOTE in record.notes
    assert record.device["architecture"] == "aarch64"
    assert record.memory is None


def test_another_processor_is_wrong_use():
    with pytest.raises(UsageError, match="emulated:arm64"):
        emulated.connect("riscv64")


def test_without_qemu_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match="apt-get install qemu-user-static"):
        emulated.connect("arm64")


@needs_qemu
def test_another_runtime_is_wrong_use(small):
    with pytest.raises(UsageError, match="runs litert-c"):
        profile(small, on="emulated:arm64", runtime="tensorflow")
