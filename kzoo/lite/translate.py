"""In the child process: TensorFlow's converter, run on a frozen function.

The one user of TensorFlow.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kzoo.compress.graph import flat
from kzoo.compress.ranges import ranged_values
from kzoo.errors import BadInputError
from kzoo.lite import pixels, recipes
from kzoo.lite.apart import Apart, apart, run_apart
from kzoo.lite.bias_correction import IMAGES, corrected
from kzoo.lite.calibration import calibrated, runnable
from kzoo.lite.flatbuffer import APART, filled, finish, graph_input, named, operator, parse
from kzoo.lite.metadata import with_metadata
from kzoo.lite.normalization import in_first_kernels
from kzoo.lite.ranges import in_one_step, learned
from kzoo.lite.recipes import RECIPES
from kzoo.lite.source import source
from kzoo.network.model_file import gives_probabilities
from kzoo.progress import Progress, silent

COMPARED = 8


def translate(
    model: str,
    output: str,
    recipe: str | None,
    io: str,
    head: str,
    notes: dict,
    work: str,
    ranges: str = "minmax",
    samples: int | None = None,
    exclude: Sequence[str] = (),
    normalize: Sequence[Sequence[float]] | None = None,
    frame: int | Sequence[int] | None = None,
    sparse: bool = False,
    progress: Progress = silent,
) -> dict:
    """Writes ``output``, and into ``work`` what is needed to compare it with ``model``.

    Args:
        model: a Keras file or a float .tflite.
        output: the .tflite to write.
        recipe: a name of `kzoo.lite.recipes.RECIPES`, or None for float32.
        io: dtype of the image input; where activations are whole numbers, also of the output.
        head: "probabilities" or "logits".
        notes: to store, see `kzoo.network.model_file.read_notes`.
        work: a folder. With ``calibration.npy``, uint8 (n, h, w, c), where images were given.
            ``images.npy``, uint8, ``given.npy``, what the network is given of them, and
            ``expected.npy``, the model's outputs, are written there.
        ranges, samples: see `kzoo.lite.calibration.calibrated`.
        exclude: prefixes of the layers that stay float32.
        normalize: see `kzoo.lite.source.source`.
        frame: (height, width) of the images that it takes, see `kzoo.lite.pixels.with_frame`.
        sparse: of a Keras network in float32, kernels that are mostly zeros keep the others alone.
        progress: called for every image.
    """
    bits = RECIPES[recipe].activations if recipe else None
    learned_ranges = bool(bits and notes.get("ranges"))
    if learned_ranges and model.endswith(".tflite"):
        raise BadInputError(
            f"{model} was trained with the rounding of int8: quantize the .keras that kzoo qat "
            "wrote, which has its ranges"
        )
    made_of = source(model, normalize, rounded=learned_ranges, sparse=sparse)
    calibration = Path(work, "calibration.npy")
    images = np.load(calibration) if calibration.exists() else None
    started = time.perf_counter()
    data, normalization, cast, kernels = made_of.in_float(recipe, io, head, not learned_ranges)
    found, told, feed = {}, {}, feeding(normalization, cast)
    if bits:
        found, told = calibrated(data, images, feed, ranges, samples, progress)
        if bits == 8 and io != "float32":
            # One step of the quantized input is one pixel value, whatever pixels were seen.
            found[graph_input(data)] = tuple(map(float, feed(np.array([0.0, 255.0]))))
        if learned_ranges:
            image = images[:1]
            found |= learned(data, feed(image), *ranged_values(made_of.net, image, notes["ranges"]))
            told = {"ranges": "learned", "images": 0}
        if bits == 8:
            found = runnable(data, found)
    if recipe:
        exact, data = data, recipes.applied(data, recipe, found, io, exclude)
        if images is not None and not learned_ranges:
            data = corrected(data, exact, images, feed, progress)
            told["biases"] = min(IMAGES, len(images))
    if learned_ranges and notes["whole"]:
        whole = {name: np.array(made_of.net.get_layer(name).kernel) for name in notes["whole"]}
        data = in_one_step(data, whole)
    notes |= {
        "model": made_of.name,
        "quantization": recipe or "float32",
        "pixels": f"{io} [0, 255]" if io != "int8" else "int8, pixel - 128",
        "folded_normalization": normalization,
    }
    gives = "logits" if head == "logits" and not made_of.probabilities else "probabilities"
    crop = notes.get("crop", 1.0)
    if frame:
        frame = (frame, frame) if isinstance(frame, int) else frame
        plain, data = data, pixels.with_frame(data, frame, crop)
        frame = frame if data != plain else None
    if frame:
        notes |= {"crop": 1.0, "frame": [*frame]}
    model = parse(data)
    prepares = [operator(model, op) for op in pixels.front(model)]
    seconds = time.perf_counter() - started

    if images is None:
        chosen = np.random.default_rng(0).integers(0, 256, (COMPARED, *made_of.image), np.uint8)
    else:
        chosen = images[:: max(1, len(images) // 32)][:32]
    kind = "images of random pixels" if images is None else "calibration images"
    if frame:
        chosen = np.array([pixels.framed(image, frame, crop) for image in chosen])
    np.save(f"{work}/images.npy", chosen)
    if frame:
        chosen = pixels.prepared(data, chosen)
    np.save(f"{work}/given.npy", chosen)
    np.save(f"{work}/expected.npy", made_of.outputs(chosen, np.arange(len(chosen))))
    probabilities_only = made_of.probabilities
    del made_of, model  # the file is written in the memory of the network, which has cycles
    gc.collect()

    started = time.perf_counter()
    Path(output).write_bytes(with_metadata(finish(data, gives, notes), notes, kernels))
    return {
        "probabilities_only": probabilities_only,
        "compared": f"{len(chosen)} {kind}",
        "seconds": round(seconds + time.perf_counter() - started, 3),
        "calibration": told,
        "preprocessing": prepares,
    }


def in_float(
    net, recipe: str | None, io: str, head: str, fold: bool, sparse: bool = False
) -> tuple[bytes, list[float] | None, bool, dict[str, np.ndarray]]:
    """The float .tflite that a recipe starts from, its tensors called by the network's layers.

    Returns its bytes, [scale, offset] of the normalization that the input's quantization is to
    take over, or None, whether the file casts uint8 pixels itself, and, where there is no recipe,
    what is still to be put in the place of some of its inputs, see `kzoo.lite.flatbuffer.filled`.
    Without ``fold`` the first kernels are the network's, and its normalized pixels a tensor.
    """
    import tensorflow as tf

    whole = recipe is not None and RECIPES[recipe].activations == 8
    normalization = _normalization(net) if whole and io != "float32" else None
    cast = io == "uint8" and not whole
    add_softmax = head == "probabilities" and not gives_probabilities(net)
    net = flat(net)
    large = [] if sparse else apart(net)
    frozen = freeze(net, cast, add_softmax, normalization, large=large)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if sparse:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    kernels = {f"{each.layer.name}/kernel": each.kernel for each in large}
    data = named(converter.convert(), {layer.name for layer in net._flatten_layers()}, [*kernels])
    if fold:
        data, kernels = in_first_kernels(data, kernels)
    if recipe and kernels:
        data, kernels = filled(data, kernels), {}
    return finish(data, _gives(net, head)), normalization, cast, kernels


def _gives(net, head: str) -> str:
    return "logits" if head == "logits" and not gives_probabilities(net) else "probabilities"


def describe(model: str, normalize: Sequence[Sequence[float]] | None = None) -> dict:
    """The input's (h, w, c) and the number of classes of a Keras file or a float .tflite."""
    found = source(model, normalize)
    return {"input": list(found.image), "classes": found.classes}


