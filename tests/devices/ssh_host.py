"""A machine behind SSH on the loopback: an asyncssh server with keys, home and programs of its own.

    python ssh_host.py FOLDER

makes in FOLDER the keys (``host``, ``key``), a home and ``bin``, whose programs come before the
system's; prints its port, and serves until its stdin ends. `start` starts it, and makes an ``ssh``
that is the system's with a configuration of its own, as a user's ~/.ssh/config would be.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CONFIG = """\
Host board
  HostName 127.0.0.1
  Port {port}
  User somebody
  IdentityFile "{folder}/key"
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile "{folder}/known_hosts"
  GlobalKnownHostsFile none
"""


@dataclass
class Host:
    """A started server.

    Attributes:
        folder: ``config``, ``known_hosts`` and the keys are in it.
        home: of the user there.
        programs: what comes before the system's programs there.
        temporary: its TMPDIR.
        path: for PATH here, with the ``ssh`` that reads ``config``.
    """

    folder: Path
    process: subprocess.Popen
    port: int

    def __post_init__(self) -> None:
        self.home, self.programs = self.folder / "home", self.folder / "bin"
        self.temporary, self.config = self.folder / "tmp", self.folder / "config"
        self.path = f"{self.folder / 'here'}{os.pathsep}{os.environ['PATH']}"

    def program(self, name: str, script: str) -> Path:
        """Puts a shell script before the system's program of this name."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


def start(folder: Path) -> Host:
    """Starts a server; ``folder`` is empty."""
    process = subprocess.Popen(
        [sys.executable, __file__, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    host = Host(folder, process, int(process.stdout.readline()))
    host.config.write_text(CONFIG.format(port=host.port, folder=folder))
    key = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{host.port} {key}")
    (folder / "here").mkdir()
    ssh = folder / "here" / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{host.config}" "$@"\n')
    ssh.chmod(0o755)
    return host


async def serve(folder: Path) -> None:
    """Prints the port, and answers each command by the shell, as a login does."""
    import asyncssh

    for name in ("host", "key"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / name)
        key.write_public_key(folder / f"{name}.pub")
        (folder / name).chmod(0o600)
    for name in ("home", "bin", "tmp"):
        (folder / name).mkdir()

    async def answer(process: asyncssh.SSHServerProcess) -> None:
        command = process.command or "exit 1"
        profile = folder / "home" / ".bashrc"
        if profile.exists():  # as bash does where it is started by sshd
            command = f'. "$HOME/.bashrc"; {command}'
        shell = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder / "home",
            env={
                "HOME": str(folder / "home"),
                "TMPDIR": str(folder / "tmp"),
                # python3 is this one there, whether its environment is active or not
                "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
        )

        async def copy(source, sink) -> None:
            with contextlib.suppress(asyncssh.Error, OSError):  # the other end is gone
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            if sink is shell.stdin:
                sink.close()

        given = asyncio.create_task(copy(process.stdin, shell.stdin))
        await asyncio.gather(copy(shell.stdout, process.stdout), copy(shell.stderr, process.stderr))
        code = await shell.wait()
        given.cancel()
        process.exit(code if code >= 0 else 128 - code)

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[folder / "host"],
        authorized_client_keys=str(folder / "key.pub"),
        process_factory=answer,
        encoding=None,
    )
    sys.stdout.write(f"{server.get_port()}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
