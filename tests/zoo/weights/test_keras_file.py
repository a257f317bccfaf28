"""Files of Keras: every format of a network gives the same arrays, and nothing else is opened."""

from __future__ import annotations

import io
import json
import shutil
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kzoo.errors import BadInputError
from kzoo.zoo.weights import keras_file
from kzoo.zoo.weights.read import read_checkpoint

FORMATS = ("net.keras", "net.h5", "net.weights.h5", "legacy.h5")


@pytest.fixture(scope="module")
def network():
    """Every kind of layer with weights in the zoo, twelve of one, and a BatchNorm without gamma."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255)(x)
    for i in range(12):
        x = layers.Conv2D(4, 3, padding="same", use_bias=i % 2 == 0, name=f"stage{i}")(x)
    x = layers.BatchNormalization(name="full_bn")(x)
    x = layers.BatchNormalization(scale=False, name="plain_bn")(x)
    x = layers.DepthwiseConv2D(3, name="dw")(x)
    x = layers.SeparableConv2D(4, 3, name="separable")(x)
    x = layers.Conv2DTranspose(4, 3, name="up")(x)
    x = layers.GroupNormalization(2, name="gn")(x)
    x = layers.LayerNormalization(name="ln")(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.Dense(2, name="head")(x)
    model = keras.Model(image, x)
    model.set_weights([np.random.default_rng(0).random(each.shape) for each in model.weights])
    return model


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    """The folder of that network in every format, saved after an optimizer had a step."""
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    folder = tmp_path_factory.mktemp("keras")
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(np.zeros((2, 8, 8, 3)), np.zeros(2, int), verbose=0)
    network.save(folder / "net.keras")
    network.save(folder / "net.h5")
    network.save_weights(folder / "net.weights.h5")
    with h5py.File(folder / "legacy.h5", "w") as file:
        save_weights_to_hdf5_group(file, network)
    return folder


def read_weights(path) -> dict:
    return read_checkpoint(path).arrays


def assert_same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.flags.writeable
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, np.asarray(expected[name], np.float32), strict=True)


def weights(model) -> dict:
    return {each.path: each.numpy() for each in model.weights}


@pytest.mark.parametrize("name", ["net.keras", "net.h5", "legacy.h5"])
def test_the_names_and_the_order_are_those_of_the_network(network, files, name):
    assert_same(read_weights(files / name), weights(network))


def test_weights_alone_are_ordered_by_class_and_number(network, files):
    """And a BatchNormalization of three variables does not tell there which one is missing."""
    found = read_weights(files / "net.weights.h5")
    unnamed = {name: found.pop(name) for name in list(found) if name.startswith("plain_bn/")}
    values = network.get_layer("plain_bn").get_weights()
    assert_same(unnamed, {f"plain_bn/{number}": value for number, value in enumerate(values)})

    expected = {name: a for name, a in weights(network).items() if name.split("/")[0] != "plain_bn"}
    assert set(found) == set(expected)
    assert_same(found, {name: expected[name] for name in found})
    stages = [name for name in expected if name.startswith("stage")]
    assert [name for name in found if name.startswith("stage")] == stages


@pytest.mark.parametrize("name", ["net.keras", "net.h5", "net.weights.h5"])
def test_layers_of_a_model_in_a_model_are_named_after_both(tmp_path, name):
    import keras

    layers = keras.layers
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
        ],
        name="backbone",
    )
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 1, name="conv")(image)
    model = keras.Model(image, layers.Dense(2, name="head")(inner(x)))
    getattr(model, "save_weights" if "weights" in name else "save")(tmp_path / name)
    found = read_weights(tmp_path / name)
    expected = {
        f"{prefix}{layer.name}/{each.name}": each.numpy()
        for prefix, layer in (
            ("", model.get_layer("conv")),
            ("backbone/", inner.get_layer("conv")),
            ("backbone/", inner.get_layer("bn")),
            ("", model.get_layer("head")),
        )
        for each in layer.weights
    }
    assert set(found) == set(expected)
    assert_same(found, {each: expected[each] for each in found})
    if name == "net.keras":
        assert list(found) == list(expected)


def test_files_of_keras_3_before_it_wrote_the_names_of_layers(network, files, tmp_path):
    """A ``.keras`` has them in its config too; weights alone go by class and number."""
    with zipfile.ZipFile(files / "net.keras") as archive:
        stripped = without_names(archive.read("model.weights.h5"))
        rewritten(files / "net.keras", tmp_path / "net.keras", {"model.weights.h5": stripped})
    assert_same(read_weights(tmp_path / "net.keras"), weights(network))
    (tmp_path / "net.weights.h5").write_bytes(stripped)
    found = read_weights(tmp_path / "net.weights.h5")
    np.testing.assert_array_equal(found["conv2d_11/kernel"], weights(network)["stage11/kernel"])


def without_names(data: bytes) -> bytes:
    file = io.BytesIO(data)
    with h5py.File(file, "r+") as root:
        root.visititems(lambda _, item: item.attrs.pop("name", None) and None)
    return file.getvalue()


def rewritten(source, target, members: dict[str, bytes], compression=zipfile.ZIP_STORED) -> None:
    """Copies an archive with other contents of some members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, members.get(name, old.read(name)))


