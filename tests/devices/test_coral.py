"""Files of the real Edge TPU compiler, and a delegate that is no Edge TPU but fails as one does."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.lite.edgetpu import compiled, read
from kzoo.measure.profile import profile
from kzoo.measure.target import Setting, open_target
from kzoo.measure.targets.device import Device
from tests.devices import ssh_host

QUICK = Setting(min_runs=2, min_seconds=0)
PROBE = """
#include <stdio.h>
static int ready(void *context, void *delegate) { return !context || !delegate; }
static struct { void *data; int (*prepare)(void *, void *); void *more[8]; } nothing = {0, ready};
void *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                    void (*report)(const char *)) {
  char text[200] = "probed";
  for (size_t i = 0; i < count; i++)
    snprintf(text, sizeof text, "probed %s=%s", keys[i], values[i]);
  return DELEGATE;
}
void tflite_plugin_destroy_delegate(void *delegate) { (void)delegate; }
const char *edgetpu_version(void) { return "BuildLabel(probe), RuntimeVersion(14)"; }
"""
"""What a runtime asks of libedgetpu: no delegate and a message, or a delegate without operators."""


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """probe(refuses=True): a libedgetpu.so.1 that says what it got, or one that takes no node."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("needs a C compiler: apt-get install gcc")

    def make(refuses: bool = True) -> Path:
        source = PROBE.replace("DELEGATE", "report(text), (void *)0" if refuses else "&nothing")
        (tmp_path / "probe.c").write_text(source)
        library = tmp_path / "libedgetpu.so.1"
        command = [compiler, "-shared", "-fPIC", "-w", "-o", library, tmp_path / "probe.c"]
        subprocess.run(command, check=True)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
        return library

    return make


@pytest.fixture(scope="session")
def mobilenet(shared) -> Path:
    return shared / "coral" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"


@pytest.fixture(
    params=["ai-edge-litert", pytest.param("tensorflow", marks=pytest.mark.slow)], scope="session"
)
def setting(request) -> Setting:
    """Of each runtime; tflite-runtime is in test_tflite_runtime.py."""
    return dataclasses.replace(QUICK, runtime=request.param)


def test_what_the_compiler_wrote_is_read(shared):
    """Against its inputs: an operator is in the part or left on the CPU."""
    for file in (shared / "coral").glob("*_edgetpu.tflite"):
        before = read(str(file.with_name(file.name.replace("_edgetpu", ""))))
        after = read(str(file))
        assert (before["parts"], before["min_runtime"]) == (0, None)
        assert (after["parts"], after["min_runtime"]) == (1, 12)
        assert all(count <= before["left"][name] for name, count in after["left"].items())
        assert sum(after["left"].values()) < sum(before["left"].values())


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_damaged_file_is_bad_input(keep, mobilenet, tmp_path):
    content = mobilenet.read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(BadInputError):
        compiled(tmp_path / "cut.tflite")


def test_a_file_that_is_not_compiled_is_refused_before_it_runs(small):
    with pytest.raises(BadInputError, match=rf"not compiled .* kzoo compile {small}"):
        profile(small, on="coral")


