"""The laws of quantization-aware training: the file computes what was trained, to the step."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

import kzoo
from kzoo.compress.ranges import as_trained, points, rounding, spread
from kzoo.errors import BadInputError, UsageError
from kzoo.learn.evaluate import outputs, softmax
from kzoo.network.graph import calls
from kzoo.network.model_file import load_model, read_notes, save_model
from kzoo.registry import list_models

SHORT = [{"epochs": 2, "learning_rate": 1e-3}]
QUICK = ("resnet8", "ds_cnn", "squeezenet1_1")


def constructs():
    """A network with all that the rules tell apart, 16 x 16 x 1 -> 10 logits."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(2)
    image = keras.Input((16, 16, 1), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(image)
    x = layers.ZeroPadding2D(1, name="stem_pad")(x)
    x = layers.Conv2D(8, 3, name="stem_conv", use_bias=False)(x)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.ReLU(6.0, name="stem_act")(x)
    left = layers.MaxPooling2D(2, name="stage1_1_pool")(x)
    right = layers.AveragePooling2D(2, name="stage1_1_average")(x)
    x = layers.Concatenate(name="stage1_1_concat")([left, right])
    y = layers.BatchNormalization(name="stage1_2_bn")(x)  # with nothing in front to fold it into
    y = layers.Activation("relu", name="stage1_2_act")(y)
    y = layers.SeparableConv2D(16, 3, padding="same", activation="silu", name="stage1_2_conv")(y)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="stage1_2_squeeze")(y)
    gate = layers.Conv2D(16, 1, activation="sigmoid", name="stage1_2_excite")(gate)
    y = layers.Multiply(name="stage1_2_scale")([y, gate])
    x = layers.Add(name="stage1_2_add")([x, y])
    y = layers.DepthwiseConv2D(3, 2, depth_multiplier=2, activation="tanh", name="stage2_1_conv")(x)
    y = layers.Conv2D(8, 1, activation="hard_silu", name="stage2_1_project")(y)
    z = layers.Conv2D(8, 3, 2, name="stage2_2_conv")(x)
    x = layers.Activation("relu", name="stage2_2_relu")(layers.Add(name="stage2_2_add")([y, z]))
    x = layers.Dropout(0.1, name="head_dropout")(layers.Flatten(name="head_flatten")(x))
    x = layers.Dense(24, activation="relu", name="head_hidden")(x)
    return keras.Model(image, layers.Dense(10, name="head")(x), name="constructs")


@pytest.fixture(scope="module")
def file(few_digits, tmp_path_factory):
    """`constructs`, trained."""
    path = tmp_path_factory.mktemp("constructs") / "constructs.keras"
    phase = {"epochs": 8, "learning_rate": 5e-3, "batch_norm": "recalibrate"}
    kzoo.finetune(constructs(), few_digits, phases=[phase], output=path)
    return path


@pytest.fixture(scope="module")
def aware(file, few_digits, tmp_path_factory):
    """aware(ranges): what `kzoo.qat` makes of `file`, and where it wrote it; trained once."""
    made = {}

    def trained(ranges: str = "average"):
        if ranges not in made:
            path = tmp_path_factory.mktemp(ranges) / "aware.keras"
            made[ranges] = (
                kzoo.qat(file, few_digits, ranges=ranges, phases=SHORT, output=path),
                path,
            )
        return made[ranges]

    return trained


def both(file, lite, data):
    """The logits of a rounding network and of its .tflite on the test images, and their step."""
    from ai_edge_litert.interpreter import Interpreter

    images = data.images[data.splits["test"]]
    network = as_trained(load_model(file), read_notes(file))
    wanted = outputs(network, images, np.arange(len(images)))
    runner = Interpreter(model_path=str(lite))
    runner.allocate_tensors()
    (entry,), (exit_,) = runner.get_input_details(), runner.get_output_details()
    found = []
    for image in images:
        runner.set_tensor(entry["index"], image[None])
        runner.invoke()
        found.append(runner.get_tensor(exit_["index"])[0].astype(np.float64))
    scale, zero = exit_["quantization"]
    return wanted, (np.array(found) - zero) * scale, scale


@pytest.mark.parametrize("ranges", ["average", pytest.param("learned", marks=pytest.mark.slow)])
def test_the_lite_file_computes_what_was_trained(ranges, aware, few_digits, tmp_path):
    pytest.importorskip("tensorflow")
    found, output = aware(ranges)
    lite = tmp_path / "aware.tflite"
    assert found.training.evaluation.accuracy > 0.4  # and not a network that says one thing
    made = kzoo.quantize(output, lite, calibrate=few_digits, head="logits")
    assert not made.contents.float_islands
    wanted, got, step = both(output, lite, few_digits)
    assert np.abs(got - wanted).mean() < 0.1 * step
    assert np.abs(softmax(got) - softmax(wanted)).mean() <= 0.002
    best = np.sort(wanted)[:, -2:]
    sure = best[:, 1] - best[:, 0] > 1.5 * step  # two classes of one int8 logit are equal there
    assert sure.mean() > 0.8
    assert (got.argmax(1) == wanted.argmax(1))[sure].all()
    # Its own figures are those of the rounding network, and it is what kzoo judges.
    judged = kzoo.evaluate(output, few_digits).evaluation
    assert judged.accuracy == found.training.evaluation.accuracy


