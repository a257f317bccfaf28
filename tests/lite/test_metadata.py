"""The standard metadata: what is written is read, by ours and by MediaPipe; damage is told."""

from __future__ import annotations

import io
import re
import zipfile

import flatbuffers
import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.data.load import load_data
from kzoo.errors import BadInputError
from kzoo.lite import flatbuffer
from kzoo.lite.inspect import inspect
from kzoo.lite.interpret import lite_outputs
from kzoo.lite.metadata import ENTRY, LABELS, read_metadata, with_metadata
from kzoo.lite.metadata_schema import pack, unpack

DIGITS = [str(digit) for digit in range(10)]


def without(data: bytes, *entries: bytes) -> bytes:
    """The file without some of its metadata entries, and without what is behind the flatbuffer."""
    model = flatbuffer.parse(data)
    model.metadata = [entry for entry in model.metadata if entry.name not in entries]
    return flatbuffer.serialize(model)


def packed(data: bytes) -> bytes:
    """The metadata's own flatbuffer."""
    model = flatbuffer.parse(data)
    (entry,) = (entry for entry in model.metadata if entry.name == ENTRY)
    return bytes(model.buffers[entry.buffer].data)


def archive(data: bytes) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(data))


@pytest.fixture(params=["float", "int8"])
def lite(request, lite_float, lite_int8):
    return lite_float if request.param == "float" else lite_int8


def test_what_was_written_is_read(lite):
    found = read_metadata(lite.read_bytes())
    kind = "float32" if "float" in lite.name else "int8"
    assert found["name"] == "lenet5"
    assert kind in found["description"]
    assert "10 classes" in found["description"]
    assert found["labels"] == DIGITS
    assert found["min_parser_version"] == "1.0.0"
    assert found["version"] == found["author"] == found["licence"] == ""


def test_notes_that_tell_more_are_written(lite_float):
    told = {"version": "2", "author": "A. Müller", "licence": "Apache-2.0", "classes": DIGITS}
    found = read_metadata(with_metadata(lite_float.read_bytes(), told))
    assert {key: found[key] for key in told if key != "classes"}.items() <= told.items()


@pytest.mark.parametrize("io_dtype", ["uint8", "float32", "int8"])
def test_who_normalizes_and_then_quantizes_gives_the_pixel(trained, digits, tmp_path, io_dtype):
    """As the standard asks of a reader, and Android Studio's code does."""
    path = tmp_path / "m.tflite"
    contents = kzoo.quantize(trained, path, calibrate=digits, samples=20, io=io_dtype).contents
    pixels = np.arange(256, dtype=np.float32)
    mean, std = (np.float32(contents.metadata["normalization"][key][0]) for key in ("mean", "std"))
    found = (pixels - mean) / std
    if contents.input["scale"]:
        found = found / contents.input["scale"] + contents.input["zero_point"]
    shift = 128 if contents.input["dtype"] == "int8" else 0
    np.testing.assert_allclose(found, pixels - shift, atol=0.01)


def test_the_flatbuffer_says_what_the_tensors_are(lite_int8, lite_float):
    for lite, highest in ((lite_float, 1.0), (lite_int8, 255.0)):
        (graph,) = unpack(packed(lite.read_bytes()))["subgraph_metadata"]
        (image,), (output,) = graph["input_tensor_metadata"], graph["output_tensor_metadata"]
        properties = image["content"]["content_properties"]
        assert properties == {"color_space": 2, "default_size": {"width": 32, "height": 32}}
        assert image["stats"] == {"max": [255.0], "min": [0.0]}
        assert output["name"] == "probabilities"
        assert output["stats"] == {"max": [highest], "min": [0.0]}
        assert [(file["name"], file["type"]) for file in output["associated_files"]] == [
            (LABELS, 2)
        ]


def test_logits_have_no_range(trained, tmp_path):
    kzoo.convert(trained, tmp_path / "m.tflite", head="logits")
    (graph,) = unpack(packed((tmp_path / "m.tflite").read_bytes()))["subgraph_metadata"]
    (output,) = graph["output_tensor_metadata"]
    assert output["name"] == "logits"
    assert "stats" not in output


def test_the_class_names_are_a_stored_file_in_an_archive(lite):
    data = lite.read_bytes()
    with archive(data) as found:
        (member,) = found.infolist()
        assert found.read(LABELS).decode().splitlines() == DIGITS
    assert member.compress_type == zipfile.ZIP_STORED
    assert member.date_time == (1980, 1, 1, 0, 0, 0)
    # Readers on a phone take offsets from the start of the file, not of the archive.
    assert data[member.header_offset :].startswith(b"PK\3\4")


def test_the_bytes_depend_on_the_arguments_alone(trained, lite_float, tmp_path):
    kzoo.convert(trained, tmp_path / "again.tflite")
    data = lite_float.read_bytes()
    assert (tmp_path / "again.tflite").read_bytes() == data
    assert with_metadata(data, flatbuffer.notes(flatbuffer.parse(data))) == data


