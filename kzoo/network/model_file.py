"""Keras models on disk: saved whole with their class names, loaded in safe mode only."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kzoo.errors import BadInputError, UsageError
from kzoo.files import atomic, beside, existing, new_output

if TYPE_CHECKING:
    import keras

NOTES = "kzoo.json"
"""The member of the ``.keras`` archive that holds kzoo's notes; Keras itself ignores it."""

AUXILIARY = "head_aux"
"""What the layers' names begin with whose outputs serve training alone."""

MAX_NOTES = 1_000_000
"""Bytes of notes that are read; an archive from elsewhere may unpack to anything."""


def save_model(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    notes: Mapping[str, object] | None = None,
    force: bool = False,
) -> Path:
    """Writes ``model`` as ``.keras``, whole or not at all, with the ``notes`` of `read_notes`.

    Raises:
        UsageError: the file exists and ``force`` is false, or its name does not end in ``.keras``.
        MissingError: no folder, no permission, no space.
    """
    path = new_output(keras_name(path), force=force)
    # A trained model drags its optimizer into the file, which triples it; a copy has none.
    if getattr(model, "optimizer", None) is not None:
        copy = type(model).from_config(model.get_config())
        copy.set_weights(model.get_weights())
        model = copy
    with atomic(path) as temporary, beside(path) as raw:
        try:
            model.save(raw)
            _rewrite(raw, temporary, dict(notes or {}))
        except RuntimeError as error:  # h5py wraps the system's error and hides its number
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, "No space left on device") from error
            raise
    return path


def _rewrite(raw: Path, path: Path, notes: dict) -> None:
    """Copies a ``.keras`` archive with kzoo's notes, without traces of when and where it was made.

    Keras writes the date, and memory addresses as the identities of shared objects. Without them
    equal models are equal files, and a run that lost one finds all that was made from it again.
    """
    with zipfile.ZipFile(raw) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            with (
                source.open(name) as member,
                target.open(_undated(name), "w", force_zip64=True) as out,
            ):
                if name.endswith(".json"):
                    values = json.load(member)
                    values.pop("date_saved", None)
                    _renumber(values, {})
                    out.write(json.dumps(values).encode())
                else:
                    shutil.copyfileobj(member, out, 1 << 20)
        target.writestr(_undated(NOTES), json.dumps(notes))


def _renumber(value: object, known: dict[int, int]) -> None:
    """Replaces every ``shared_object_id`` by its number in the order of appearance."""
    if isinstance(value, dict):
        if "shared_object_id" in value:
            number = known.setdefault(value["shared_object_id"], len(known))
            value["shared_object_id"] = number
        for each in value.values():
            _renumber(each, known)
    elif isinstance(value, list):
        for each in value:
            _renumber(each, known)


def _undated(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))


def keras_name(path: str | os.PathLike) -> Path:
    """Returns ``path``; raises UsageError unless it ends in ``.keras``."""
    if Path(path).suffix != ".keras":
        raise UsageError(f"a Keras model's file name ends in .keras; {str(path)!r} was given")
    return Path(path)


def read_notes(path: str | os.PathLike) -> dict:
    """What kzoo noted in a ``.keras`` file about its training.

    Returns:
        ``classes``: the names of its outputs, in their order; ``split``: the arguments of
        `kzoo.load_data` that decided which images it was trained on; ``crop``: the share of the
        shorter side of an image that the network is given; ``weights``: the tag or file of the
        pretrained weights that it began with, and their ``licence``. Empty, and 1, where not known.
        Of `kzoo.qat`: ``ranges``, [low, high] by the name of a tensor, and ``whole``, the layers
        whose kernel has one step for all channels.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(NOTES).file_size <= MAX_NOTES:
                return checked_notes(json.loads(archive.read(NOTES)))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile):
        pass
    return checked_notes({})


def checked_notes(given: object) -> dict:
    """What `read_notes` returns, of notes from a file that may be anybody's."""
    found = {
        "classes": [], "split": {}, "crop": 1.0, "weights": "", "licence": "", "ranges": {},
        "whole": [],
    }  # fmt: skip
    classes, split, crop, weights, licence, ranges, whole = (
        given.get(key) if isinstance(given, dict) else None for key in found
    )
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        found["classes"] = classes
    if isinstance(split, dict) and set(split) <= {"seed", "validation", "test"}:
        found["split"] = split
    if isinstance(crop, float) and 0.1 <= crop <= 1:
        found["crop"] = crop
    if isinstance(weights, str):
        found["weights"] = weights
    if isinstance(licence, str):
        found["licence"] = licence
    if isinstance(ranges, dict) and all(map(_is_range, ranges.values())):
        found["ranges"] = ranges
    if isinstance(whole, list) and all(isinstance(name, str) for name in whole):
        found["whole"] = whole
    return found


def _is_range(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(each, float) and math.isfinite(each) for each in value)
        and value[0] <= 0 <= value[1]
    )


