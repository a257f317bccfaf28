"""In the child process: TensorFlow's converter, run on a frozen function.

The one user of TensorFlow.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from kzoo.compress.ranges import as_trained, ranged_values
from kzoo.learn.evaluate import outputs
from kzoo.lite.flatbuffer import finish
from kzoo.lite.ranges import in_one_step, with_learned
from kzoo.network.model_file import gives_probabilities, load_model, read_notes

COMPARED = 8


def translate(
    model: str,
    output: str,
    quantization: str,
    io: str,
    head: str,
    notes: dict,
    work: str,
) -> dict:
    """Writes ``output``, and into ``work`` what is needed to compare it with Keras.

    Args:
        model: a Keras file.
        output: the .tflite to write.
        quantization: "float32" or "int8".
        io: dtype of the image input; for int8 also of the output.
        head: "probabilities" or "logits".
        notes: to store, see `kzoo.network.model_file.read_notes`.
        work: a folder. For int8 it holds ``calibration.npy``, uint8 (n, h, w, c). ``images.npy``,
            uint8, and ``expected.npy``, Keras' outputs on them, are written there.
    """
    import tensorflow as tf

    net = load_model(model)
    probabilities_only = gives_probabilities(net)
    images = np.load(f"{work}/calibration.npy") if quantization == "int8" else None
    normalization = _normalization(net) if quantization == "int8" and io == "uint8" else None
    started = time.perf_counter()
    cast = io == "uint8" and quantization == "float32"
    frozen = freeze(net, cast, head == "probabilities" and not probabilities_only, normalization)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if quantization == "int8":
        _full_integer(converter, images, io, normalization)
    if learned := quantization == "int8" and notes.get("ranges"):
        data = _as_trained(converter, net, images[:1], io, normalization, notes)
    else:
        data = converter.convert()
    gives = "logits" if head == "logits" and not probabilities_only else "probabilities"
    notes |= {
        "model": net.name,
        "quantization": quantization,
        "pixels": "uint8 [0, 255]" if io == "uint8" else "float32 [0, 255]",
        "folded_normalization": normalization,
    }
    Path(output).write_bytes(finish(data, gives, notes))
    seconds = time.perf_counter() - started

    shape = net.inputs[0].shape[1:]
    if images is None:
        chosen = np.random.default_rng(0).integers(0, 256, (COMPARED, *shape), np.uint8)
    else:
        chosen = images[:: max(1, len(images) // 32)][:32]
    kind = "images of random pixels" if images is None else "calibration images"
    np.save(f"{work}/images.npy", chosen)
    net = as_trained(net, notes) if learned else net
    np.save(f"{work}/expected.npy", outputs(net, chosen, np.arange(len(chosen))))
    return {
        "probabilities_only": probabilities_only,
        "compared": f"{len(chosen)} {kind}",
        "seconds": round(seconds, 3),
    }


def describe(model: str) -> dict:
    """The input's (h, w, c) and the number of classes of a Keras file."""
    net = load_model(model)
    return {"input": list(net.inputs[0].shape[1:]), "classes": net.outputs[0].shape[1]}


def predict(model: str, images_file: str, folder: str) -> bool:
    """Writes ``keras.npy``, the outputs on the images that ``indices.npy`` names.

    Returns whether they are probabilities.
    """
    net = as_trained(load_model(model), read_notes(model))
    images = np.load(images_file, mmap_mode="r")
    np.save(f"{folder}/keras.npy", outputs(net, images, np.load(f"{folder}/indices.npy")))
    return gives_probabilities(net)


def _normalization(net) -> list[float] | None:
    """[scale, offset] of the layer ``preprocess`` if the input's quantization can take it over.

    It can where the layer is a Rescaling by one number each, is the only user of the input, and
    maps some pixel near 0, as the zero point must be an integer in [0, 255].
    """
    import keras

    layer = next((layer for layer in net.layers if layer.name == "preprocess"), None)
    if (
        not isinstance(layer, keras.layers.Rescaling)
        or np.size(layer.scale) * np.size(layer.offset) != 1
    ):
        return None
    image = net.inputs[0]._keras_history.operation
    users = [node.operation for node in image._outbound_nodes]
    scale, offset = np.asarray(layer.scale).item(), np.asarray(layer.offset).item()
    if users != [layer] or scale <= 0 or not 0 <= -offset / scale <= 255:
        return None
    return [scale, offset]


def freeze(
    net,
    cast: bool,
    add_softmax: bool = False,
    normalization: list[float] | None = None,
    batch: int = 1,
):
    """The model as a concrete function of ``batch`` images, its variables turned into constants.

    An unfrozen one converts without an error into a file that cannot run (VAR_HANDLE). With a
    folded normalization it starts behind ``preprocess`` and takes normalized float32; with
    ``cast`` it takes uint8.
    """
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if normalization:
        net = keras.Model(net.get_layer("preprocess").output, net.outputs[0], name=net.name)
    shape = (batch, *net.inputs[0].shape[1:])

    def forward(image):
        found = net(tf.cast(image, tf.float32) if cast else image, training=False)
        return tf.nn.softmax(found) if add_softmax else found

    spec = tf.TensorSpec(shape, tf.uint8 if cast else tf.float32, name="image")
    concrete = tf.function(forward, input_signature=[spec], autograph=False).get_concrete_function()
    return convert_variables_to_constants_v2(concrete)


def _full_integer(
    converter, images: np.ndarray, io: str, normalization: list[float] | None
) -> None:
    """Sets the converter to int8 weights and activations.

    ``images``, uint8 (n, h, w, c), calibrate them.
    """
    import tensorflow as tf

    scale, offset = normalization or (1.0, 0.0)

    def samples():
        for number, image in enumerate(images):
            pixels = image[None].astype(np.float32)
            if number == 0:
                # The input's range must be exactly that of 0 to 255, so that one step of the
                # quantized input is one pixel value; two pixels of one image see to that.
                pixels[0, 0, 0, 0], pixels[0, -1, -1, -1] = 0, 255
            yield [pixels * np.float32(scale) + np.float32(offset)]

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if io == "uint8":
        converter.inference_input_type = converter.inference_output_type = tf.uint8


def _as_trained(
    converter, net, image: np.ndarray, io: str, normalization: list[float] | None, notes: dict
) -> bytes:
    """The int8 file with the ranges that the network was trained with, where it has some."""
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    converter._experimental_calibrate_only = True
    values, ranges = ranged_values(net, image, notes["ranges"])
    scale, offset = normalization or (1.0, 0.0)
    fed = image.astype(np.float32) * np.float32(scale) + np.float32(offset)
    data = with_learned(converter.convert(), fed, values, ranges)
    kind = tf.uint8 if io == "uint8" else tf.float32
    data = mlir_quantize(data, input_data_type=kind, output_data_type=kind)
    kernels = {name: np.array(net.get_layer(name).kernel) for name in notes["whole"]}
    return in_one_step(data, kernels) if kernels else data
