"""Networks from elsewhere, as users bring them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="session")
def foreign():
    """foreign(kind): untrained networks that kzoo did not build, 16 x 16 x 1 to 10 classes."""
    import keras

    layers = keras.layers

    def body(first, last, norm=None):
        yield from first
        yield layers.Conv2D(8, 3, 2, activation="relu", name="body_conv")
        if norm:
            yield norm
        yield layers.Conv2D(8, 3, 2, activation="relu", name="body_conv2")
        yield layers.Flatten()
        yield from last

    kinds = {
        "no preprocess": lambda: body([], [layers.Dense(10)]),
        "softmax inside": lambda: body([], [layers.Dense(10, "softmax")]),
        "layer norm": lambda: body([], [layers.Dense(10)], layers.LayerNormalization(name="ln")),
        "per channel": lambda: body([], [layers.Dense(10)]),
        "sequential": lambda: body([layers.Rescaling(1 / 255)], [layers.Dense(10)]),
    }

    def make(kind: str) -> keras.Model:
        keras.utils.set_random_seed(0)
        image = x = keras.Input((16, 16, 1), name="pixels")
        if kind == "sequential":
            return keras.Sequential([image, *kinds[kind]()])
        if kind == "nested softmax":
            inner = keras.Sequential([keras.Input((16, 16, 1)), *kinds["softmax inside"]()])
            return keras.Model(image, inner(image))
        if kind == "per channel":
            x = layers.Concatenate()([x, x, x])
            x = layers.Rescaling([1 / 64, 1 / 99, 1 / 255], [-1.0, 0.0, -0.5], name="preprocess")(x)
        for layer in kinds[kind]():
            x = layer(x)
        return keras.Model(image, x, name="foreign")

    return make


@pytest.fixture(scope="session")
def gray():
    """The digits at 16 x 16 x 1."""
    from kzoo.data.load import load_data

    return load_data("digits", channels=1, size=16)


@pytest.fixture(scope="session")
def whole(digits, tmp_path_factory):
    """whole.model, .float32, .int8: conv, relu, conv, mean, dense, softmax on 32 x 32 digits.

    The model untrained, and its files' bytes, which take any batch.
    """
    import keras

    import kzoo

    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 1), name="image")
    x = keras.layers.Rescaling(1 / 64, name="preprocess")(image)  # a softmax that is not 0 and 1
    for number, act in enumerate(("relu", None), start=1):
        x = keras.layers.Conv2D(8, 3, 2, activation=act, name=f"stage{number}_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    model = keras.Model(image, keras.layers.Dense(10, name="head")(x))
    folder = tmp_path_factory.mktemp("whole")
    kzoo.convert(model, folder / "float32.tflite")
    kzoo.quantize(model, folder / "int8.tflite", calibrate=digits, samples=20)
    files = {kind: (folder / f"{kind}.tflite").read_bytes() for kind in ("float32", "int8")}
    return SimpleNamespace(model=model, **files)


@pytest.fixture(scope="session")
def edited():
    """edited(data).put(..).put(..).bytes(): a .tflite with operators behind its first CONV_2D."""
    return Edited


class Edited:
    """The bytes of a .tflite as `kzoo.lite.flatbuffer` has them, to put operators into."""

    def __init__(self, data: bytes) -> None:
        from kzoo.lite import flatbuffer

        self.model = flatbuffer.parse(data)
        self.graph = self.model.subgraphs[0]
        names = [flatbuffer.operator(self.model, op) for op in self.graph.operators]
        self.place = names.index("CONV_2D")
        self.first = self.last

    @property
    def last(self):
        """The operator that the next one is put behind."""
        return self.graph.operators[self.place]

    def made(self):
        """The tensor that it writes."""
        return self.graph.tensors[self.last.outputs[0]]

    def put(self, name: str, *constants, layer="added", shape=None, dtype=None, scale=None):
        """What read the last operator's output reads the new one's, which is like it."""
        from ai_edge_litert import schema_py_generated as schema

        from kzoo.lite import flatbuffer

        given, like, op = int(self.last.outputs[0]), self.made(), schema.OperatorT()
        inputs = [given]
        for values in map(np.asarray, constants):
            self.model.buffers.append(schema.BufferT())
            self.model.buffers[-1].data = np.frombuffer(values.tobytes(), np.uint8)
            inputs.append(self._tensor(f"{layer}/{len(inputs)}", values.shape, values.dtype.name))
            self.graph.tensors[-1].buffer = len(self.model.buffers) - 1
        dtype = dtype or flatbuffer.DTYPES[like.type]
        output = self._tensor(f"{layer}/{name}", like.shape if shape is None else shape, dtype)
        self.graph.tensors[output].quantization = scale or (
            None if dtype == "float32" else like.quantization
        )
        for each in self.graph.operators:
            each.inputs = [output if int(i) == given else int(i) for i in each.inputs]
        self.graph.outputs = [output if int(i) == given else int(i) for i in self.graph.outputs]
        op.opcodeIndex = flatbuffer.add_operator_code(self.model, name)
        op.inputs, op.outputs = inputs, [output]
        self.place += 1
        self.graph.operators.insert(self.place, op)
        return self

    def _tensor(self, name: str, shape, dtype: str) -> int:
        from ai_edge_litert import schema_py_generated as schema

        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), list(shape), 0
        tensor.type = getattr(schema.TensorType, dtype.upper())
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def without_activation(self):
        self.last.builtinOptions.fusedActivationFunction = 0
        return self

    def returned(self):
        """What the first convolution gives is a further output."""
        self.graph.outputs = [*self.graph.outputs, int(self.first.outputs[0])]
        return self

    def bytes(self) -> bytes:
        from kzoo.lite import flatbuffer

        return flatbuffer.serialize(self.model)


SPOILT = ("batch norm", "swish", "gate")


@pytest.fixture(scope="session")
def tinted(tmp_path_factory):
    """The digits in orange, so that the order of their channels matters."""
    from kzoo.data.load import load_data

    data = load_data("digits", channels=3, size=16)
    images = (data.images * np.array([1.0, 0.55, 0.15])).astype(np.uint8)
    return of(data, images, tmp_path_factory.mktemp("tinted"))


def of(data, images, folder):
    """The dataset with other images; a child process reads them from their file."""
    np.save(folder / "images.npy", images)
    images = np.load(folder / "images.npy", mmap_mode="r")
    return dataclasses.replace(data, images=images, images_file=folder / "images.npy")


@pytest.fixture(scope="session")
def unspoilt(tinted):
    """A network with BatchNorm, a swish and a gate, trained for a moment."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = x = keras.Input((16, 16, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1, name="preprocess")(x)
    for name, strides in (("stem", 2), ("stage1_1", 1), ("stage2_1", 2)):
        x = layers.Conv2D(24, 3, strides, "same", use_bias=False, name=f"{name}_conv")(x)
        x = layers.BatchNormalization(momentum=0.8, name=f"{name}_bn")(x)
        x = layers.Activation("silu" if name == "stage1_1" else "relu", name=f"{name}_act")(x)
        if name == "stage2_1":
            gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_se_pool")(x)
            gate = layers.Conv2D(8, 1, activation="relu", name=f"{name}_se_reduce")(gate)
            gate = layers.Conv2D(24, 1, activation="sigmoid", name=f"{name}_se_expand")(gate)
            x = layers.Multiply(name=f"{name}_se_scale")([x, gate])
    x = layers.Conv2D(32, 3, 2, "same", name="stage3_1_conv")(x)
    x = layers.ReLU(name="stage3_1_act")(x)
    x = layers.Dense(10, name="head")(layers.GlobalAveragePooling2D(name="head_pool")(x))
    model = keras.Model(image, x, name="spoilt")
    train = tinted.splits["train"]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
    model.fit(tinted.images[train].astype(np.float32), tinted.labels[train], 64, 12, verbose=0)
    return model


