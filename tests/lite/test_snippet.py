"""Programs for a file: run as a user runs them, they give what kzoo gives."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.data.photo import read_photo
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.lite import flatbuffer
from kzoo.lite.inspect import inspect
from kzoo.lite.interpret import ENCODINGS
from kzoo.lite.snippet import LANGUAGES, TAKEN, snippet
from kzoo.network.model_file import save_model

NAMES = [
    'a "quoted" $name',
    "back\\slash ??/",
    "猫 ${x}",
    "two\nlines",
    'three """ quotes',
    "",
    "y",
]


@pytest.fixture(scope="module")
def place(trained, lite_float, lite_int8, digits, foreign, tmp_path_factory):
    """A folder with a file of every kind, and images."""
    import keras

    folder = tmp_path_factory.mktemp("snippet")
    shutil.copy(lite_int8, folder / "uint8.tflite")
    shutil.copy(lite_float, folder / "float.tflite")
    kzoo.quantize(trained, folder / "int8.tflite", calibrate=digits, samples=20, io="int8")
    kzoo.convert(trained, folder / "logits.tflite", head="logits", io="float32")
    kzoo.convert(foreign("softmax inside"), folder / "nameless.tflite")
    # Wider than high, in color, of the middle of a photo, with names that end a text.
    image = keras.Input((20, 28, 3))
    x = keras.layers.Conv2D(8, 3, 2, activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Dense(len(NAMES))(keras.layers.GlobalAveragePooling2D()(x))
    notes = {"classes": NAMES, "crop": 0.8}
    save_model(keras.Model(image, x), folder / "wide.keras", notes=notes)
    kzoo.convert(folder / "wide.keras", folder / "wide.tflite", io="float32")
    for i in digits.splits["test"][:3]:
        Image.fromarray(digits.images[i, ..., 0]).save(folder / f"{i}.png")
    return folder


KINDS = {
    "uint8": ("uint8", "uint8"),
    "int8": ("int8", "int8"),
    "float": ("uint8", "float32"),
    "logits": ("float32", "float32"),
    "nameless": ("uint8", "float32"),
    "wide": ("float32", "float32"),
}
"""Each file's dtypes of input and output."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_program_prints_what_kzoo_predicts(kind, place, tmp_path, kzoo_command):
    file = place / f"{kind}.tflite"
    contents = inspect(file, packed=False)
    assert (contents.input["dtype"], contents.output["dtype"]) == KINDS[kind]
    images = sorted(place.glob("*.png"))
    program = tmp_path / "classify.py"
    record = snippet(file, "python", output=program)
    assert (record.output, record.program) == (str(program), None)
    ran = subprocess.run(
        [sys.executable, "-I", program, *images], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    told = kzoo_command("predict", *images, "--model", file)
    assert ran.stdout == told.stdout
    if kind == "nameless":
        assert "class 3 " in ran.stdout


def test_programs_take_what_kzoo_takes():
    for language in LANGUAGES:
        assert set(TAKEN[language]) == set(ENCODINGS)


def test_another_file_under_its_name_is_refused(place, tmp_path):
    shutil.copy(place / "uint8.tflite", tmp_path / "m.tflite")
    text = snippet(tmp_path / "m.tflite", "python").program
    (tmp_path / "classify.py").write_text(text)
    shutil.copy(place / "int8.tflite", tmp_path / "m.tflite")
    image = next(place.glob("*.png"))
    ran = subprocess.run(
        [sys.executable, tmp_path / "classify.py", image], capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert "not the file" in ran.stderr


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Every kind of image that is decoded in a way of its own."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)

    def pixels(height, width, channels):
        small = rng.integers(0, 256, (channels, height // 25, width // 25), np.uint8)
        large = [np.asarray(Image.fromarray(each).resize((width, height))) for each in small]
        return np.stack(large, axis=-1)

    color = Image.fromarray(pixels(600, 900, 3))
    color.save(folder / "large.jpg")
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        color.save(folder / f"turned{turn}.jpg", exif=exif)
    color.resize((75, 50)).save(folder / "turned.tif", exif=exif)
    color.resize((9, 11)).save(folder / "small.png")
    color.resize((50, 300)).save(folder / "high.webp")
    color.convert("CMYK").save(folder / "print.jpg")
    color.resize((60, 60)).convert("P").save(folder / "palette.png")
    color.resize((60, 60)).convert("P").save(folder / "hole.png", transparency=7)
    color.convert("1").save(folder / "bits.png")
    Image.fromarray(pixels(100, 150, 4), "RGBA").save(folder / "alpha.png")
    Image.fromarray(pixels(100, 150, 2), "LA").save(folder / "gray_alpha.png")
    sixteen = Image.fromarray(rng.integers(0, 65536, (90, 70), np.uint16))
    sixteen.save(folder / "sixteen.png")
    sixteen.save(folder / "sixteen.tif")
    frames = [color.resize((40, 40)), color.resize((40, 40)).rotate(90)]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    return sorted(folder.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["wide", "uint8"])
def test_the_program_sees_the_pixels_that_kzoo_sees(kind, place, photos, tmp_path):
    program = tmp_path / "classify.py"
    snippet(place / f"{kind}.tflite", "python", output=program)
    seen = runpy.run_path(str(program))["pixels"]
    shape, crop = ((20, 28, 3), 0.8) if kind == "wide" else ((32, 32, 1), 1.0)
    for photo in photos:
        np.testing.assert_array_equal(seen(photo), read_photo(photo, shape, crop), photo.name)


MAIN = """
#include <stdio.h>
#include "model.h"

int main(void) {
    fwrite(ARRAY, 1, ARRAY_len, stdout);
    fprintf(stderr, "%d %d %d %d %d %d\\n", ARRAY_input_height, ARRAY_input_width,
            ARRAY_input_channels, ARRAY_classes, (int)sizeof(ARRAY), (int)((size_t)ARRAY % 16));
#ifdef QUANTIZED
    fprintf(stderr, "%.9g %d %.9g %d\\n", ARRAY_input_scale, ARRAY_input_zero_point,
            ARRAY_output_scale, ARRAY_output_zero_point);
#endif
    for (int i = 0; i < ARRAY_classes; i++) fprintf(stderr, "%s\\n", ARRAY_class_names[i]);
    return 0;
}
"""


@pytest.mark.parametrize("compiler", ["cc -x c -std=c11", "c++ -x c++ -std=c++11"])
@pytest.mark.parametrize("kind", ["uint8", "wide"])
def test_the_array_is_the_file(kind, compiler, place, tmp_path):
    compiler, *options = compiler.split()
    if not shutil.which(compiler):
        pytest.skip(f"needs the compiler {compiler}")
    # A name that no identifier may have.
    file = shutil.copy(place / f"{kind}.tflite", tmp_path / "2 int-größe.v2.tflite")
    snippet(file, "c", output=tmp_path / "model.h")
    text = (tmp_path / "model.h").read_text()
    (name,) = re.findall(r"unsigned char (\w+)\[", text)
    assert re.fullmatch(r"[A-Za-z]\w*_tflite", name)
    contents = inspect(file, packed=False)
    quantized = contents.input["scale"] is not None
    (tmp_path / "main.c").write_text(MAIN.replace("ARRAY", name))
    flags = ["-Wall", "-Wextra", "-Werror", "-pedantic", *["-DQUANTIZED"] * quantized]
    command = [compiler, *options, *flags, tmp_path / "main.c", "-o", tmp_path / "main"]
    subprocess.run(command, check=True)
    ran = subprocess.run([tmp_path / "main"], capture_output=True, check=True)
    data = (place / f"{kind}.tflite").read_bytes()
    assert ran.stdout == data
    told = ran.stderr.decode().split("\n")[:-1]
    shape = [*contents.input["shape"][1:], contents.output["shape"][1]]
    assert told.pop(0).split() == [*map(str, shape), str(len(data)), "0"]
    if quantized:
        ends = (contents.input, contents.output)
        expected = [np.float32(end[key]) for end in ends for key in ("scale", "zero_point")]
        assert [np.float32(each) for each in told.pop(0).split()] == expected
    names = NAMES if kind == "wide" else [str(i) for i in range(10)]
    assert told == [" ".join(each.splitlines()) for each in names]


STUBS = {
    "Android.kt": """
package android.content
class Context(val assets: Assets)
class Assets { fun open(name: String): java.io.InputStream = name.byteInputStream() }
""",
    "Bitmap.kt": """
package android.graphics
class Bitmap(val width: Int, val height: Int, val argb: IntArray) {
    fun getPixels(to: IntArray, offset: Int, stride: Int, x: Int, y: Int, wide: Int, high: Int) {
        check(offset == 0 && stride == width && x == 0 && wide == width && high == 1)
        argb.copyInto(to, 0, y * width, (y + 1) * width)
    }
}
""",
    "Interpreter.kt": """
package org.tensorflow.lite
class Interpreter(model: java.nio.ByteBuffer, options: Options) : AutoCloseable {
    class Options { fun setNumThreads(threads: Int): Options = this }
    fun run(input: Any, output: Any) {
        output as java.nio.ByteBuffer
        while (output.hasRemaining()) output.put((input as java.nio.ByteBuffer).get())
    }
    override fun close() {}
}
""",
    "Main.kt": """
import android.content.*
import android.graphics.Bitmap
fun main(arguments: Array<String>) {
    val (width, height) = arguments[0].split("x").map { it.toInt() }
    val bytes = java.nio.ByteBuffer.wrap(java.io.File(arguments[1]).readBytes())
    val argb = IntArray(width * height) { bytes.getInt() }
    val read = { y: Int, row: IntArray ->
        argb.copyInto(row, 0, y * width, (y + 1) * width)
        Unit
    }
    println(WideClassifier.resized(width, height, read).joinToString(" "))
    println(Uint8Classifier.resized(width, height, read).joinToString(" "))
    val bitmap = Bitmap(width, height, argb)
    for (found in listOf(Uint8Classifier(Context(Assets())).probabilities(bitmap),
            Int8Classifier(Context(Assets())).probabilities(bitmap),
            LogitsClassifier(Context(Assets())).probabilities(bitmap)))
        println(found.joinToString(" "))
    println(Uint8Classifier(Context(Assets())).classify(bitmap, 1)[0].name)
    for (name in WideClassifier.CLASSES + NamelessClassifier.CLASSES) println(name)
}
""",
}
"""What of Android and LiteRT the class needs, in place of them: the interpreter gives its input."""


@pytest.mark.slow
def test_the_class_in_kotlin_compiles_and_sees_the_same_pixels(place, photos, tmp_path):
    """On the JVM, against stubs: no part of Android, and no model, runs here."""
    if not (shutil.which("kotlinc") and shutil.which("java")):
        pytest.skip("needs kotlinc, which the npm package kotlin-compiler has, and java")
    for name, text in STUBS.items():
        (tmp_path / name).write_text(text)
    for kind in KINDS:
        snippet(place / f"{kind}.tflite", "kotlin", output=tmp_path / f"{kind}.kt")
    jar = tmp_path / "all.jar"
    command = ["kotlinc", "-Werror", "-include-runtime", "-d", jar, *tmp_path.glob("*.kt")]
    subprocess.run([*map(str, command)], check=True)
    for photo in photos:
        if photo.name not in ("small.png", "alpha.png", "high.webp"):
            continue
        with Image.open(photo) as image:
            pixels = np.asarray(image.convert("RGBA"))
        (tmp_path / "argb").write_bytes(np.roll(pixels, 1, axis=-1).tobytes())
        height, width, _ = pixels.shape
        ran = subprocess.run(
            ["java", "-cp", jar, "MainKt", f"{width}x{height}", tmp_path / "argb"],
            capture_output=True,
            text=True,
            check=True,
        )
        wide, gray, uint8, int8, logits, first, *names = ran.stdout.split("\n")[:-1]
        wide, gray = (np.array(each.split(), int) for each in (wide, gray))
        uint8, int8, logits = (np.array(each.split(), float) for each in (uint8, int8, logits))
        for found, shape, crop in ((wide, (20, 28, 3), 0.8), (gray, (32, 32, 1), 1.0)):
            expected = read_photo(photo, shape, crop).astype(int)
            assert np.abs(found.reshape(shape) - expected).max() <= 2, photo.name
        # The stub gives back what it was given: the pixels, as the file takes them.
        np.testing.assert_allclose(uint8, gray[:10] / 256, rtol=1e-6)
        np.testing.assert_allclose(int8, gray[:10] / 256, rtol=1e-6)
        raised = np.exp(gray[:10] - gray[:10].max())
        np.testing.assert_allclose(logits, raised / raised.sum(), atol=1e-6)
        assert first == str(gray[:10].argmax())
        assert names[: len(NAMES)] == [" ".join(each.splitlines()) for each in NAMES]
        assert names[len(NAMES) :] == [f"class {i}" for i in range(10)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_program_is_the_same_each_time_and_never_overwritten(language, place, tmp_path):
    file, output = place / "uint8.tflite", tmp_path / "program"
    text = snippet(file, language).program
    assert snippet(file, language).program == text
    output.write_text("of great worth")
    with pytest.raises(UsageError, match="--force"):
        snippet(file, language, output=output)
    assert output.read_text() == "of great worth"
    snippet(file, language, output=output, force=True)
    assert len(output.read_text()) >= len(text)


def test_mistakes_are_told(place, shared, tmp_path):
    copy = shutil.copy(place / "uint8.tflite", tmp_path / "m.tflite")
    with pytest.raises(UsageError, match="python"):
        snippet(copy, "pyhton")
    with pytest.raises(UsageError, match="the model itself"):
        snippet(copy, "c", output=copy, force=True)
    with pytest.raises(MissingError, match="does not exist"):
        snippet(tmp_path / "absent.tflite", "c")
    with pytest.raises(BadInputError, match=r"\(n, classes\) is"):
        snippet(shared / "coral" / "deeplabv3_mnv2_dm05_pascal_quant.tflite", "c")
    model = flatbuffer.parse((place / "uint8.tflite").read_bytes())
    entry = next(each for each in model.metadata if each.name == b"kzoo")
    model.buffers[entry.buffer].data = np.frombuffer(b'{"classes": ["a", "b"]}', np.uint8)
    (tmp_path / "m.tflite").write_bytes(flatbuffer.serialize(model))
    with pytest.raises(BadInputError, match="names 2 classes and gives 10"):
        snippet(copy, "python")
