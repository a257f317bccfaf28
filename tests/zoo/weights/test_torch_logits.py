"""A state dict gives the logits that PyTorch computes with it.

The networks are written here, by their papers, under torchvision's names.
"""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.registry import pair
from kzoo.zoo.weights.load import pretrained
from kzoo.zoo.weights.table import find
from tests.zoo.weights.test_place import smooth_images

torch = pytest.importorskip("torch")
nn = torch.nn


def conv_bn(inputs, outputs, kernel=3, stride=1, groups=1, eps=1e-5):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs, eps)]


class Basic(nn.Module):
    """He et al. 2015, figure 5, left."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inputs, outputs, 3, stride)
        self.conv2, self.bn2 = conv_bn(outputs, outputs)
        projected = stride > 1 or inputs != outputs
        self.downsample = nn.Sequential(*conv_bn(inputs, outputs, 1, stride)) if projected else None

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (self.downsample(x) if self.downsample else x)).relu()


class ResNet18(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(3, 64, 7, 2)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        for i, (inputs, outputs) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)], 1):
            blocks = [Basic(inputs, outputs, 1 + (i > 1)), Basic(outputs, outputs, 1)]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.fc = nn.Linear(512, classes)

    def forward(self, x):
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


def resnet18(classes):
    return ResNet18(classes)


class SqueezeExcite(nn.Module):
    def __init__(self, channels, squeezed):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        gate = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu())
        return x * nn.functional.hardsigmoid(gate)


class Inverted(nn.Module):
    """Howard et al. 2019, figure 4: expand, depthwise, squeeze and excite, project."""

    def __init__(self, inputs, kernel, middle, outputs, squeezed, act, stride):
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        parts = [(inputs, middle, 1)] if middle != inputs else []
        parts += [(middle, middle, kernel, stride, middle)]
        found = [nn.Sequential(*conv_bn(*each, eps=1e-3), act()) for each in parts]
        found += [SqueezeExcite(middle, squeezed)] if squeezed else []
        self.block = nn.Sequential(*found, nn.Sequential(*conv_bn(middle, outputs, 1, eps=1e-3)))

    def forward(self, x):
        return self.block(x) + x if self.residual else self.block(x)


RE, HS = nn.ReLU, nn.Hardswish
V3_SMALL = (
    (16, 3, 16, 16, 8, RE, 2), (16, 3, 72, 24, 0, RE, 2), (24, 3, 88, 24, 0, RE, 1),
    (24, 5, 96, 40, 24, HS, 2), *[(40, 5, 240, 40, 64, HS, 1)] * 2, (40, 5, 120, 48, 32, HS, 1),
    (48, 5, 144, 48, 40, HS, 1), (48, 5, 288, 96, 72, HS, 2), *[(96, 5, 576, 96, 144, HS, 1)] * 2,
)  # fmt: skip
"""Howard et al. 2019, table 2; the fifth are a quarter of the third, in multiples of 8."""


def mobilenet_v3_small(classes):
    stem = nn.Sequential(*conv_bn(3, 16, 3, 2, eps=1e-3), HS())
    last = nn.Sequential(*conv_bn(96, 576, 1, eps=1e-3), HS())
    net = nn.Sequential()
    net.features = nn.Sequential(stem, *(Inverted(*row) for row in V3_SMALL), last)
    net.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    dense = nn.Linear(576, 1024), HS(), nn.Dropout(0.2), nn.Linear(1024, classes)
    net.classifier = nn.Sequential(*dense)
    return net


class Fire(nn.Module):
    """Iandola et al. 2016, figure 1."""

    def __init__(self, inputs, squeezed):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, 4 * squeezed, 1)
        self.expand3x3 = nn.Conv2d(squeezed, 4 * squeezed, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


def squeezenet1_1(classes):
    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    net = nn.Sequential()
    net.features = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), Fire(64, 16), Fire(128, 16), pool(),
        Fire(128, 32), Fire(256, 32), pool(), Fire(256, 48), Fire(384, 48), Fire(384, 64),
        Fire(512, 64),
    )  # fmt: skip
    head = nn.Dropout(), nn.Conv2d(512, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    net.classifier, net.flat = nn.Sequential(*head), nn.Flatten()
    return net


def alexnet(classes):
    """Krizhevsky 2014, footnote 1, for a last map of 2 x 3 where 224 pixels give 6 x 6."""

    def conv(*arguments):
        return [nn.Conv2d(*arguments), nn.ReLU()]

    pool, net = nn.MaxPool2d(3, 2), nn.Sequential()
    net.features = nn.Sequential(
        *conv(3, 64, 11, 4, 2), pool, *conv(64, 192, 5, 1, 2), pool, *conv(192, 384, 3, 1, 1),
        *conv(384, 256, 3, 1, 1), *conv(256, 256, 3, 1, 1), pool,
    )  # fmt: skip
    net.flat = nn.Flatten()
    net.classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(256 * 2 * 3, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes),
    )  # fmt: skip
    return net


def trained(net):
    """Of a trained network's scale; BatchNorm's statistics are away from 0 and 1."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            nn.init.normal_(module.running_mean, 0, 0.1)
        elif hasattr(module, "weight"):
            nn.init.kaiming_normal_(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, 0, 0.1)
    return net.eval()


SIZES = 64, (75, 65)
"""Even, where torch pads another pixel than TensorFlow; odd."""


@pytest.mark.parametrize(
    ("make", "size"),
    [
        *((make, size) for make in (resnet18, mobilenet_v3_small, squeezenet1_1) for size in SIZES),
        (alexnet, (95, 127)),
    ],
)
def test_logits_are_those_of_pytorch(make, size, tmp_path):
    name = make.__name__
    net, row = trained(make(10)), find(name, "tv_in1k")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    height, width = pair(size)
    images = smooth_images(128)[:, :height, :width].astype(np.float32)
    pixels = ((images - np.float32(row.mean)) / np.float32(row.std)).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        expected = net(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()
    found = pretrained(name, tmp_path / "net.pth", classes=10, size=size)
    assert found.complete
    assert expected.std() > 0.01
    assert np.abs(np.asarray(found.model(images)) - expected).max() <= 1e-4 * expected.std()
