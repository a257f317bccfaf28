"""One link of a chain: a compression of the run's network before it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from kzoo.compress.cluster import cluster
from kzoo.compress.prune import prune
from kzoo.compress.qat import qat
from kzoo.compress.slim import slim
from kzoo.data.dataset import Dataset
from kzoo.files import existing, sha256
from kzoo.learn.features import Engine
from kzoo.measure.cost import latency_share
from kzoo.network.count import counted
from kzoo.network.model_file import load_model
from kzoo.progress import Progress
from kzoo.runs.chain import CompressConfig, Link

VERBS = {"slim": slim, "prune": prune, "cluster": cluster, "qat": qat}


def link_settings(config: CompressConfig, link: Link) -> dict:
    """All that decides its result beside files, networks and the seed, as JSON values."""
    training = config.training(link)
    # How often a checkpoint is written is of no concern to the result.
    training.pop("checkpoint_seconds", None)
    training["phases"] = [asdict(phase) for phase in training["phases"]]
    options = {name: value for name, value in link.options().items() if name != "rewind"}
    return {"verb": link.verb, **options, **training}


def link_files(config: CompressConfig, link: Link) -> dict[str, str]:
    """The hashes of the files from outside of the run that it reads.

    Raises:
        MissingError: one of them does not exist.
    """
    files = {"rewind": link.options().get("rewind")}
    files["teacher"] = None if config.teacher in ("none", "self") else config.teacher
    return {what: sha256(existing(file, f"the {what}")) for what, file in files.items() if file}


def linked(
    config: CompressConfig,
    link: Link,
    before: Path,
    first: Path,
    data: Dataset,
    *,
    seed: int,
    output: Path,
    engine: Engine | None,
    progress: Progress,
) -> dict:
    """Compresses ``before`` to ``output``; the same call after a kill goes on where it was.

    Args:
        config, link: what is asked for.
        before, first: the ``.keras`` of the network, and of that before all compressions.
        data: at the network's size.
        seed, output, engine, progress: as for `kzoo.finetune`.

    Returns:
        The record of the compression, with the counts of the ``network``.

    Raises:
        As `kzoo.slim`, `kzoo.prune`, `kzoo.cluster` and `kzoo.qat`.
    """
    options = link.options() | config.training(link)
    if config.teacher != "none":
        # By its weights, not by its file, it may be the one that is compressed.
        options["teacher"] = load_model(first) if config.teacher == "self" else config.teacher
    kind = options.pop("latency_of", None)
    if options.get("latency") is not None:
        options["cost"] = latency_share(before, data, kind=kind, progress=progress)
    if link.verb != "qat":  # what rounds is run by Keras alone
        options["engine"] = engine
    found = VERBS[link.verb](
        before, data, seed=seed, output=output, force=True, progress=progress, **options
    )
    return found.to_dict() | {"network": counted(found.training.model)}
