"""The variables of a TensorFlow SavedModel as named arrays; its graph is not run."""

from __future__ import annotations

import os
import tempfile

import numpy as np

from kzoo.child import blame, call_shared
from kzoo.errors import BadInputError
from kzoo.files import disk_errors, existing

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
TRAINING = ("optimizer/", "keras_api/", "save_counter")
SLOT = ".OPTIMIZER_SLOT"


def read_saved_model(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the float variables of a SavedModel, in a child process.

    Returns:
        Name → float32 array. The name is the variable's own, ``stem_conv/kernel``, where the
        checkpoint tells it; Keras 3 calls the same variable ``variables/0`` and again
        ``_all_variables/51``. Where names are missing or shared by different variables, it is that
        path in the checkpoint. Optimizers, metrics and integers are left out.

    Raises:
        MissingError: there is no such folder.
        BadInputError: it is no SavedModel, has no variables, or is damaged.
    """
    folder = existing(folder, "the SavedModel")
    for part in ("saved_model.pb", "variables/variables.index"):
        if not (folder / part).is_file():
            raise BadInputError(
                f"{str(folder)!r} has no {part}: it is no SavedModel with variables"
            )
    with tempfile.TemporaryDirectory() as work, disk_errors(work):
        output = f"{work}/weights.npz"
        with blame(f"cannot read {str(folder)!r}"):
            names = call_shared(f"{__name__}:extract", folder=str(folder), output=output)
        with np.load(output) as arrays:
            return {name: arrays[f"arr_{number}"] for number, name in enumerate(names)}


def extract(folder: str, output: str) -> list[str]:
    """In the child process: writes the arrays to ``output``, and returns their names."""
    try:
        arrays = _arrays(folder)
    except Exception as error:  # TensorFlow raises errors of its own and of Python
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInputError(f"the variables of {folder!r} are damaged ({reason})") from error
    if not arrays:
        raise BadInputError(f"{folder!r} holds no floating-point variables")
    np.savez(output, *arrays.values())
    return list(arrays)


def _arrays(folder: str) -> dict[str, np.ndarray]:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(f"{folder}/variables/variables")
    kinds = reader.get_variable_to_dtype_map()
    own_names = _own_names(reader) if GRAPH in kinds else {}
    variables: dict[str, dict[str, np.ndarray]] = {}
    for key in [*own_names, *sorted(set(kinds) - set(own_names))]:
        if key in kinds and kinds[key].is_floating and SLOT not in key:
            path = key.removesuffix(VALUE)
            if not path.startswith(TRAINING):
                value = reader.get_tensor(key).astype(np.float32)
                variables.setdefault(own_names.get(key) or path, {})[path] = value
    found = {}
    for name, same in variables.items():
        first, *others = same.values()
        one = all(np.array_equal(first, other, equal_nan=True) for other in others)
        found |= {name: first} if one else same
    return found


def _own_names(reader) -> dict[str, str]:
    """Key in the checkpoint → name of the variable, in the order of the object graph."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    graph = TrackableObjectGraph.FromString(reader.get_tensor(GRAPH))
    return {each.checkpoint_key: each.full_name for node in graph.nodes for each in node.attributes}
