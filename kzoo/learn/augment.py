"""Augmentation by Keras' own layers, applied to whole batches of images and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import yaml

from kzoo.errors import UsageError
from kzoo.learn.named import named

if TYPE_CHECKING:
    import keras

RESIZING = ("CenterCrop", "RandomCrop", "Resizing")
"""They change the size, which is the network's."""
PRESETS: dict[str, Sequence[Mapping[str, object]]] = {
    "none": (),
    "light": (
        {"name": "random_flip", "mode": "horizontal"},
        {"name": "random_translation", "height_factor": 0.1, "width_factor": 0.1},
    ),
    "strong": (
        {"name": "random_flip", "mode": "horizontal"},
        {"name": "random_translation", "height_factor": 0.1, "width_factor": 0.1},
        {"name": "random_rotation", "factor": 0.04},
        {"name": "random_zoom", "height_factor": 0.15},
        {"name": "random_brightness", "factor": 0.15},
        {"name": "mix_up", "alpha": 0.2},
        {"name": "random_erasing", "factor": 0.25},
    ),
}
"""By name. RandAugment is in none: computing every operation for every image, Keras' takes 50 ms an
image at 128 pixels."""

Augment = str | Sequence[str | Mapping[str, object]]


def augmentation(chosen: Augment) -> list[str | Mapping[str, object]]:
    """The layers of a preset, or those given; raises UsageError for an unknown one."""
    if isinstance(chosen, str):
        chosen = PRESETS.get(chosen, [chosen])
    for each in chosen:
        _named(each)
    return [*chosen]


def parse_augment(texts: Sequence[str]) -> Augment:
    """What is typed for `augmentation`: a preset, names, or ``"mix_up: {alpha: 0.2}"``, YAML."""
    if len(texts) <= 1 and (not texts or texts[0] in PRESETS):
        return texts[0] if texts else "none"
    layers = []
    for text in texts:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = None
        if isinstance(value, dict) and len(value) == 1:
            name, arguments = next(iter(value.items()))
            value = {"name": name, **(arguments or {})} if isinstance(arguments, dict) else None
        if not isinstance(value, (str, dict)):
            raise UsageError(
                f"augmentation is a layer's name or 'mix_up: {{alpha: 0.2}}'; {text!r} was given"
            )
        layers.append(value)
    return layers


class Augmenter:
    """Keras' augmentation layers in one compiled step.

    Its random state are variables, so that a checkpoint holds them.
    """

    def __init__(self, layers: Sequence[str | Mapping[str, object]], seed: int):
        import keras

        made = [_named(layer)(seed=seed + i) for i, layer in enumerate(layers)]

        class Augmentation(keras.Model):
            def __init__(self):
                super().__init__()
                self.made = made  # tracked: JAX forgets the random state of other layers

            def call(self, batch):
                for layer in self.made:
                    batch = layer(batch, training=True)
                return batch

        self.model = Augmentation()
        self.model.compile(jit_compile=False)
        self.layers = made

    @property
    def variables(self) -> list[keras.Variable]:
        """The random state."""
        return [variable for layer in self.layers for variable in layer.variables]

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Augments a batch.

        Args:
            images: float32 (n, h, w, c) in [0, 255].
            labels: float32 (n, classes), one-hot.

        Returns:
            Both, in the same shapes; labels are mixed where images are.

        Raises:
            UsageError: a layer cannot do with such images, such as hue with gray ones.
        """
        try:
            found = self.model.predict_on_batch({"images": images, "labels": labels})
        except Exception as error:  # nearly every class there is, of Keras and of its backends
            names = ", ".join(layer.name for layer in self.layers)
            raise UsageError(
                f"augmentation by {names} does not fit images of {images.shape[1:]}: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        return found["images"], found["labels"]


def _named(layer: str | Mapping[str, object]):
    import keras

    base = keras.layers.RandomFlip.__base__
    return named(keras.layers, base, "augmentation layer", layer, also=[*PRESETS], without=RESIZING)
