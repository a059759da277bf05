"""A root file system in a folder, and programs that run in it as they would in a container.

Everything is mounted in a mount namespace of the program's own, so nothing is left mounted when it
ends, and removing the folder can never reach through a mount.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from machine import RELEASE, debian_mirrors

_DEVICES = "null zero full random urandom"
# $1 is the root. The rest of the script comes from `_script`.
_BEGIN = f"""
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs dev
for d in {_DEVICES}; do touch dev/$d; mount --bind /dev/$d dev/$d; done
ln -s /proc/self/fd dev/fd
mkdir dev/shm
mount -t tmpfs -o mode=1777,size=64m tmpfs dev/shm
"""
_PACKAGES = "python3.11,python3.11-venv,python3-pip,ca-certificates"


@dataclass(frozen=True)
class How:
    """How a program is run.

    Attributes:
        environment: all its variables.
        folder: its working directory.
        user: "uid:gid"; root only while an image is built.
        mounts: a path here, and where it lies inside; inside `/run`, which is fresh each time.
        volumes: the same, for folders that stay: (path here, path inside, "rw" or "ro").
        is_sealed: read-only root, no capability, no way to gain one, no network but its own.
    """

    environment: Mapping[str, str]
    folder: str = "/"
    user: str = "0:0"
    mounts: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[tuple[Path, str, str]] = ()
    is_sealed: bool = False


def bootstrap(root: Path) -> None:
    """Fill the folder with a small Debian that has Python 3.11 where the base image has it."""
    if (root / "usr/local/bin/python").is_symlink():
        return
    shutil.rmtree(root, ignore_errors=True)
    mirrors = debian_mirrors()
    print("bootstrapping the stand-in for the base image (a minute or two)", flush=True)
    fill = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", RELEASE]
    # In a mount namespace of its own: what it mounts goes with it, however it ends.
    subprocess.run(
        ["unshare", "--mount", "--", *fill, str(root), mirrors[0][0]],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    sources = "".join(f"deb {address} {suite} main\n" for address, suite in mirrors)
    (root / "etc/apt/sources.list").write_text(sources)
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    for name in ("python3.11", "python3", "python"):
        (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")


def run(root: Path, command: Sequence[str], how: How) -> None:
    """Run to the end, showing what is printed.

    Raises:
        subprocess.CalledProcessError: it ended with another code than 0.
    """
    subprocess.run(_command(root, command, how), check=True, stdin=subprocess.DEVNULL)


def size_mb(folder: Path) -> float:
    """Megabytes (10^6) that the folder's files take on a disk."""
    done = subprocess.run(
        ["du", "-sx", "--block-size=1000", folder], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[0]) / 1000


class Container:
    """A sealed program that goes on running; its first process is the command itself."""

    def __init__(self, root: Path, command: Sequence[str], how: How) -> None:
        self._how = how
        self._parent = subprocess.Popen(_command(root, command, how), stdin=subprocess.DEVNULL)
        self.pid = self._child()

    def ask(
        self, command: Sequence[str], *, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run another program in the same container, as `docker exec` does."""
        enter = ["nsenter", "--target", str(self.pid)]
        enter += ["--mount", "--pid", "--net", "--ipc", "--uts", "--root", "--"]
        return subprocess.run(
            [*enter, *_as_user(self._how), *command], input=stdin, capture_output=True, check=False
        )

    def stop(self, patience_s: float) -> int:
        """SIGTERM to the first process, as `docker stop`; its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self._parent.wait(patience_s)

    def has_ended(self) -> bool:
        """Whether the first process is gone."""
        return self._parent.poll() is not None

    def kill(self) -> None:
        """End it however it fares."""
        if not self.has_ended():
            os.kill(self.pid, signal.SIGKILL)
            self._parent.wait(10)

    def _child(self) -> int:
        children = Path(f"/proc/{self._parent.pid}/task/{self._parent.pid}/children")
        for _ in range(100):
            if found := children.read_text().split():
                return int(found[0])
            time.sleep(0.05)
        raise SystemExit("the container did not begin")


def _command(root: Path, command: Sequence[str], how: How) -> list[str]:
    namespaces = ["--mount", "--pid", "--ipc", "--uts", *(["--net"] if how.is_sealed else [])]
    # Its parent's death ends it: nothing is left running by an interrupted proof.
    begin = ["unshare", *namespaces, "--fork", "--kill-child", "--", "sh", "-euc"]
    inside = ["chroot", str(root), *_as_user(how), *command]
    return [*begin, _script(how), "sh", str(root), *inside]


def _script(how: How) -> str:
    lines = [_BEGIN]
    if how.mounts:
        lines.append("mount -t tmpfs -o mode=755 tmpfs run")
    for here, inside in how.mounts.items():
        make = f"mkdir -p .{inside}" if Path(here).is_dir() else f"install -D /dev/null .{inside}"
        lines.append(f"{make}\nmount --bind {here} .{inside}")
    if not how.is_sealed:
        lines.append("mount --bind /etc/resolv.conf etc/resolv.conf")
    for here, inside, mode in how.volumes:
        # As Docker does, before the root is closed.
        lines.append(f"mkdir -p .{inside}\nmount --bind {here} .{inside}")
        lines.append(f"mount -o remount,bind,{mode} .{inside}")
    if how.is_sealed:
        lines += [
            "mount -t tmpfs -o mode=1777 tmpfs tmp",
            "mount -o remount,bind,ro .",
            "ip link set lo up",
        ]
    return "\n".join([*lines, 'cd /\nshift\nexec "$@"'])


def _as_user(how: How) -> list[str]:
    uid, _, gid = how.user.partition(":")
    drop = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    if how.is_sealed:
        drop += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    variables = [f"{name}={value}" for name, value in how.environment.items()]
    return [*drop, "env", "-i", f"--chdir={how.folder}", *variables]
