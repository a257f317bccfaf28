"""In a process of its own: TFMOT and Keras 2, on a network of Keras 3 that is rebuilt there."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator

import numpy as np

from kzoo.compress.graph import producer, readers
from kzoo.compress.ranges import KERNELS, RELUS, activation_of
from kzoo.errors import BadInputError
from kzoo.learn.named import named
from kzoo.network.graph import calls
from kzoo.network.model_file import gives_probabilities, load_model
from kzoo.progress import Progress

RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}
"""Layer -> argument of Keras 3 -> its name in Keras 2."""
ALIKE = 1e-4
"""Of the outputs' standard deviation: what both networks may differ by before the training."""
INITS = {"linear": "LINEAR", "density": "DENSITY_BASED", "kmeans++": "KMEANS_PLUS_PLUS"}


def train(work: str, images_file: str, task: dict, progress: Progress) -> dict:
    """Trains ``work/network.keras`` and writes ``work/weights.npz``, ``layer/i`` by layer.

    Args:
        work: with ``order.npy``, image numbers (epochs, steps, batch), and ``labels.npy``, float32
            (n, classes).
        images_file: uint8 (n, h, w, c).
        task: as `kzoo.compress.tfmot` writes it.
        progress: called after each step.

    Returns:
        ``layers``, whose weights are written; ``history``; after "qat"
        ``ranges``, (low, high) of what a layer gives, and ``whole``, the layers of one step.
    """
    import keras
    import tf_keras

    tf_keras.utils.set_random_seed(task["seed"])
    source = load_model(f"{work}/network.keras")
    start = _behind_normalization(source)
    lead = keras.Model(source.inputs[0], start)
    try:
        body = rebuilt(source, start, between=task["verb"] == "qat")
    except BadInputError:
        raise
    except Exception as error:
        raise BadInputError(
            f"TFMOT stands on Keras 2, which cannot make this network: {_first(error)}; kzoo's own "
            "engine takes it"
        ) from error
    images, labels = np.load(images_file, mmap_mode="r"), np.load(f"{work}/labels.npy")
    order = np.load(f"{work}/order.npy")
    _compare(source, lead, body, images[np.sort(order[0, 0])])
    try:
        model, callbacks = WRAPPED[task["verb"]](body, task, order.shape[0] * order.shape[1])
    except Exception as error:
        raise BadInputError(
            f"TFMOT does not {task['verb']} this network: {_first(error)}; kzoo's own engine takes "
            "it"
        ) from error
    rate = _rate(task)
    _compile(model, task, rate, gives_probabilities(source))
    report = _reporting(order.shape, rate, progress)
    model.fit(
        _batches(lead, images, labels, order, task["class_weights"]),
        steps_per_epoch=order.shape[1],
        epochs=order.shape[0],
        callbacks=[*callbacks, report],
        verbose=0,
    )
    found, told = STRIPPED[task["verb"]](model, source)
    arrays = {f"{name}/{i}": v for name, values in found.items() for i, v in enumerate(values)}
    np.savez(f"{work}/weights.npz", **arrays)
    return {"history": report.history, "layers": [*found]} | told


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _behind_normalization(model):
    """The tensor behind the normalization of pixels, which TFMOT does not know."""
    reads, tensor = readers(model), model.inputs[0]
    while True:
        behind = reads[id(tensor)]
        if len(behind) != 1 or behind[0] is None:
            return tensor
        if type(behind[0].operation).__name__ not in ("Rescaling", "Normalization"):
            return tensor
        tensor = behind[0].outputs[0]