def test_files_of_keras_2_13(files, tmp_path):
    path = shutil.copy(files / "net.weights.h5", tmp_path)
    with h5py.File(path, "r+") as root:
        root.move("layers", "_layer_checkpoint_dependencies")
    assert_same(read_weights(path), read_weights(files / "net.weights.h5"))


def test_a_deflated_archive(network, files, tmp_path):
    rewritten(files / "net.keras", tmp_path / "net.keras", {}, zipfile.ZIP_DEFLATED)
    assert_same(read_weights(tmp_path / "net.keras"), weights(network))


def test_the_config_is_not_obeyed(network, files, tmp_path):
    """A config may name any function of any module; it is read as names and numbers."""
    canary = tmp_path / "canary"
    layer = {
        "module": "os",
        "class_name": "system",
        "registered_name": None,
        "config": {"command": f"touch {canary}"},
        "build_config": {"module": "os", "class_name": "system"},
    }
    config = {**layer, "config": {"layers": [layer]}}
    rewritten(files / "net.keras", tmp_path / "net.keras", {"config.json": json.dumps(config)})
    found = read_weights(tmp_path / "net.keras")
    np.testing.assert_array_equal(found["head/kernel"], weights(network)["head/kernel"])
    assert not canary.exists()


@pytest.mark.parametrize(
    "config", [b"", b"{}", b"[]", b'{"config": 3}', b'{"config": {"layers": [3]}}', b"[" * 100_000]
)
def test_a_damaged_config(files, tmp_path, config):
    rewritten(files / "net.keras", tmp_path / "net.keras", {"config.json": config})
    with pytest.raises(BadInputError, match=r"config\.json is damaged"):
        read_weights(tmp_path / "net.keras")


@pytest.fixture(scope="module")
def backbone():
    """Three stages of a convolution, with and without BatchNorm, all of one shape but the first."""
    import keras

    layers = keras.layers

    def make(norm: bool):
        x = image = keras.Input((8, 8, 3))
        for i in range(3):
            x = layers.Conv2D(4, 3, padding="same", name=f"stage{i}_conv")(x)
            x = layers.BatchNormalization(name=f"stage{i}_bn")(x) if norm else x
        return keras.Model(image, x, name="backbone")

    return make