def load_model(path: str | os.PathLike, *, auxiliary: bool = False) -> keras.Model:
    """Loads a functional ``.keras`` or ``.h5`` model in Keras' safe mode.

    ``auxiliary`` as for `functional`.

    Raises:
        MissingError: the file does not exist.
        BadInputError: it is damaged, would run code of its own (Lambda), needs a class that is not
            Keras' own, or is not a functional model with one input and one output.
    """
    path = existing(path, "the model")
    if path.suffix not in (".keras", ".h5"):
        raise UsageError(f"a Keras model ends in .keras or .h5; {str(path)!r} was given")
    import keras

    try:
        objects = {"DepthwiseConv2D": _of_keras_2()} if path.suffix == ".h5" else None
        model = keras.saving.load_model(path, custom_objects=objects, compile=False, safe_mode=True)
    except Exception as error:
        raise BadInputError(f"cannot load {str(path)!r}: {_reason(error)}") from error
    return functional(model, path, auxiliary=auxiliary)


def _of_keras_2() -> type:
    """DepthwiseConv2D, whose configs of Keras 2 have ``groups``, which Keras 3 does not know."""
    import keras

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
        @classmethod
        def from_config(cls, config):
            known = {key: value for key, value in config.items() if key != "groups"}
            return keras.layers.DepthwiseConv2D.from_config(known)

    return DepthwiseConv2D


def functional(
    model: keras.Model, path: object = "the model", *, auxiliary: bool = False
) -> keras.Model:
    """Returns ``model`` if it is functional, image in, classes out; else raises BadInputError.

    Further outputs, of layers named ``head_aux*``, belong to training: a model that shares the
    layers is returned without them, or with ``auxiliary`` a model with the list of them all, the
    classifier's first. So is a plain one of a class that is not Keras' own.
    """
    import keras

    if not isinstance(model, keras.Sequential) and not hasattr(model, "operations"):
        raise BadInputError(
            f"{path} is a {type(model).__name__}; a functional or Sequential model is needed, "
            "because its graph is what is compressed and converted"
        )
    if not getattr(model, "inputs", None):
        raise BadInputError(f"{path} has no input yet; begin it with keras.Input((h, w, channels))")
    further = [output for output in model.outputs if _is_auxiliary(output)]
    outputs = [output for output in model.outputs if not _is_auxiliary(output)]
    if len(model.inputs) != 1 or len(outputs) != 1:
        raise BadInputError(
            f"{path} has {len(model.inputs)} inputs and {len(outputs)} outputs; one image in and "
            "one vector of logits or probabilities out is expected"
        )
    # A class of its own, as kimm's networks are, would be asked for wherever a file of it is read.
    if further or not type(model).__module__.startswith("keras."):
        wanted = [*outputs, *further] if further and auxiliary else outputs[0]
        model = keras.Model(model.inputs[0], wanted, name=model.name)
    image, output = model.inputs[0].shape, model.outputs[0].shape
    if len(image) != 4 or None in image[1:] or len(output) != 2 or output[1] is None:
        raise BadInputError(
            f"{path} maps {image} to {output}; (n, height, width, channels) to (n, classes) with "
            "fixed sizes is expected"
        )
    for each in further:
        if each.shape != output:
            raise BadInputError(f"{path} gives {output}, and {each.shape} from an auxiliary head")
    last = last_operation(model)
    activation = getattr(getattr(last, "activation", None), "__name__", "linear")
    if output[1] < 2 or activation not in ("linear", "softmax") or type(last).__name__ == "Sigmoid":
        ends = "a sigmoid" if type(last).__name__ == "Sigmoid" else f"activation {activation!r}"
        raise BadInputError(
            f"{path} ends in {output[1]} outputs with {ends}; logits or a softmax over at least 2 "
            "classes are expected (for two classes: Dense(2))"
        )
    return model


def _is_auxiliary(output: keras.KerasTensor) -> bool:
    return output._keras_history.operation.name.startswith(AUXILIARY)


def opened(model: keras.Model | str | os.PathLike, *, auxiliary: bool = False) -> keras.Model:
    """A model from a model or a path; ``auxiliary`` as for `functional`."""
    if isinstance(model, (str, os.PathLike)):
        return load_model(model, auxiliary=auxiliary)
    return functional(model, auxiliary=auxiliary)


def last_operation(model: keras.Model):
    """The operation that gives the output, inside nested models too."""
    import keras

    last = model.outputs[0]._keras_history.operation
    return last_operation(last) if isinstance(last, keras.Model) else last


def gives_probabilities(model: keras.Model) -> bool:
    """Whether the model ends in a softmax, inside its last layer or as one."""
    import keras

    last = last_operation(model)
    activation = getattr(last, "activation", None)
    return type(last).__name__ == "Softmax" or activation is keras.activations.softmax


def _reason(error: Exception) -> str:
    text = str(error)
    if "Lambda" in text:
        return (
            "it holds a Lambda layer, and a Lambda is code that would run here; "
            "rebuild the model with layers of Keras instead"
        )
    if "Could not locate class" in text or "Could not deserialize class" in text:
        return "it needs a custom class; only Keras' own layers are loaded: " + text.splitlines()[0]
    first = text.splitlines()[0] if text else type(error).__name__
    return f"the file is damaged or not a Keras model ({first})"