def rebuilt(model, start, between: bool = False):
    """The part of a functional Keras 3 model behind a tensor, as one of Keras 2.

    ``between``: what TFMOT needs to round a kernel with a ReLU behind: a BatchNormalization that
    changes nothing. It knows a convolution, normalization and ReLU as one operator, and where the
    normalization was folded away it leaves the kernel in floating point.

    Raises:
        BadInputError: Keras 2 lacks a layer or an argument.
    """
    import tf_keras

    twins = {}
    tensors = {id(start): tf_keras.Input(start.shape[1:], name="image")}
    for node in calls(model):
        if not all(id(tensor) in tensors for tensor in node.input_tensors):
            continue  # in front of it
        layer = node.operation
        args, kwargs = node.arguments.fill_in(tensors)
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if layer not in twins:
            twins[layer] = _twin(layer)
        if between and activation_of(node) in RELUS and len(node.input_tensors) == 1:
            (x,), layer_in_front = args, producer(node.input_tensors[0])
            if layer_in_front and type(layer_in_front.operation).__name__ in KERNELS:
                same = tf_keras.layers.BatchNormalization(
                    epsilon=0.0, trainable=False, name=f"{layer.name}_between_{len(tensors)}"
                )
                args = (same(x),)
        found = twins[layer](*args, **kwargs)
        found = found if isinstance(found, (list, tuple)) else [found]
        tensors |= {id(old): new for old, new in zip(node.outputs, found, strict=True)}
    for layer, twin in twins.items():
        twin.set_weights(layer.get_weights()[: len(twin.weights)])
    return tf_keras.Model(tensors[id(start)], tensors[id(model.outputs[0])], name=model.name)


def _twin(layer):
    """The layer of Keras 2 with the arguments of one of Keras 3."""
    import tf_keras

    kind = type(layer).__name__
    own = getattr(tf_keras.layers, kind, None)
    if not hasattr(layer, "weights"):
        raise BadInputError(
            f"TFMOT knows layers, and no operations such as keras.ops' {kind} ({layer.name}); "
            "kzoo's own engine takes it"
        )
    if own is None:
        raise BadInputError(
            f"TFMOT stands on Keras 2, which has no {kind} ({layer.name}); kzoo's own "
            "engine takes it"
        )
    accepted = {"name", "trainable", "dtype"}
    for each in own.__mro__:
        if "__init__" in vars(each):
            accepted |= set(inspect.signature(each.__init__).parameters)
    defaults = inspect.signature(type(layer).__init__).parameters
    config = {}
    for name, value in layer.get_config().items():
        if name.endswith("_initializer"):
            continue  # it has its weights already
        if name.endswith("_constraint") and value:
            raise BadInputError(f"TFMOT would forget the {name} of {layer.name}")
        if isinstance(value, dict) and value.get("class_name") == "DTypePolicy":
            value = value["config"]["name"]
        name = RENAMED.get(kind, {}).get(name, name)
        if name in accepted:
            config[name] = value
        elif value and (name not in defaults or value != defaults[name].default):
            raise BadInputError(
                f"TFMOT stands on Keras 2, whose {kind} has no {name} ({layer.name}); kzoo's own "
                "engine takes it"
            )
    try:
        return own.from_config(config)
    except Exception as error:
        raise BadInputError(
            f"TFMOT stands on Keras 2, which cannot make {layer.name} ({kind}): {_first(error)}; "
            "kzoo's own engine takes it"
        ) from error


def _compare(source, lead, body, images) -> None:
    """Raises BadInputError where Keras 2 computes something else."""
    images = images[:8].astype(np.float32)
    wanted = np.asarray(source(images))
    found = np.asarray(body(np.asarray(lead(images))))
    if not np.abs(wanted - found).max() <= ALIKE * max(wanted.std(), 1e-6):
        raise BadInputError(
            "rebuilt in Keras 2, the network gives other outputs; kzoo's own engine takes it"
        )