FROZEN = {
    "none": ((), True),
    "all": (("stage",), True),
    "the first": (("stage0",), False),
    "the first two": (("stage0", "stage1"), False),
    "all but one convolution": (("stage0", "stage1", "stage2_bn"), False),
    "the first BatchNorm": (("stage0_bn",), False),
    "every BatchNorm": (("stage0_bn", "stage1_bn", "stage2_bn"), True),
}
"""How the frozen layers' names begin; whether the weights alone tell the order of all."""


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("frozen", FROZEN)
def test_a_base_that_is_frozen_in_part_is_read_in_order_or_refused(
    backbone, tmp_path, frozen, norm
):
    """Keras lists what is trainable first."""
    import keras
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    base = backbone(norm)
    frozen, told = FROZEN[frozen]
    for layer in base.layers:
        layer.trainable = not layer.name.startswith(frozen)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(base(image))
    model = keras.Model(image, keras.layers.Dense(2, name="head")(x))
    order = [layer.name for layer in base.layers if layer.weights]
    model.save(tmp_path / "net.h5")
    assert layers_of(read_weights(tmp_path / "net.h5")) == [*order, "head"]

    with h5py.File(tmp_path / "alone.h5", "w") as file:
        save_weights_to_hdf5_group(file, model)
    if told or not any(name.startswith(frozen) for name in order):
        found = layers_of(read_weights(tmp_path / "alone.h5"))
        for kind in ("conv", "bn"):
            alike = [name for name in found if name.endswith(kind)]
            assert alike == [name for name in order if name.endswith(kind)]
    else:
        with pytest.raises(BadInputError, match="some were frozen; save the whole model"):
            read_weights(tmp_path / "alone.h5")


def layers_of(weights: dict) -> list[str]:
    """Their names, without those of models around them, in order."""
    return list(dict.fromkeys(name.split("/")[-2] for name in weights))


def pixel_layers(layers) -> dict:
    """First layers that scale a pixel, and whether no more than that."""
    seen = np.random.default_rng(1).normal([9, 120, 250], [2, 30, 0.1], (4, 8, 8, 3))
    adapted, every, pixelwise = (
        layers.Normalization(axis=axis) for axis in (-1, None, (1, 2, 3))
    )  # fmt: skip
    for layer in (adapted, every, pixelwise):
        layer.adapt(seen)
    return {
        "rescaled": ([layers.Rescaling(1 / 127.5, -1)], True),
        "by channel": ([layers.Rescaling([0.1, 0.2, 0.3], [1, 2, 3])], True),
        "given": ([layers.Normalization(mean=[1.0, 2, 3], variance=[4.0, 5, 6])], True),
        "adapted": ([layers.Rescaling(0.5, 1), adapted, layers.Rescaling([1, 2.0, 3])], True),
        "for all": ([layers.RandomFlip(), every], True),
        "nothing": ([], False),
        "pixel by pixel": ([layers.Rescaling(0.5), pixelwise], False),
        "inverted": ([layers.Normalization(mean=1.0, variance=2.0, invert=True)], False),
        "to nothing": ([layers.Rescaling(0.0)], False),
    }


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("nested", [False, True])
def test_what_the_first_layers_make_of_a_pixel(tmp_path, suffix, nested):
    import keras

    layers = keras.layers
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    for name, (first, known) in pixel_layers(layers).items():
        steps = keras.Sequential([keras.Input((8, 8, 3)), *first])
        image = keras.Input((8, 8, 3))
        x = steps(image) if nested and first else image
        for layer in () if nested else first:
            x = layer(x)
        x = layers.Conv2D(2, 3, name="conv")(x)
        file = tmp_path / f"{name}.{suffix}"
        keras.Model(image, layers.Rescaling(3.0)(x)).save(file)
        found = read_checkpoint(file)
        assert (found.normalization is not None) == known, name
        statistics = {each for each in found.arrays if not each.startswith("conv/")}
        assert bool(statistics) == (name == "pixel by pixel")
        if known:
            scale, offset = found.normalization
            np.testing.assert_allclose(
                pixels * scale + offset,
                steps(pixels, training=False),
                rtol=1e-5,
                atol=1e-4,
                err_msg=name,
            )


