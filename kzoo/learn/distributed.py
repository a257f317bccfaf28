"""Synchronous data parallel training, with Keras' JAX distribution.

Every process loads the whole dataset and goes through the same batches. Of each batch a device
computes an equal share; the compiled step is that of the whole batch, so that its loss, gradients,
BatchNorm statistics and dropout are those of one process but for the rounding of sums.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from kzoo.errors import MissingError, UsageError

if TYPE_CHECKING:
    import keras

ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
NUMBER = "KERAS_DISTRIBUTION_PROCESS_ID"
"""Keras' own variables; without any, JAX asks Slurm, Open MPI or the TPU's host."""


@dataclass(frozen=True)
class Team:
    """The devices that share every batch, in one process or several.

    Attributes:
        distribution: of Keras; None for one process on one device, where nothing is to be shared.
    """

    distribution: keras.distribution.DataParallel | None = None

    @property
    def processes(self) -> int:
        return self.distribution.num_processes if self.distribution else 1

    @property
    def number(self) -> int:
        """Of this process, from 0."""
        return self.distribution.data_shard_id if self.distribution else 0

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.number == 0

    def check(self, batch_size: int) -> None:
        """Raises UsageError unless every device gets as many images of a batch."""
        if not self.distribution:
            return
        devices = self.distribution.num_model_replicas
        if batch_size % devices:
            lower = max(batch_size // devices, 1) * devices
            raise UsageError(
                f"a batch of {batch_size} images is not shared evenly by {devices} devices in "
                f"{self.processes} processes; train with a batch size of {lower}"
            )

    def scope(self) -> contextlib.AbstractContextManager:
        """Optimizers and metrics made inside are on all devices."""
        return self.distribution.scope() if self.distribution else contextlib.nullcontext()

    @contextlib.contextmanager
    def sharing(self, model: keras.Model, variables: Sequence[keras.Variable]) -> Iterator[None]:
        """Puts a model's variables on all devices for `train_on_batch`.

        Outside of it they are this process's own: it evaluates, saves and goes on alone.
        """
        if not self.distribution:
            yield
            return
        import jax

        mesh = self.distribution.device_mesh.backend_mesh
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

        def place(variable: keras.Variable, value: np.ndarray) -> None:
            variable.assign(jax.make_array_from_process_local_data(whole, value))

        def reset_metrics() -> None:
            for variable in model.metrics_variables:
                place(variable, np.zeros(variable.shape, variable.dtype))

        for variable in variables:
            place(variable, np.asarray(variable))
        # Keras' own asks all processes, for each variable in every step, whether its zeros are the
        # same: that was 50 ms of a step of 440.
        model.reset_metrics = reset_metrics
        yield
        del model.reset_metrics
        for variable in variables:
            variable.assign(np.array(variable))

    def train_on_batch(self, model: keras.Model, batch: tuple) -> dict[str, float]:
        """The step of a whole batch, which every process has; inside `sharing`."""
        if not self.distribution:
            return model.train_on_batch(*batch, return_dict=True)
        import keras

        def own(array: np.ndarray | None) -> np.ndarray | None:
            if array is None:
                return None
            rows = len(array) // self.processes
            return array[self.number * rows :][:rows]

        with self.scope(), self._meeting():
            logs = model.train_on_batch(*keras.tree.map_structure(own, batch), return_dict=True)
            return {name: float(value) for name, value in logs.items()}

    def rows(self, function: Callable[[np.ndarray], np.ndarray], indices: np.ndarray) -> np.ndarray:
        """``function(indices)``, a row for each, where every process computes a share of them."""
        if self.processes == 1:
            return function(indices)
        size = -(-len(indices) // self.processes)
        share = function(np.resize(indices[self.number * size :][:size], size))  # all as many
        with self._meeting() as others:
            found = others.process_allgather(share)
        return found.reshape(-1, *found.shape[2:])[: len(indices)]

    def agree(self, recipe: str) -> None:
        """Raises UsageError, in every process, where their recipes' hashes differ."""
        if self.processes == 1:
            return
        with self._meeting() as others:
            found = others.process_allgather(np.frombuffer(recipe.encode(), np.uint8))
        other = np.flatnonzero((found != found[0]).any(axis=1))
        if len(other):
            raise UsageError(
                f"process {other[0]} is not given what process 0 is: model, images, options and "
                "the versions of packages have to be the same on all machines"
            )

    def told(self, data: bytes) -> bytes:
        """What process 0 gives, in every process."""
        if self.processes == 1:
            return data
        with self._meeting() as others:
            size = int(others.broadcast_one_to_all(np.uint32(len(data))))
            buffer = np.frombuffer(data, np.uint8) if self.leads else np.zeros(size, np.uint8)
            return np.asarray(others.broadcast_one_to_all(buffer)).tobytes()

    @contextlib.contextmanager
    def _meeting(self) -> Iterator[ModuleType]:
        """For what is computed with other processes; raises MissingError where one has gone."""
        import jax
        from jax.experimental import multihost_utils

        try:
            yield multihost_utils
        except jax.errors.JaxRuntimeError as error:
            if self.processes == 1:
                raise
            raise MissingError(
                f"one of {self.processes} processes failed or has gone "
                f"({str(error).splitlines()[0][:200]}); type the same command on all of them: it "
                "goes on from the last checkpoint"
            ) from error


def join(seed: int) -> Team:
    """Joins the processes that were started together, and takes all their devices.

    Where they are comes from Keras' environment variables, `ADDRESSES`, `PROCESSES` and `NUMBER`,
    or from Slurm, Open MPI or the TPU's host; else all devices of this process are taken. Of
    several processes each calls this before it computes anything. ``seed`` is given to Keras, as
    all need the same.

    Raises:
        UsageError: another backend than JAX, something was computed before, the variables are
            wrong, or there is one device.
        MissingError: the other processes did not come.
    """
    import keras

    if keras.backend.backend() != "jax":
        raise UsageError(
            f"training on several devices needs the JAX backend, this is {keras.backend.backend()};"
            " pip install 'kzoo[jax]' and type KERAS_BACKEND=jax before the command"
        )
    import jax

    keras.utils.set_random_seed(seed)
    asked = [name for name in (ADDRESSES, PROCESSES, NUMBER) if name in os.environ]
    if not jax.distributed.is_initialized():
        try:
            keras.distribution.initialize()
        except jax.errors.JaxRuntimeError as error:
            raise MissingError(
                f"the other processes did not come ({str(error).splitlines()[0][:200]}); "
                f"is {os.environ.get(ADDRESSES, 'the first machine')} reached from all machines?"
            ) from error
        except (ValueError, RuntimeError) as error:
            if asked and "before" in str(error):
                raise UsageError(
                    "in several processes finetune comes before all else that computes, and takes "
                    "a model's file"
                ) from error
            if asked:
                raise UsageError(f"{', '.join(asked)}: {error}") from error
    distribution = keras.distribution.DataParallel()
    if distribution.num_model_replicas == 1:
        raise UsageError(
            "one process with one device has nothing to share; start the command once per machine, "
            f"with {ADDRESSES}=FIRST_MACHINE:PORT {PROCESSES}=2 {NUMBER}=0 and so on"
        )
    team = Team(distribution)
    with _stdout_to_stderr():
        team.told(b"")
    return team


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """For what C++ code writes: Gloo tells of its connections."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