def _pruned(body, task: dict, total: int):
    import tf_keras
    from tensorflow_model_optimization.sparsity import keras as sparsity

    begin = min(round(task["begin"] * total), total - 1)
    end = min(round(task["end"] * total), total - 1)
    options = {}
    if task["n_of_m"]:
        kept, group = task["n_of_m"]
        options["sparsity_m_by_n"] = (group - kept, group)  # zeros there
    if task["block"]:
        options |= {"block_size": tuple(task["block"]), "block_pooling_type": "AVG"}

    def schedule(share: float):
        if task["n_of_m"] or task["schedule"] != "polynomial" or end <= begin:
            at = 0 if task["schedule"] == "one_shot" else begin
            return sparsity.ConstantSparsity(share, at, at + 1, frequency=1)
        # It changes masks at multiples of the frequency alone: the last one is the end.
        frequency = min(task["frequency"], end - begin)
        last = begin + (end - begin) // frequency * frequency
        return sparsity.PolynomialDecay(0.0, share, begin, last, power=3, frequency=frequency)

    def wrapped(layer):
        share = task["shares"].get(layer.name)
        if not share:
            return layer
        return sparsity.prune_low_magnitude(layer, schedule(share), **options)

    model = tf_keras.models.clone_model(body, clone_function=wrapped)
    return model, [sparsity.UpdatePruningStep()]


def _clustered(body, task: dict, total: int):  # noqa: ARG001
    import tf_keras
    from tensorflow_model_optimization.clustering import keras as clustering

    options = {
        "number_of_clusters": task["clusters"],
        "cluster_centroids_init": clustering.CentroidInitialization[INITS[task["init"]]],
    }

    def wrapped(layer):
        if layer.name not in task["keep_zeros"]:
            return layer
        own = {"preserve_sparsity": task["keep_zeros"][layer.name]}
        if task["per_channel"]:
            if type(layer).__name__ != "Conv2D" or not layer.use_bias:
                raise ValueError(f"per channel it knows Conv2D with a bias, not {layer.name}")
            own["cluster_per_channel"] = True
        return clustering.cluster_weights(layer, **options, **own)

    return tf_keras.models.clone_model(body, clone_function=wrapped), []


def _rounded(body, task: dict, total: int):  # noqa: ARG001
    from tensorflow_model_optimization import experimental
    from tensorflow_model_optimization.quantization import keras as quantization

    scheme = {}
    if task["clusters"]:
        keep = experimental.combine.Default8BitClusterPreserveQuantizeScheme
        scheme = {"scheme": keep(preserve_sparsity=task["zeros"])}
    elif task["zeros"]:
        scheme = {"scheme": experimental.combine.Default8BitPrunePreserveQuantizeScheme()}
    with quantization.quantize_scope():
        annotated = quantization.quantize_annotate_model(body)
        model = quantization.quantize_apply(annotated, **scheme)
    rounded = {layer.name for layer in model.layers if getattr(layer, "_weight_vars", ())}
    for layer in body.layers:
        has_kernel = hasattr(layer, "kernel") or hasattr(layer, "depthwise_kernel")
        if has_kernel and f"quant_{layer.name}" not in rounded:
            raise ValueError(f"it leaves the kernel of {layer.name} in floating point")
    return model, []


def _rate(task: dict):
    """The learning rate: a number, or a schedule."""
    import tf_keras

    rate, epochs = task["phase"]["learning_rate"], task["phase"]["epochs"]
    if task["phase"]["schedule"] == "constant":
        return rate
    return tf_keras.optimizers.schedules.CosineDecay(rate, task["steps"] * epochs)


def _compile(model, task: dict, rate, probabilities: bool) -> None:
    import tf_keras

    kind = tf_keras.optimizers.Optimizer
    optimizer = named(tf_keras.optimizers, kind, "optimizer", task["phase"]["optimizer"])
    logits = {"from_logits": not probabilities}
    model.compile(
        optimizer=optimizer(learning_rate=rate),
        loss=tf_keras.losses.CategoricalCrossentropy(
            label_smoothing=task["label_smoothing"], **logits
        ),
        metrics=[
            tf_keras.metrics.CategoricalAccuracy(name="accuracy"),
            tf_keras.metrics.CategoricalCrossentropy(
                name="log_loss", from_logits=not probabilities
            ),
        ],
        jit_compile=False,
    )