def test_it_computes_the_same_without(lite, digits, tmp_path):
    (tmp_path / "bare.tflite").write_bytes(without(lite.read_bytes(), ENTRY))
    assert inspect(tmp_path / "bare.tflite").metadata == {}
    indices = np.arange(20)
    pairs = (
        lite_outputs(path, digits.images_file, indices) for path in (lite, tmp_path / "bare.tflite")
    )
    for mine, bare in zip(*pairs, strict=True):
        np.testing.assert_array_equal(mine, bare)


def test_the_contents_tell_of_it_and_the_notes_stay(lite):
    contents = inspect(lite)
    assert contents.metadata["labels"] == 10
    assert contents.metadata["name"] == contents.notes["model"] == "lenet5"
    assert contents.notes["classes"] == DIGITS


def test_a_network_without_class_names_has_no_archive(foreign, tmp_path):
    kzoo.convert(foreign("no preprocess"), tmp_path / "m.tflite")
    found = read_metadata((tmp_path / "m.tflite").read_bytes())
    assert found["name"] == "foreign"
    assert found["labels"] == []
    assert not zipfile.is_zipfile(tmp_path / "m.tflite")


@pytest.mark.parametrize(
    "classes",
    [["ä", "猫", "a, b"] * 3 + ["x" * 300], ["two\nlines", "\r", "", "\ufeff"] * 2 + ["", "z"]],
)
def test_any_class_name_takes_one_line(lite_float, classes):
    found = read_metadata(with_metadata(lite_float.read_bytes(), {"classes": classes}))["labels"]
    assert found == [" ".join(name.splitlines()) for name in classes]


def test_a_wrong_number_of_class_names_is_left_out(lite_float):
    data = with_metadata(lite_float.read_bytes(), {"classes": ["a", "b"]})
    assert read_metadata(data)["labels"] == []
    assert not zipfile.is_zipfile(io.BytesIO(data))


def test_class_names_of_files_from_elsewhere_are_used(lite_float, digits_folder, tmp_path):
    bare, path = without(lite_float.read_bytes(), b"kzoo", ENTRY), tmp_path / "m.tflite"
    path.write_bytes(with_metadata(bare, {"classes": [f"digit {d}" for d in DIGITS]}))
    assert inspect(path).notes == {"classes": [f"digit {d}" for d in DIGITS]}
    image = next((digits_folder / "7").iterdir())
    for lite, prefix in ((path, "digit "), (lite_float, "")):
        (found,) = kzoo.predict(lite, [image], top=10)
        assert sorted(row["class"] for row in found["top"]) == [f"{prefix}{d}" for d in DIGITS]
    path.write_bytes(bare)
    assert inspect(path).notes == {}


def test_published_files_are_read(shared):
    file = shared / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    contents, found = inspect(file), read_metadata(file.read_bytes())
    assert contents.metadata == {**found, "labels": 1001}
    assert found["normalization"] == {"mean": [127.5], "std": [127.5]}
    assert found["labels"][:2] == ["background", "tench, Tinca tinca"]
    (said,) = kzoo.predict(file, [shared / "coral" / "parrot.jpg"], top=1)
    assert said["top"][0]["class"] == "macaw"


def told(data: bytes) -> dict | None:
    """What is read, or None if it is refused; anything else is raised."""
    try:
        return read_metadata(data)
    except BadInputError:
        return None


def test_damaged_metadata_are_refused_or_read(lite_float):
    data = lite_float.read_bytes()
    start = data.index(packed(data))
    end = data.index(b"PK\3\4", start)
    rng = np.random.default_rng(0)
    places = [*range(start, start + len(packed(data))), *range(end, len(data))]
    outcomes = set()
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        found = told(bytes(flipped))
        outcomes.add("refused" if found is None else "same" if found == told(data) else "other")
    for length in rng.integers(0, len(data), 100):
        told(data[:length])
        told(bytes(length % 97) + data[length:])
    assert outcomes == {"refused", "same", "other"}


def test_a_file_cut_off_in_its_class_names_is_refused(lite):
    data = lite.read_bytes()
    start = data.rindex(b"PK\3\4")
    for length in range(start + 30 + len(LABELS), len(data)):
        with pytest.raises(BadInputError, match="cut off"):
            read_metadata(data[:length])
    assert read_metadata(data[:start])["labels"] == []


@pytest.mark.parametrize("name", [LABELS, "gone.txt"])
def test_an_archive_without_the_class_names_gives_none(lite_float, name):
    data = lite_float.read_bytes()
    stream = io.BytesIO()
    stream.write(data[: data.rindex(b"PK\3\4")])
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(name, "\n".join(DIGITS))
    assert read_metadata(stream.getvalue())["labels"] == (DIGITS if name == LABELS else [])


def test_an_archive_that_unpacks_to_anything_is_refused(lite_float):
    data = lite_float.read_bytes()
    stream = io.BytesIO()
    stream.write(data[: data.rindex(b"PK\3\4")])
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(LABELS, b"\n" * 10_000_000)
    with pytest.raises(BadInputError, match=r"labels\.txt has more than"):
        read_metadata(stream.getvalue())


