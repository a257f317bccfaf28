"""Processes on the JAX backend, in an environment of their own where this one has no JAX."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def jax_python() -> str:
    """The Python that has JAX: this one, or that of ``make test-jax``."""
    if find_spec("jax"):
        return sys.executable
    python = ROOT / ".venv-jax" / "bin" / "python"
    if not python.exists():
        pytest.skip("needs JAX; make test-jax makes an environment with it")
    return str(python)


@pytest.fixture
def start(jax_python, tmp_path):
    """start("finetune", ...): kzoo on the JAX backend, running.

    Keyword arguments are further variables of its environment.
    """
    started = []

    def run(*arguments: object, **variables: object) -> subprocess.Popen:
        environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
        process = subprocess.Popen(
            [jax_python, "-m", "kzoo", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment | {name: str(value) for name, value in variables.items()},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def together(start):
    """together("finetune", ...): two processes of one training on this machine.

    The second is typed the arguments ``different``, too.
    """

    def run(*arguments: object, different: tuple = ()) -> list[subprocess.Popen]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return [
            start(
                *arguments,
                *(different if number else ()),
                KERAS_DISTRIBUTION_JOB_ADDRESSES=f"127.0.0.1:{port}",
                JAX_COORDINATOR_BIND_ADDRESS=f"127.0.0.1:{port}",
                KERAS_DISTRIBUTION_NUM_PROCESSES=2,
                KERAS_DISTRIBUTION_PROCESS_ID=number,
            )
            for number in range(2)
        ]

    return run


@pytest.fixture(scope="session")
def finished():
    """finished(process, code=0): waits for the end with that exit code; gives stdout, stderr."""

    def wait(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, err
        assert "Traceback" not in err
        return out, err

    return wait