def _batches(lead, images, labels, order, weights) -> Iterator[tuple]:
    for chosen in order.reshape(-1, order.shape[-1]):
        chosen = np.sort(chosen)
        pixels = np.asarray(lead(images[chosen].astype(np.float32)))
        each = () if weights is None else (labels[chosen] @ np.asarray(weights, np.float32),)
        yield (pixels, labels[chosen], *each)


def _reporting(shape: tuple, rate, progress: Progress):
    """A callback that reports steps and gathers the history's rows."""
    import tf_keras

    epochs, steps = shape[:2]

    class Reporting(tf_keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.history, self.epoch = [], 0

        def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
            self.epoch, self.started = epoch, time.monotonic()

        def on_train_batch_end(self, batch, logs=None):
            if not math.isfinite(logs["loss"]):
                raise BadInputError(
                    f"the loss became {logs['loss']} in epoch {self.epoch + 1}, step {batch + 1}: "
                    "the training diverged; lower the learning rate"
                )
            label = f"train by TFMOT: epoch {self.epoch + 1}/{epochs}"
            progress(label, self.epoch * steps + batch + 1, epochs * steps)

        def on_epoch_end(self, epoch, logs=None):
            self.history.append(
                {
                    "epoch": epoch + 1,
                    "objective": logs["loss"],
                    "loss": logs["log_loss"],
                    "accuracy": logs["accuracy"],
                    "learning_rate": float(rate((epoch + 1) * steps)) if callable(rate) else rate,
                    "seconds": round(time.monotonic() - self.started, 3),
                }
            )

    return Reporting()


def _plain(model, source) -> tuple[dict[str, list], dict]:
    """By layer the weights behind the normalization, and nothing else to tell."""
    trained = {layer.name: layer for layer in model.layers}
    kept = [layer.name for layer in source.layers if layer.weights and layer.name in trained]
    return {name: trained[name].get_weights() for name in kept}, {}


def _without_masks(model, source) -> tuple[dict, dict]:
    from tensorflow_model_optimization.sparsity import keras as sparsity

    for layer in model.layers:
        if hasattr(layer, "pruning_obj"):  # averages of weights know no masks
            layer.pruning_obj.weight_mask_op()
    return _plain(sparsity.strip_pruning(model), source)


def _without_centroids(model, source) -> tuple[dict, dict]:
    from tensorflow_model_optimization.clustering import keras as clustering

    return _plain(clustering.strip_clustering(model), source)


def _with_ranges(model, source) -> tuple[dict, dict]:
    named = {}
    for layer in model.layers:
        own = {_tail(weight): weight.numpy() for weight in layer.weights}
        for weight, quantizer, variables in getattr(layer, "_weight_vars", ()):
            # What it computes with: without what a mask or clusters leave out, in today's range.
            own[_tail(weight)] = quantizer(weight, True, weights=variables).numpy()
        named[layer.name.removeprefix("quant_")] = own
    weights, ranges, whole = {}, {}, []
    for layer in source.layers:
        own = named.get(layer.name, {})
        if own and layer.weights:
            names = [_of_keras_2(layer, weight.name) for weight in layer.weights]
            weights[layer.name] = [own[name] for name in names]
    for name, own in named.items():
        for kind in ("post_activation", "output"):
            if f"{kind}_min" in own:
                ranges[name] = [float(own[f"{kind}_{end}"]) for end in ("min", "max")]
        steps = [value for key, value in own.items() if key.endswith("kernel_min")]
        whole += [name] * (len(steps) == 1 and steps[0].ndim == 0)
    return weights, {"ranges": ranges, "whole": whole}


def _tail(weight) -> str:
    return weight.name.split("/")[-1].split(":")[0]


def _of_keras_2(layer, name: str) -> str:
    depthwise = type(layer).__name__ == "DepthwiseConv2D" and name == "kernel"
    return "depthwise_kernel" if depthwise else name


WRAPPED = {"prune": _pruned, "cluster": _clustered, "qat": _rounded}
STRIPPED = {"prune": _without_masks, "cluster": _without_centroids, "qat": _with_ranges}