def test_the_file_is_a_plain_model_on_the_grid(aware):
    import keras

    model = keras.saving.load_model(aware()[1])
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    for layer in model.layers:
        if type(layer).__name__ not in ("Conv2D", "Dense"):
            continue
        kernel = np.array(layer.kernel).reshape(-1, layer.kernel.shape[-1])
        steps = np.abs(kernel).max(0) / 127
        whole = kernel / steps
        np.testing.assert_allclose(whole, np.round(whole), atol=1e-3)


def test_a_channel_of_zeros_keeps_its_bias():
    import keras

    from kzoo.compress.ranges import baked

    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Conv2D(2, 3, name="head")(image))
    kernel, bias = model.get_weights()
    kernel[..., 1], bias[:] = 0, 0.0123456
    model.set_weights([kernel, bias])
    network = rounding(model)
    network(np.full((1, 8, 8, 1), 255.0, np.float32), training=True)
    baked(network, model)
    np.testing.assert_allclose(model.get_weights()[1][1], bias[1], rtol=1e-5)


NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in list_models()
]


@pytest.mark.parametrize("name", NAMES)
def test_every_network_is_spread_without_change_and_every_tensor_has_a_range(
    name, network, difference
):
    spread_and_ranged(network(name), difference)


def test_a_network_from_elsewhere_is_spread_without_change(elsewhere, difference):
    spread_and_ranged(elsewhere, difference)


def spread_and_ranged(model, difference) -> None:
    """Asserts that an equal network of LiteRT's operators has a range for all that it ends in."""
    plain = spread(model)
    assert difference(model, plain) < 1e-5
    # Without ranges nothing is rounded but what LiteRT fixes, and the weights.
    twin = rounding(plain)
    assert [layer.name for layer in spread(plain).layers] == [layer.name for layer in plain.layers]
    found = points(plain)
    assert found.of
    last = calls(plain)[-1].outputs[0]
    assert found.source[id(last)] is not None
    assert {f"{point.name}_range" for point in found.of.values()} <= {
        layer.name for layer in twin.layers
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_lite_file_computes_what_was_trained(name, smallest, tmp_path):
    pytest.importorskip("tensorflow")
    as_lite(kzoo.build(name, size=smallest(name), classes=7, seed=0), tmp_path)


def test_the_lite_file_of_a_network_from_elsewhere_computes_what_was_trained(elsewhere, tmp_path):
    as_lite(elsewhere, tmp_path)


def as_lite(model, tmp_path) -> None:
    """Asserts that the .tflite of a rounding network gives its logits, but for few steps."""
    from kzoo.compress.ranges import baked

    model = spread(model)
    network = rounding(model)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (8, *model.inputs[0].shape[1:]), np.uint8)
    for layer in network.layers:
        if "Dropout" in type(layer).__name__:
            layer.rate = 0.0
    network(images.astype(np.float32), training=True)
    path, lite = tmp_path / "aware.keras", tmp_path / "aware.tflite"
    save_model(model, path, notes={"ranges": baked(network, model)})
    folder = tmp_path / "images"
    from PIL import Image

    for i, image in enumerate(images):
        (folder / f"class{i % 7}").mkdir(parents=True, exist_ok=True)
        shown = image[..., 0] if image.shape[-1] == 1 else image
        Image.fromarray(shown).save(folder / f"class{i % 7}" / f"{i}.png")
    all_train = {"validation": 0, "test": 0}
    made = kzoo.quantize(
        path, lite, calibrate=folder, head="logits", samples=4, data_options=all_train
    )
    # Untrained networks turn one rounding into many: resnet8 is equal, what is deep is not.
    assert made.max_logit_error < 1.0
    assert not {each.split()[0] for each in made.contents.float_islands} - {"NEG", "ELU"}


def zeros(values) -> int:
    return int((values == 0).sum())


def test_zeros_and_shared_values_are_kept_to_the_lite_file(few_digits, tmp_path):
    pytest.importorskip("tensorflow")
    model = tmp_path / "sparse.keras"
    kzoo.prune(constructs(), few_digits, sparsity=0.6, phases=SHORT, output=model)
    shared = tmp_path / "shared.keras"
    clustered = kzoo.cluster(model, few_digits, clusters=8, phases=SHORT, output=shared)
    wanted = {row["name"]: row for row in clustered.kernels if row["values"] <= 8}
    assert len(wanted) >= 5
    output = tmp_path / "aware.keras"
    found = kzoo.qat(shared, few_digits, phases=SHORT, output=output)
    rows = {row["name"]: row for row in found.kernels}
    for name, row in wanted.items():
        name = name.removesuffix("/pointwise_kernel")  # a separable convolution became two
        assert rows[name]["values"] <= row["values"]
        assert rows[name]["zeros"] >= row["zeros"]
    lite = tmp_path / "aware.tflite"
    kzoo.quantize(output, lite, calibrate=few_digits)
    kernels = int8_kernels(lite)
    for row in found.kernels:
        if row["values"] <= 8:
            assert any(
                len(np.unique(k)) == row["values"] and zeros(k) == row["zeros"]
                for k in kernels
                if k.size == row["count"]
            ), row["name"]