@pytest.fixture
def legacy(tmp_path):
    """legacy(fill, **options): a file of one layer "conv" with one weight "kernel:0", which
    ``fill(group)`` makes."""

    def make(fill, name="conv/kernel:0"):
        path = tmp_path / "legacy.h5"
        with h5py.File(path, "w") as root:
            root.attrs["layer_names"] = [b"conv"]
            group = root.create_group("conv")
            group.attrs["weight_names"] = [name.encode()]
            fill(group.create_group("conv"))
        return path

    return make


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.asarray([1, 2.5], ">f4"), [1, 2.5]),
        (np.asarray([1, 1e300]), [1, np.inf]),
        (np.asarray([1, -2.5], np.float16), [1, -2.5]),
        (np.asarray(2.5, np.float32), 2.5),
        (np.empty((0, 3), np.float32), np.empty((0, 3))),
    ],
    ids=["big-endian", "float64", "float16", "scalar", "none"],
)
def test_numbers_of_any_width(legacy, values, expected):
    found = read_weights(legacy(lambda group: group.create_dataset("kernel:0", data=values)))
    assert_same(found, {"conv/kernel": expected})


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    import keras

    image = keras.Input((3,))
    layer = keras.layers.Dense(4, dtype="bfloat16", name="head")
    model = keras.Model(image, layer(image))
    layer.bias.assign([1, -2.5, np.inf, 2.0**-130])
    model.save(tmp_path / "net.keras")
    expected = {name: np.asarray(each, np.float32) for name, each in weights(model).items()}
    assert_same(read_weights(tmp_path / "net.keras"), expected)


def test_integers_are_left_out(legacy):
    path = legacy(lambda group: group.create_dataset("kernel:0", data=[1, 2]))
    with pytest.raises(BadInputError, match="no floating-point arrays"):
        read_weights(path)


def test_names_beyond_the_64_kb_of_an_attribute(tmp_path):
    from keras.src.legacy.saving.legacy_h5_format import save_attributes_to_hdf5_group

    names = [f"layer_{number:03}_{'x' * 200}" for number in range(700)]
    with h5py.File(tmp_path / "legacy.h5", "w") as root:
        save_attributes_to_hdf5_group(root, "layer_names", [name.encode() for name in names])
        assert "layer_names2" in root.attrs
        for number, name in enumerate(names):
            group = root.create_group(name)
            group.attrs["weight_names"] = [b"w:0"]
            group["w:0"] = np.float32(number)
    expected = {f"{name}/w": np.float32(number) for number, name in enumerate(names)}
    assert_same(read_weights(tmp_path / "legacy.h5"), expected)


def test_links_are_not_followed(legacy, tmp_path):
    """An HDF5 file may show any file of the machine as its own numbers."""
    with h5py.File(tmp_path / "other.h5", "w") as root:
        root["kernel:0"] = np.ones(4, np.float32)
    np.ones(4, np.float32).tofile(tmp_path / "other.bin")
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "kernel:0", (4,))
    links = [
        lambda group: group.update({"kernel:0": h5py.ExternalLink(tmp_path / "other.h5", "/")}),
        lambda group: group.update({"kernel:0": h5py.SoftLink("/conv")}),
        lambda group: group.create_virtual_dataset("kernel:0", layout),
        lambda group: group.create_dataset(
            "kernel:0", (4,), np.float32, external=[(str(tmp_path / "other.bin"), 0, 16)]
        ),
    ]
    for fill in links:
        with pytest.raises(BadInputError, match="links are not followed"):
            read_weights(legacy(fill))


def test_a_link_in_place_of_the_weights(tmp_path, files):
    path = tmp_path / "net.h5"
    with h5py.File(path, "w") as root:
        root["model_weights"] = h5py.ExternalLink(files / "net.h5", "/model_weights")
    with pytest.raises(BadInputError, match="links are not followed"):
        read_weights(path)