def predict(
    model: str, images_file: str, folder: str, normalize: Sequence[Sequence[float]] | None = None
) -> bool:
    """Writes ``expected.npy``, the outputs on the images that ``indices.npy`` names.

    Returns whether they are probabilities.
    """
    found = source(model, normalize)
    images = np.load(images_file, mmap_mode="r")
    np.save(f"{folder}/expected.npy", found.outputs(images, np.load(f"{folder}/indices.npy")))
    return found.probabilities


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
    large: Sequence[Apart] = (),
):
    """The model as a concrete function of ``batch`` images, its variables turned into constants.

    An unfrozen one converts without an error into a file that cannot run (VAR_HANDLE). With a
    folded normalization it starts behind ``preprocess`` and takes normalized float32; with
    ``cast`` it takes uint8. The kernels of ``large`` are inputs.
    """
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if normalization:
        net = keras.Model(net.get_layer("preprocess").output, net.outputs[0], name=net.name)
    shape = (batch, *net.inputs[0].shape[1:])

    def forward(image, *kernels):
        image = tf.cast(image, tf.float32) if cast else image
        found = run_apart(net, image, large, kernels) if large else net(image, training=False)
        return tf.nn.softmax(found) if add_softmax else found

    specs = [tf.TensorSpec(shape, tf.uint8 if cast else tf.float32, name="image")]
    for number, each in enumerate(large):
        specs.append(tf.TensorSpec(each.kernel.shape, name=f"{APART}{number}"))
    concrete = tf.function(forward, input_signature=specs, autograph=False).get_concrete_function()
    return convert_variables_to_constants_v2(concrete)


def feeding(normalization: list[float] | None, cast: bool) -> Callable[[np.ndarray], np.ndarray]:
    """What a file of `in_float` takes for pixels."""
    if cast:
        return lambda pixels: pixels
    scale, offset = normalization or (1.0, 0.0)
    return lambda pixels: pixels.astype(np.float32) * np.float32(scale) + np.float32(offset)
