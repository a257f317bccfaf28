"""tflite-runtime 2.14, the last of its name, beside ai-edge-litert, by the same script."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kzoo.errors import BadInputError, MissingError
from kzoo.lite import flatbuffer
from kzoo.lite.lint import lint
from kzoo.measure.profile import profile
from kzoo.measure.target import Setting, open_target
from tests.devices.test_coral import mobilenet, probe  # noqa: F401

pytestmark = pytest.mark.slow
OLD = Setting(runtime="tflite-runtime", min_runs=2, min_seconds=0)
NEW = dataclasses.replace(OLD, runtime="ai-edge-litert")
IMAGES = 20


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment with tflite-runtime and NumPy 1."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    found = folder / "bin" / "python"
    command = [found, "-m", "pip", "install", "-q", "tflite-runtime==2.14.0", "numpy<2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"tflite-runtime cannot be installed here: {done.stderr.strip()[-200:]}")
    return found


@pytest.fixture(scope="module")
def files(shared) -> list[Path]:
    """Small int8, uint8 and float models, the smallest first, that ai-edge-litert runs."""
    found = {
        *(shared / "mlperf-tiny").glob("*.tflite"),
        *(shared / "coral").glob("mob*_quant.tflite"),
    }
    found -= {shared / "mlperf-tiny" / "tflm_person_detect.tflite"}  # for microcontrollers alone
    return sorted(found, key=lambda file: file.stat().st_size)


def outputs(target, file: Path, setting: Setting) -> tuple[list[np.ndarray], str]:
    """Of every image, and the dtype."""
    record = target.time_runs(file, setting)
    (given,), made = record["inputs"], record["outputs"][0]
    random = np.random.default_rng(0)
    # Not white noise alone, of which the average is always the same: each image has its own level.
    level = random.integers(0, 256, (IMAGES, *[1] * len(given["shape"])))
    pixels = np.clip(level + random.integers(-64, 64, (IMAGES, *given["shape"])), 0, 255)
    if given["dtype"] == "int8":
        pixels = pixels - 128
    raw = target.outputs(file, pixels.astype(given["dtype"]).tobytes(), setting)["outputs"]
    return np.frombuffer(raw, made["dtype"]).reshape(IMAGES, -1), made["dtype"]


def test_both_agree_where_the_old_one_is_predicted_to_run(python, files):
    labels, same = 0, 0
    with open_target(f"host:{python}") as old, open_target("host") as new:
        for file in files:
            (predicted,) = lint(file, ["litert-2.14"]).predictions
            if predicted.blocker:
                continue
            there, dtype = outputs(old, file, OLD)
            here, _ = outputs(new, file, dataclasses.replace(NEW, delegate="none"))
            assert np.ptp(here.astype(float), axis=0).any(), file
            difference = np.abs(there.astype(float) - here.astype(float)).max()
            assert difference <= (1e-5 if dtype == "float32" else 0), file
            # By default the new one computes int8 by XNNPACK, which rounds otherwise: up to 42 of
            # 256 in a probability of ResNet-8, on images that are noise.
            default, _ = outputs(new, file, NEW)
            labels += IMAGES
            same += int((there.argmax(axis=1) == default.argmax(axis=1)).sum())
    assert labels >= 4 * IMAGES
    assert same / labels >= 0.95


def test_what_is_predicted_to_be_refused_is_and_nothing_else(python, files, tmp_path):
    """Each file as it is, and with its FULLY_CONNECTED in the version that came after 2.14."""
    newer = []
    for file in files:
        model = flatbuffer.parse(file.read_bytes())
        codes = [code for code in model.operatorCodes if code.deprecatedBuiltinCode == 9]
        for code in codes:
            code.version = 12
        if codes:
            newer.append(tmp_path / file.name)
            newer[-1].write_bytes(flatbuffer.serialize(model))
    assert newer
    refused = []
    with open_target(f"host:{python}") as old:
        for file in [*files, *newer]:
            (predicted,) = lint(file, ["litert-2.14"]).predictions
            try:
                old.time_runs(file, OLD)
                runs = True
            except BadInputError as error:
                runs = False
                refused.append(str(error))
            assert runs == (predicted.blocker is None), file
    assert sum("FULLY_CONNECTED" in each and "12" in each for each in refused) == len(newer)


def test_a_profile_by_another_environments_python(python, files):
    record = profile(files[0], on=f"host:{python}", min_runs=64, min_seconds=0)
    assert (record.runtime, record.runtime_version) == ("tflite-runtime", "2.14.0")
    assert record.target == f"host:{python}"
    with pytest.raises(MissingError, match="has no Python with NumPy and tensorflow"):
        profile(files[0], on=f"host:{python}", runtime="tensorflow")


@pytest.mark.parametrize(("which", "said"), [("", "probed"), (":usb:1", "probed device=usb:1")])
def test_coral_by_another_environments_python(which, said, python, mobilenet, probe):  # noqa: F811
    """The library is built for a TensorFlow that may not be this environment's."""
    probe()
    with pytest.raises(MissingError, match=rf"does not start \({said}\).* tflite-runtime 2\.14\.0"):
        profile(mobilenet, on=f"coral{which}+host:{python}")
    with pytest.raises(BadInputError, match=r"edgetpu-custom-op.*--on coral"):
        profile(mobilenet, on=f"host:{python}")
    probe(refuses=False)
    with pytest.raises(BadInputError, match="edgetpu-custom-op"):  # this one takes no operator
        profile(mobilenet, on=f"coral{which}+host:{python}")
