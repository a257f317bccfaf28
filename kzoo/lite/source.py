"""In the child process: what a .tflite is made of, a Keras network or a float .tflite of anybody's.

Both take uint8 pixels (n, h, w, c) and give logits, or probabilities where nothing else is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.environment import cores
from kzoo.errors import BadInputError, UsageError
from kzoo.lite import flatbuffer, pixels
from kzoo.lite.classify import gives_logits
from kzoo.lite.interpret import infer
from kzoo.lite.metadata import read_metadata
from kzoo.lite.normalization import in_first_kernels, without_normalization
from kzoo.lite.recipes import RECIPES

if TYPE_CHECKING:
    import keras

KNOWN = ("uint8", "float32")


@dataclass(frozen=True)
class Source:
    """What a .tflite is made of.

    Attributes:
        name: of the network.
        image: (h, w, c).
        classes: how many outputs.
        probabilities: whether that is all it gives, and no logits.
        in_float: ``(recipe, io, head, fold)`` -> the float .tflite that a recipe starts from, with
            ``fold`` its normalization in the first kernels where that is exact; [scale, offset] of
            the one that the input's quantization is to take over, or None; whether the file casts
            uint8 pixels itself; and what is still to be put into it.
        outputs: ``(images, indices)`` -> float32 (n, classes): logits, or ``probabilities``.
        net: the Keras network, or None.
    """

    name: str
    image: tuple[int, int, int]
    classes: int
    probabilities: bool
    in_float: Callable[[str | None, str, str, bool], tuple[bytes, list[float] | None, bool, dict]]
    outputs: Callable[[np.ndarray, np.ndarray], np.ndarray]
    net: keras.Model | None = None


def source(
    path: str | Path,
    normalize: Sequence[Sequence[float]] | None = None,
    *,
    rounded: bool = True,
    sparse: bool = False,
) -> Source:
    """Opens what a .tflite is made of.

    Args:
        path: a Keras file or a float .tflite.
        normalize: (mean, std), one number or one per channel each, of what takes
            (pixel - mean) / std: a Keras network from elsewhere, or a float32 .tflite that does not
            tell it.
        rounded: whether the outputs of a network of `kzoo.qat` are those of its whole numbers.
        sparse: as for `kzoo.lite.translate.translate`.

    Raises:
        UsageError: a .tflite needs ``normalize``, or it is given to what normalizes itself.
        BadInputError: it is damaged, has whole numbers in it already, or does not map an image to
            classes.
    """
    if Path(path).suffix == ".tflite":
        if sparse:
            raise UsageError(f"sparse kernels are made of a Keras network; {path} was given")
        return _of_file(str(path), normalize)
    return _of_keras(path, rounded, normalize, sparse)


def _of_keras(path: str | Path, rounded: bool, normalize, sparse: bool) -> Source:
    from kzoo.compress.ranges import as_trained
    from kzoo.learn.evaluate import outputs
    from kzoo.lite.translate import in_float
    from kzoo.network.model_file import gives_probabilities, load_model, read_notes

    net = load_model(path)
    net = normalizing(net, path, normalize)
    computed = as_trained(net, read_notes(path)) if rounded else net
    return Source(
        name=net.name,
        image=net.inputs[0].shape[1:],
        classes=net.outputs[0].shape[1],
        probabilities=gives_probabilities(net),
        in_float=partial(in_float, net, sparse=sparse),
        outputs=lambda images, indices: outputs(computed, images, indices),
        net=net,
    )


def _of_file(path: str, normalize: Sequence[Sequence[float]] | None) -> Source:
    data = Path(path).read_bytes()
    graph = _checked(data, path)
    entry, end = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    image = tuple(int(size) for size in entry.shape[1:])
    mean, std = _normalization(data, path, flatbuffer.DTYPES[entry.type], image[2], normalize)
    # From here on it takes float32 pixels, and gives logits if it has any.
    data = pixels.as_float(data, mean, std)
    softmax = flatbuffer.logits_tensor(flatbuffer.parse(data)) is not None
    bare = flatbuffer.without_softmax(data) if softmax else data
    probabilities = not softmax and not gives_logits(infer(bare, _noise(image), cores())[0], None)

    def in_float(recipe: str | None, io: str, head: str, fold: bool):
        if recipe and (kind := _reduced(data)):
            raise BadInputError(
                f"the weights of {path} are {kind} already; the float32 file or the Keras network "
                "is expected"
            )
        whole = recipe is not None and RECIPES[recipe].activations == 8
        found, folded = bare, None
        if whole and io != "float32":
            found, folded = without_normalization(found)
        if fold:
            found, _ = in_first_kernels(found)
        if io == "uint8" and not whole:
            found = pixels.as_uint8(found)
        if head == "probabilities" and not probabilities:
            found = flatbuffer.with_softmax(found)
        gives = "probabilities" if probabilities else head
        return flatbuffer.finish(found, gives), folded, io == "uint8" and not whole, {}

    def outputs(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return infer(bare, np.asarray(images[indices]), cores())[0]

    return Source(Path(path).stem, image, int(end.shape[1]), probabilities, in_float, outputs)


def _reduced(data: bytes) -> str:
    """ "float16" or "sparse", where a file's constants are so; else empty."""
    model = flatbuffer.parse(data)
    for tensor in model.subgraphs[0].tensors:
        if tensor.sparsity is not None:
            return "sparse"
        held = model.buffers[tensor.buffer].data
        if held is not None and len(held) and flatbuffer.DTYPES[tensor.type] == "float16":
            return "float16"
    return ""