def int8_kernels(path) -> list[np.ndarray]:
    from kzoo.lite import flatbuffer

    model = flatbuffer.parse(path.read_bytes(), str(path))
    graph, found = model.subgraphs[0], []
    for operator in graph.operators:
        if flatbuffer.operator(model, operator) in (
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "FULLY_CONNECTED",
        ):
            tensor = graph.tensors[operator.inputs[1]]
            found.append(np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int8))
    return found


def test_ranges_stand_still_from_the_time_that_was_asked(file, few_digits, monkeypatch):
    from kzoo.compress.qat import Ranges

    seen = []
    update = Ranges.update

    def watched(self, step, total):
        seen.append((step, total, [float(np.array(layer.high).max()) for layer in self.layers]))
        update(self, step, total)

    monkeypatch.setattr(Ranges, "update", watched)
    kzoo.qat(file, few_digits, freeze=0.5, phases=SHORT)
    half = seen[0][1] // 2
    moved = [a[2] != b[2] for a, b in itertools.pairwise(seen)]
    assert all(moved[:half])
    assert not any(moved[half:])


def test_a_stopped_training_resumes_with_its_ranges_and_its_lite_file_is_equal(
    tiny, few_digits, tmp_path
):
    path = tmp_path / "tiny.keras"
    save_model(tiny(), path)
    whole = kzoo.qat(path, few_digits, phases=SHORT, output=tmp_path / "whole.keras")
    for step in (1, 4, 9):  # before and after the ranges stand still

        def stop(task, done, _, step=step):
            if task.startswith("train") and done == step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            kzoo.qat(
                path, few_digits, phases=SHORT, output=tmp_path / "stopped.keras",
                checkpoint_seconds=0.0, progress=stop,
            )  # fmt: skip
    again = kzoo.qat(path, few_digits, phases=SHORT, output=tmp_path / "stopped.keras")
    notes = [read_notes(tmp_path / f"{name}.keras")["ranges"] for name in ("whole", "stopped")]
    assert notes[0] == notes[1]
    for a, b in zip(
        whole.training.model.get_weights(), again.training.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    pytest.importorskip("tensorflow")
    lite = tmp_path / "whole.tflite"
    kzoo.quantize(tmp_path / "whole.keras", lite, calibrate=few_digits, head="logits")
    wanted, got, step = both(tmp_path / "whole.keras", lite, few_digits)
    assert (np.abs(got - wanted) < 0.01 * step).mean() > 0.99


@pytest.mark.slow
def test_a_teacher_teaches_a_rounding_network(tiny, few_digits):
    found = kzoo.qat(tiny(), few_digits, teacher=tiny("softmax"), phases=SHORT)
    assert found.training.teacher is not None
    assert found.training.model.outputs[0].shape == (None, 10)
    json.dumps(found.to_dict())


@pytest.mark.parametrize(
    ("options", "told"),
    [({"ranges": "minmax"}, "average"), ({"freeze": 1.5}, "freeze is a share")],
)
def test_wrong_arguments_are_told(options, told, tiny, few_digits):
    with pytest.raises(UsageError, match=told):
        kzoo.qat(tiny(), few_digits, **options)


def test_what_cannot_be_trained_is_told_before(tiny, few_digits):
    import keras

    broken = tiny()
    broken.layers[2].set_weights([np.full_like(w, np.nan) for w in broken.layers[2].get_weights()])
    with pytest.raises(BadInputError, match=r"NaN or infinity|not finite"):  # as backends show it
        kzoo.qat(broken, few_digits)

    class Own(keras.Model):
        pass

    with pytest.raises(BadInputError, match="functional or Sequential"):
        kzoo.qat(Own(), few_digits)


@pytest.mark.parametrize("option", ["equalize", "adaround"])
def test_a_trained_rounding_is_exported_as_it_is(option, aware, few_digits, tmp_path):
    with pytest.raises(UsageError, match=f"leave out {option}, or quantize the file that kzoo qat"):
        kzoo.quantize(aware()[1], tmp_path / "a.tflite", calibrate=few_digits, **{option: True})


def test_a_file_that_was_changed_after_its_training_is_told(aware, few_digits, tmp_path):
    pytest.importorskip("tensorflow")
    output = aware()[1]
    notes = read_notes(output)
    del notes["ranges"]["head"]
    changed = tmp_path / "changed.keras"
    save_model(load_model(output), changed, notes=notes)
    with pytest.raises(BadInputError, match="no range for 'head'"):
        kzoo.quantize(changed, tmp_path / "x.tflite", calibrate=few_digits)
