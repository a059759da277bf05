"""Our programs in processes of their own, forked from one that has loaded the libraries.

A new interpreter takes two seconds of CPU to import torch; a forked one has it already. It has the
arguments, environment, output and signals that it is given, and ends as the program does.
"""

import gc
import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

_FORKS = multiprocessing.get_context("forkserver")
# Under make, `OMP_NUM_THREADS=1` holds for all: a library reads it once, when it is loaded.
_FORKS.set_forkserver_preload(
    [
        *("service.app", "service.http.server", "service.doctor.deployment", "service.keys.cli"),
        *("service.replay.replayer", "index_builder.cli.commands", "model.cli"),
    ]
)


class Forked:
    """A process that calls a function: what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: object,
        output: Path | None = None,
        errors: Path | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        open_files: int | None = None,
    ) -> None:
        given = (output, errors or output, dict(environment or os.environ), folder, open_files)
        self._process = _FORKS.Process(target=_call, args=(given, function, arguments), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, how: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, how)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _call(given: tuple, function: Callable[..., object], arguments: tuple) -> None:
    output, errors, environment, folder, open_files = given
    gc.freeze()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    for path, stream in ((output, 1), (errors, 2)):
        if path is not None:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, stream)
            os.close(file)
    if folder is not None:
        os.chdir(folder)
    if open_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    function(*arguments)


def run_program(
    module: str,
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> "subprocess.CompletedProcess[str]":
    """`python -m MODULE ARGUMENTS`, to its end, with this environment beside that of here."""
    with TemporaryDirectory() as written:
        output, errors = Path(written, "output"), Path(written, "errors")
        process = Forked(
            run_module,
            module,
            *map(str, arguments),
            output=output,
            errors=errors,
            environment={**os.environ, **(environment or {})},
            folder=folder,
        )
        code = process.wait(120)
        return subprocess.CompletedProcess(
            [module, *arguments], code, output.read_text(), errors.read_text()
        )


def run_module(module: str, *arguments: str) -> None:
    """`python -m MODULE ARGUMENTS`."""
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