def test_without_the_library_it_says_what_to_install(mobilenet, setting, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    if (
        subprocess.run(["sh", "-c", "ldconfig -p | grep -q libedgetpu"], check=False).returncode
        == 0
    ):
        pytest.skip("libedgetpu is installed here")
    with (
        open_target("coral") as target,
        pytest.raises(MissingError, match=r"library libedgetpu\.so\.1 .* libedgetpu1-std"),
    ):
        target.time_runs(mobilenet, setting)


@pytest.mark.parametrize(
    ("name", "said"), [("coral", "(probed)"), ("coral:usb:1", "(probed device=usb:1)")]
)
def test_a_library_that_does_not_start_is_quoted(name, said, mobilenet, setting, probe):
    probe()
    with open_target(name) as target:
        assert target.name == name
        with pytest.raises(MissingError, match="edgetpu#401") as caught:
            target.time_runs(mobilenet, setting)
    assert said in str(caught.value)
    assert "plugdev" in str(caught.value)


def test_a_compiled_file_elsewhere_is_sent_to_coral(mobilenet, setting):
    with pytest.raises(BadInputError, match=r"edgetpu-custom-op.*--on coral"):
        profile(mobilenet, runtime=setting.runtime)


def test_the_record_names_the_delegate_and_its_version(small, setting, probe):
    """By a delegate that takes no operator: the runtime's own compute."""
    probe(refuses=False)
    with open_target("host") as host:
        asked = dataclasses.replace(setting, delegate="edgetpu", warm_up=0)
        record = host.time_runs(small, asked)
    assert (record["warmup_runs"], record["steady"]) == (0, None)
    assert record["delegate"].startswith("edgetpu")
    assert record["delegate_version"] == "BuildLabel(probe), RuntimeVersion(14)"


def test_a_library_that_crashes_is_not_the_files_fault(mobilenet, probe):
    library = probe()
    source = library.with_name("probe.c")
    source.write_text(source.read_text().replace("report(text)", "*(volatile int *)0 = 1"))
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", library, source], check=True)
    with pytest.raises(MissingError, match=r"SIGSEGV.*edgetpu#401"):
        profile(mobilenet, on="coral")


def test_the_first_inference_is_told_of(mobilenet, monkeypatch):
    record = {"first_ms": 30.0, "samples_ns": [3 * 10**6] * 9, "delegate_version": "14"}
    monkeypatch.setattr(Device, "time_runs", lambda *_: dict(record))
    with open_target("coral") as target:
        notes = target.time_runs(mobilenet, QUICK)["notes"]
        assert notes[0] == "compiled for the Edge TPU's runtime 12 or newer; its library says 14"
        assert "the first inference took 10 times as long" in notes[1]
        record["first_ms"] = 4.0
        assert len(target.time_runs(mobilenet, QUICK)["notes"]) == 1


def test_what_is_left_on_the_cpu_is_told(mobilenet, monkeypatch):
    record = {"first_ms": 1.0, "samples_ns": [10**6] * 9}
    monkeypatch.setattr(Device, "time_runs", lambda *_: record)
    file = mobilenet.with_name("deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite")
    with open_target("coral") as target:
        _, left = target.time_runs(file, QUICK)["notes"]
    assert left.endswith(
        "left on the CPU: 1 ARG_MAX, 1 CONCATENATION, 2 CONV_2D, 1 QUANTIZE, 3 RESIZE_BILINEAR"
    )


@pytest.mark.parametrize(
    "where",
    [":gpu", ":usb:x", "+adb:R58N", "+ssh", "+ssh:", ":usb:0+adb:R58N", ":usb,pci", ":usb+micro"],
)
def test_a_place_that_is_none_is_wrong_use(where):
    with pytest.raises(UsageError, match=r"coral:usb"), open_target(f"coral{where}"):
        pass


def test_another_runner_or_delegate_is_wrong_use(mobilenet):
    for wrong in ({"runtime": "litert-c"}, {"delegate": "gpu"}):
        with pytest.raises(UsageError):
            profile(mobilenet, on="coral", **wrong)


@pytest.mark.skipif(not shutil.which("ssh"), reason="needs ssh: apt-get install openssh-client")
@pytest.mark.parametrize(
    ("name", "device"), [("coral+ssh:board", ""), ("coral:usb:0+ssh:board", " device=usb:0")]
)
def test_a_stick_behind_ssh(name, device, mobilenet, probe, tmp_path, monkeypatch):
    pytest.importorskip("asyncssh")
    library = probe()
    (tmp_path / "host").mkdir()
    host = ssh_host.start(tmp_path / "host")
    host.program("python3", f'LD_LIBRARY_PATH="{library.parent}" exec {sys.executable} "$@"')
    monkeypatch.delenv("LD_LIBRARY_PATH")
    monkeypatch.setenv("PATH", host.path)
    try:
        with pytest.raises(MissingError, match=rf"does not start \(probed{device}\)"):
            profile(mobilenet, on=name)
    finally:
        host.stop()