def test_a_flatbuffer_that_refers_to_itself_is_refused():
    builder = flatbuffers.Builder()
    text = builder.CreateString("x" * 10_000)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    file = builder.EndObject()
    builder.StartVector(4, 100_000, 4)
    for _ in range(100_000):
        builder.PrependUOffsetTRelative(file)
    files = builder.EndVector()
    builder.StartObject(7)
    builder.PrependUOffsetTRelativeSlot(6, files, 0)
    builder.Finish(builder.EndObject())
    with pytest.raises(ValueError, match="refers to what is not there"):
        unpack(bytes(builder.Output()))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"name": "", "license": "ü", "subgraph_metadata": []},
        {"subgraph_metadata": [{}, {"name": "b", "input_tensor_metadata": [{}, {"name": "t"}]}]},
        {
            "subgraph_metadata": [
                {
                    "output_tensor_metadata": [
                        {
                            "dimension_names": ["batch", "", "class"],
                            "stats": {"max": [1.0, 0.5, -2.0], "min": []},
                            "process_units": [
                                {"options_type": 1, "options": {"mean": [0.25], "std": [8.0]}}
                            ],
                        }
                    ]
                }
            ]
        },
    ],
)
def test_unpack_inverts_pack(values):
    assert unpack(pack(values)) == values


@pytest.fixture(scope="module")
def colour_digits():
    return load_data("digits", channels=3, size=32)


@pytest.fixture(scope="module")
def colourful(colour_digits, tmp_path_factory):
    """A LeNet-5 on RGB, as MediaPipe takes no gray, after three epochs on the digits."""
    path = tmp_path_factory.mktemp("rgb") / "lenet5.keras"
    model = kzoo.build("lenet5", channels=3, size=32, seed=0)
    kzoo.finetune(model, colour_digits, phases=[{"epochs": 3, "learning_rate": 3e-3}], output=path)
    return path


@pytest.fixture(scope="module")
def mediapipe():
    # Without the libraries of a display, libGL and libEGL, it is there and cannot be imported.
    return pytest.importorskip("mediapipe", exc_type=ImportError)


def said_by(mediapipe, file, images) -> tuple[list[str], np.ndarray]:
    """The most probable class and the probabilities (n, classes), by MediaPipe's classifier."""
    tasks = mediapipe.tasks
    options = tasks.vision.ImageClassifierOptions(
        base_options=tasks.BaseOptions(model_asset_buffer=file.read_bytes())
    )
    names, rows = [], []
    with tasks.vision.ImageClassifier.create_from_options(options) as classifier:
        for pixels in images:
            image = mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(pixels))
            (head,) = classifier.classify(image).classifications
            names.append(head.categories[0].category_name)
            rows.append(np.zeros(len(head.categories), np.float32))
            for category in head.categories:
                rows[-1][category.index] = category.score
    return names, np.stack(rows)


@pytest.mark.parametrize("kind", ["float32", "uint8", "int8 with uint8", "int8 with float32"])
def test_mediapipe_says_the_same(mediapipe, colourful, colour_digits, tmp_path, kind):
    path = tmp_path / "m.tflite"
    if kind.startswith("int8"):
        io_dtype = kind.split()[-1]
        kzoo.quantize(colourful, path, calibrate=colour_digits, samples=50, io=io_dtype)
    else:
        kzoo.convert(colourful, path, io=kind)
    indices = np.arange(50)
    mine, _ = lite_outputs(path, colour_digits.images_file, indices)
    names, theirs = said_by(mediapipe, path, colour_digits.images[indices])
    assert names == [DIGITS[i] for i in mine.argmax(axis=1)]
    np.testing.assert_allclose(theirs, mine, atol=0.01)


def test_mediapipe_says_the_same_of_a_photo(mediapipe, shared, tmp_path):
    file = shared / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    with Image.open(shared / "coral" / "parrot.jpg") as photo:
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        square = photo.convert("RGB").resize((128, 128), box=(left, top, left + side, top + side))
    square.save(tmp_path / "parrot.png")
    (mine,) = kzoo.predict(file, [tmp_path / "parrot.png"], top=1)
    names, _ = said_by(mediapipe, file, [np.asarray(square)])
    assert names == [mine["top"][0]["class"]] == ["macaw"]


@pytest.mark.usefixtures("mediapipe")
def test_the_published_schema_reads_what_ours_does(lite):
    from mediapipe.tasks.metadata import metadata_schema_py_generated as published

    def values(table) -> object:
        """A table of theirs as ours gives it: without what is not there."""
        if isinstance(table, list):
            return [values(each) for each in table]
        if hasattr(table, "tolist"):
            return table.tolist()
        if not hasattr(table, "__dict__"):
            return table.decode() if isinstance(table, bytes) else table
        found = {re.sub("(?<!^)([A-Z])", r"_\1", key).lower(): v for key, v in vars(table).items()}
        return {key: values(value) for key, value in found.items() if value is not None}

    data = packed(lite.read_bytes())
    assert published.ModelMetadata.ModelMetadataBufferHasIdentifier(data, 0)
    assert values(published.ModelMetadataT.InitFromPackedBuf(data)) == unpack(data)
