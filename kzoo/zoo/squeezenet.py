"""SqueezeNet: Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer 2016 (arXiv:1602.07360), table 1.

1.1 is the authors' later release: 2.4 times fewer multiplications.
"""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import ceil_pool, layers, plain

# stage of each fire module, which pooling begins, and the channels that it squeezes to
V1_0 = ((1, 16), (1, 16), (1, 32), (2, 32), (2, 48), (2, 48), (2, 64), (3, 64))
V1_1 = ((1, 16), (1, 16), (2, 32), (2, 32), (3, 48), (3, 48), (3, 64), (3, 64))

_TORCH = {
    "flavour": "torch", "top1_source": "torchvision",
    "paper": "Iandola et al. 2016 (arXiv:1602.07360), table 1",
}  # fmt: skip


def fire(x, squeezed: int, name: str):
    """Squeeze by 1x1, expand by 1x1 and 3x3: (n, h, w, c) -> (n, h, w, 8 squeezed)."""
    x = plain(x, squeezed, name=f"{name}_squeeze")
    branches = [
        plain(x, 4 * squeezed, kernel, name=f"{name}_{kernel}x{kernel}") for kernel in (1, 3)
    ]
    return layers.Concatenate(name=f"{name}_concat")(branches)


@model("squeezenet1_0", 1_248_424, 1_248_424, 818_924_576, min_size=21, top1=58.092, stem=96,
       kernel=7, fires=V1_0, **_TORCH)  # fmt: skip
@model("squeezenet1_1", 1_235_496, 1_235_496, 349_151_936, min_size=17, top1=58.178, stem=64,
       kernel=3, fires=V1_1, **_TORCH)  # fmt: skip
def squeezenet(x, classes, *, stem, kernel, fires):
    x = plain(x, stem, kernel, 2, padding="valid", name="stem")
    blocks = [0] * 4
    for stage, squeezed in fires:
        blocks[stage] += 1
        name = f"stage{stage}_{blocks[stage]}"
        x = ceil_pool(x, name=name) if blocks[stage] == 1 else x
        x = fire(x, squeezed, name)
    if classes:
        x = layers.Dropout(0.5, name="head_dropout")(x)
        x = plain(x, classes, name="head")
    return layers.GlobalAveragePooling2D(name="head_pool")(x)
