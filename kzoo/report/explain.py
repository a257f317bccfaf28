"""The page, or the picture, of an explanation."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kzoo.files import atomic, write_bytes
from kzoo.report import explain_plots as plots
from kzoo.report.page import data_uri, ending_of, template
from kzoo.report.sections import environment_facts

ENDINGS = (".html", ".png")
TITLES = {
    "stages": "Grad-CAM at every stage, each by its own maximum",
    "activations": "Activations, the strongest channels first: orange is positive, blue negative",
    "filters": "Filters of the first convolution: mid-grey is 0",
}
"""In a picture, where no text explains the figures."""


def ending(path: str | os.PathLike) -> str:
    """Returns ``.html`` or ``.png``; raises UsageError for a file with another ending."""
    return ending_of(path, "an explanation", ENDINGS)


def write_explanation(explanation, path: str | os.PathLike, about: Mapping) -> Path:
    """Writes an explanation as a self-contained ``.html``, or its figures as one ``.png``.

    Args:
        explanation: a `kzoo.learn.explain.Explanation`.
        path: the file.
        about: "date" and "environment", as records have them.

    Raises:
        UsageError: the file has another ending.
        MissingError: it cannot be written.
    """
    path = Path(path)
    as_page = ending(path) == ".html"
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        images = [
            _figures(explanation, seen, Path(folder) / f"{i}", titled=not as_page)
            for i, seen in enumerate(explanation.images)
        ]
        filters = Path(folder) / "filters.png"
        if explanation.filters:
            plots.filters(explanation.filters, filters, "" if as_page else TITLES["filters"])
        drawn = [file for figures in images for file in figures.values()]
        drawn += [filters] if explanation.filters else []
        if not as_page:
            _stack(drawn, path)
            return path
        pictures = {file: data_uri(file.read_bytes()) for file in drawn}
    page = template("explain.html").render(
        name=f"{explanation.model} on {_listed(explanation.images)}",
        date=about["date"][:16].replace("T", " "),
        version=about["environment"].get("packages", {}).get("kzoo"),
        verdict=" ".join(map(_verdict, explanation.images)),
        explanation=explanation,
        images=[
            {
                "name": Path(seen.image).name,
                "figures": {name: pictures[file] for name, file in figures.items()},
                "top": "; ".join(
                    f"{row['class']} {plots.percent(row['probability'])}" for row in seen.top
                ),
                "explained": seen.name,
                "last": [*seen.grad_cam][-1] if seen.grad_cam else None,
            }
            for seen, figures in zip(explanation.images, images, strict=True)
        ],
        filters=pictures.get(filters),
        environment=environment_facts(about["environment"]),
    )
    write_bytes(path, page.encode("utf-8", errors="replace"))
    return path


def _figures(explanation, seen, folder: Path, *, titled: bool) -> dict[str, Path]:
    """Draws what there is of an image: name of the figure -> its file."""
    folder.mkdir()
    found = {name: folder / f"{name}.png" for name in ("decisive", "stages", "activations")}
    photo = plots.legible(Path(seen.image).name, "an image", 40)
    whole = f"{explanation.model} on {photo}: {plots.legible(seen.name, f'#{seen.index}', 40)}"
    titles = {"decisive": whole, **TITLES} if titled else dict.fromkeys(found, "")
    plots.decisive(
        seen, explanation.patch, explanation.stride, found["decisive"], titles["decisive"]
    )
    if len(seen.grad_cam) > 1:
        plots.stages(seen, found["stages"], titles["stages"])
    if seen.activations:
        plots.activations(seen, found["activations"], titles["activations"])
    return {name: file for name, file in found.items() if file.exists()}


def _stack(files: Sequence[Path], path: Path) -> None:
    """Writes pictures below each other as one PNG."""
    from PIL import Image

    pictures = [Image.open(file).convert("RGB") for file in files]
    size = max(each.width for each in pictures), sum(each.height for each in pictures)
    whole, top = Image.new("RGB", size, "white"), 0
    for each in pictures:
        whole.paste(each, (0, top))
        top += each.height
    with atomic(path) as temporary:
        whole.save(temporary, "PNG")


def _listed(images: Sequence) -> str:
    names = [Path(seen.image).name for seen in images]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _verdict(seen) -> str:
    first = seen.top[0]
    said = f"{Path(seen.image).name}: {first['class']}, {plots.percent(first['probability'])}"
    if seen.name == first["class"]:
        return f"{said}."
    return f"{said}; explained is {seen.name}, {plots.percent(seen.probability)}."