def widen(model, what: str) -> None:
    """One channel has 100 times the values, and is read with a hundredth of the weights."""
    if what == "gate":
        # All gates but one nearly shut, and what they let through is read the louder.
        layer, reads = model.get_layer("stage2_1_se_expand"), model.get_layer("stage3_1_conv")
        kernel, bias = (np.array(values) for values in layer.get_weights())
        kernel[..., 1:] = 0
        bias[1:] = -6.0
        layer.set_weights([kernel, bias])
        kernel, bias = (np.array(values) for values in reads.get_weights())
        kernel[:, :, 1:] *= 0.5 * (1 + np.exp(6.0))  # a gate is about a half
        reads.set_weights([kernel, bias])
        return
    norm = model.get_layer("stem_bn" if what == "batch norm" else "stage1_1_bn")
    gamma, beta, *rest = (np.array(values) for values in norm.get_weights())
    gamma[0] *= 100
    beta[0] *= 100
    norm.set_weights([gamma, beta, *rest])
    reads = model.get_layer("stage1_1_conv" if what == "batch norm" else "stage2_1_conv")
    kernel, *rest = (np.array(values) for values in reads.get_weights())
    kernel[:, :, 0] /= 100
    reads.set_weights([kernel, *rest])


@pytest.fixture(scope="session")
def spoilt(unspoilt, tinted, tmp_path_factory):
    """spoilt(what): (the Keras file, its int8 file)."""
    import keras

    from kzoo.lite.quantize import quantize
    from kzoo.network.model_file import save_model

    folder, kept = tmp_path_factory.mktemp("spoilt"), {}

    def make(what: str):
        if what not in kept:
            model = keras.models.clone_model(unspoilt)
            model.set_weights(unspoilt.get_weights())
            if what in SPOILT:
                widen(model, what)
            name = what.replace(" ", "_")
            path, file = folder / f"{name}.keras", folder / f"{name}.tflite"
            save_model(model, path)
            data = tinted
            if what == "bgr":
                data = of(tinted, tinted.images[..., ::-1], folder)
            quantize(path, file, calibrate=data)
            kept[what] = path, file
        return kept[what]

    return make
