"""Independent jobs on the workers of a Ray cluster."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from kzoo.environment import cores
from kzoo.errors import MissingError

Result = TypeVar("Result")

PATIENCE = 20
"""Seconds for a cluster to answer."""
LOCAL = "local"
AHEAD = 2
"""Jobs per core that are handed out before the first of them is done: memory for their arrays."""


def on_ray(
    address: str, function: Callable[..., Result], jobs: Iterable[tuple]
) -> Iterator[Result]:
    """``function(*job)`` for every job, each on one core of a Ray cluster; results in their order.

    Args:
        address: "local" for workers on this machine's cores that end with the last job; else a
            cluster that runs: HOST:PORT, ray://HOST:PORT, or "auto" for that of this machine.
        function: of a module that is installed where the workers are.
        jobs: its arguments; an array of the job before is not sent again.

    Raises:
        MissingError: Ray is not installed, no cluster answers, or a worker failed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingError("Ray is not installed; pip install 'kzoo[ray]'") from error

    own = not ray.is_initialized()
    if own:
        _connect(ray, address)
    try:
        task = ray.remote(num_cpus=1)(function)
        most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: deque = deque()
        sent: dict[int, tuple] = {}
        for job in jobs:
            arrays = {id(each): each for each in job if isinstance(each, np.ndarray)}
            sent = {key: sent.get(key) or (each, ray.put(each)) for key, each in arrays.items()}
            waiting.append(task.remote(*(sent.get(id(each), (0, each))[1] for each in job)))
            if len(waiting) >= most:
                yield ray.get(waiting.popleft())
        while waiting:
            yield ray.get(waiting.popleft())
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise MissingError(
            f"a worker of the Ray cluster at {address} failed: {str(error).splitlines()[0]}; is "
            "this kzoo installed where it runs?"
        ) from error
    finally:
        if own:
            ray.shutdown()


def _connect(ray, address: str) -> None:
    options = {"log_to_driver": False, "logging_level": "error"}
    if address == LOCAL:
        options |= {"num_cpus": cores(), "include_dashboard": False}
    try:
        _knock(address)
        ray.init(address=address, **options)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise MissingError(
            f"no Ray cluster answers at {address!r} ({str(error).splitlines()[0]}); start one with "
            "ray start --head, or type --ray without an address for workers on this machine"
        ) from error


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray itself asks again for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