def test_a_shape_that_the_file_cannot_hold(legacy):
    path = legacy(
        lambda group: group.create_dataset(
            "kernel:0", (2**20, 2**20), np.float32, chunks=(1024, 1024), compression="gzip"
        )
    )
    assert path.stat().st_size < 1e6
    with pytest.raises(BadInputError, match="compression bomb"):
        read_weights(path)


def test_an_archive_that_unpacks_to_far_more(files, tmp_path):
    bomb = {"model.weights.h5": bytes(100_000_000)}
    rewritten(files / "net.keras", tmp_path / "net.keras", bomb, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadInputError, match="would unpack from"):
        read_weights(tmp_path / "net.keras")


def test_what_is_listed_but_absent(legacy):
    path = legacy(lambda group: group.create_dataset("bias:0", data=[1.0]))
    with pytest.raises(BadInputError, match="no 'kernel:0' in '/conv/conv'"):
        read_weights(path)


def test_two_weights_of_one_name(tmp_path):
    with h5py.File(tmp_path / "legacy.h5", "w") as root:
        root.attrs["layer_names"] = [b"conv"]
        group = root.create_group("conv")
        group.attrs["weight_names"] = [b"w:0", b"w:1"]
        group["w:0"] = group["w:1"] = [1.0]
    with pytest.raises(BadInputError, match="two weights are called 'conv/w'"):
        read_weights(tmp_path / "legacy.h5")


def test_hdf5_of_others(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as root:
        root["data"] = [1.0]
    with pytest.raises(BadInputError, match="no floating-point arrays"):
        read_weights(tmp_path / "other.h5")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_file_cut_short(files, tmp_path, name, tenth):
    data = (files / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * tenth // 10])
    with pytest.raises(BadInputError, match="cannot read"):
        read_weights(tmp_path / name)


@pytest.fixture
def impatient(monkeypatch):
    """The HDF5 library gets two seconds."""
    monkeypatch.setattr(keras_file, "SECONDS", 2)


def small() -> bytearray:
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        group = root.create_group("layers/conv2d/vars")
        group.attrs["name"] = "stem"
        group["0"], group["1"] = np.ones((3, 3), np.float32), np.ones(3, np.float32)
    return bytearray(file.getvalue())


@pytest.mark.usefixtures("impatient")
def test_a_file_on_which_the_library_loops_without_end(tmp_path):
    """An object of no bytes in the heap of texts: HDF5 1.14 looks for the next one for ever."""
    data = small()
    data[data.index(b"GCOL") + 24] = 0
    (tmp_path / "damaged.h5").write_bytes(data)
    with pytest.raises(BadInputError, match="it is damaged"):
        read_weights(tmp_path / "damaged.h5")


flips = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)


@pytest.mark.usefixtures("impatient")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(flips)
def test_damage_gives_weights_or_an_explained_error(tmp_path_factory, flips):
    data = small()
    for where, value in flips:
        data[int(where * len(data))] = value
    path = tmp_path_factory.getbasetemp() / "damaged.h5"
    path.write_bytes(data)
    try:
        found = read_weights(path)
    except BadInputError:
        return
    assert all(array.dtype == np.float32 for array in found.values())


def test_the_reference_models_of_mlperf_tiny(shared):
    for name, arrays, numbers, first, total in (
        ("pretrainedResnet.h5", 48, 78_666, (3, 3, 3, 16), 48789.9566),
        ("vww_96.h5", 164, 221_794, (3, 3, 3, 8), 7186.1369),
    ):
        found = read_weights(shared / "mlperf-tiny" / name)
        assert len(found) == arrays
        assert list(found)[:3] == ["conv2d/kernel", "conv2d/bias", "batch_normalization/gamma"]
        assert list(found)[-2:] == ["dense/kernel", "dense/bias"]
        assert found["conv2d/kernel"].shape == first
        assert sum(array.size for array in found.values()) == numbers
        sizes = sum(np.abs(array).sum(dtype=np.float64) for array in found.values())
        assert sizes == pytest.approx(total, rel=1e-8)