def _noise(image: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, *image), np.uint8)


def _checked(data: bytes, path: str):
    """The graph of a float .tflite of one image to one vector, and of no state."""
    model = flatbuffer.parse(data, path)
    graph = model.subgraphs[0]
    if len(model.subgraphs) > 1:
        raise BadInputError(f"{path} has {len(model.subgraphs)} graphs; one is expected")
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise BadInputError(
            f"{path} has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; "
            "one image and one vector are expected"
        )
    shapes = [[*graph.tensors[i].shape] for i in (graph.inputs[0], graph.outputs[0])]
    if len(shapes[0]) != 4 or len(shapes[1]) != 2 or shapes[0][0] != 1:
        raise BadInputError(
            f"{path} maps {shapes[0]} to {shapes[1]}; (1, height, width, channels) to (1, classes) "
            "is expected"
        )
    rounded = [t for t in graph.tensors if t.quantization is not None and _some(t.quantization)]
    if rounded:
        kind = flatbuffer.DTYPES[rounded[0].type]
        raise BadInputError(
            f"{path} is quantized already ({kind} in {rounded[0].name.decode()}); a float .tflite "
            "or the Keras network is expected"
        )
    dtype = flatbuffer.DTYPES[graph.tensors[graph.inputs[0]].type]
    if dtype not in KNOWN:
        raise BadInputError(f"{path} takes {dtype}; {' or '.join(KNOWN)} is expected")
    return graph


def _some(quantization) -> bool:
    return quantization.scale is not None and len(quantization.scale) > 0


def _normalization(
    data: bytes,
    path: str,
    dtype: str,
    channels: int,
    given: Sequence[Sequence[float]] | None,
) -> tuple[list[float], list[float]]:
    """(mean, std) of what the file takes: as it tells, or as is ``given``."""
    told = read_metadata(data, path).get("normalization") or {}
    if flatbuffer.notes(flatbuffer.parse(data)) or dtype == "uint8":
        told = {"mean": [0.0], "std": [1.0]}
    if given is not None:
        if told and _fitting((told["mean"], told["std"]), channels) != _fitting(given, channels):
            raise UsageError(
                f"{path} tells that it takes (pixel - {told['mean']}) / {told['std']}: leave out "
                "normalize"
            )
        return _fitting(given, channels)
    if not told:
        raise UsageError(
            f"{path} does not tell what its input is: add --normalize MEAN/STD, 127.5/127.5 if it "
            "takes -1 to 1, 0/255 for 0 to 1, 0/1 for pixels as they are"
        )
    return _fitting((told["mean"], told["std"]), channels)


def _fitting(
    normalize: Sequence[Sequence[float]], channels: int
) -> tuple[list[float], list[float]]:
    """(mean, std); raises UsageError unless they are a number, or one per channel, each."""
    mean, std = ([float(x) for x in values] for values in normalize)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels) or not np.isfinite(values).all():
            raise UsageError(f"the {name} has 1 or {channels} numbers; {values} was given")
    if not np.all(np.asarray(std) > 0):
        raise UsageError(f"std is above 0; {std} was given")
    return mean, std


def normalizing(net: keras.Model, path, normalize: Sequence[Sequence[float]] | None) -> keras.Model:
    """The network, taking pixels; as it is where there is no ``normalize``, see `source`."""
    import keras

    if normalize is None:
        return net
    mean, std = _fitting(normalize, net.inputs[0].shape[-1])
    for layer in net.layers[1:3]:
        kinds = (keras.layers.Rescaling, keras.layers.Normalization)
        if layer.name == "preprocess" or isinstance(layer, kinds):
            raise UsageError(
                f"{path} normalizes pixels itself, in its layer {layer.name!r}: leave out normalize"
            )
    scale, offset = 1 / np.asarray(std), -np.asarray(mean) / np.asarray(std)
    if len(mean) == len(std) == 1:
        scale, offset = float(scale[0]), float(offset[0])
    else:
        scale, offset = (np.broadcast_to(x, net.inputs[0].shape[-1:]) for x in (scale, offset))
        scale, offset = scale.tolist(), offset.tolist()
    image = keras.Input(net.inputs[0].shape[1:], name="image")
    normalized = keras.layers.Rescaling(scale, offset, name="preprocess")(image)
    return keras.Model(image, net(normalized), name=net.name)
