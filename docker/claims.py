"""What is claimed of a built image, and how each claim is put to the test."""

import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rootfs import Container, How, run
from stages import Image, inside

REPOSITORY = Path(__file__).parents[1]
GALLERY = REPOSITORY / "examples" / "gallery"
QUERIES = REPOSITORY / "examples" / "queries"
READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 45
# A busy machine may be slow: it is memory that the largest image is to show. One decode process.
PATIENT = {
    "LIPSIM_ALLOW_NO_KEYS": "true",  # nobody else is in its network
    "LIPSIM_DECODE_TIMEOUT_S": "120",
    "LIPSIM_REQUEST_TIMEOUT_S": "120",
    "LIPSIM_WORKERS": "1",
}
LARGEST_SIDE = 7071  # 50 million pixels, the most that the service takes by default
# NVIDIA's libraries and packages by name; `torch/cuda` is plain Python, and in every build.
FOREIGN = (
    *("nvidia*", "triton*", "libcu*.so*", "libnv*.so*", "libnccl*"),
    *("libtorch_cuda*", "libc10_cuda*"),
)

# Runs inside: the image comes on standard input, the answer goes to standard output.
SEARCH = """
import http.client, os, sys
c = http.client.HTTPConnection("127.0.0.1", int(os.environ["LIPSIM_PORT"]), timeout=300)
c.request("POST", "/search?k=3", sys.stdin.buffer.read(), {"Content-Type": sys.argv[1]})
answer = c.getresponse()
sys.stdout.buffer.write(str(answer.status).encode() + b" " + answer.read())
"""


class Proof:
    """Claims that were checked; the first that fails ends the program."""

    def __init__(self) -> None:
        self.held = 0

    def claim(self, holds: object, words: str) -> None:
        """Say the claim and whether it holds."""
        print(f"  {'ok  ' if holds else 'FAIL'} {words}", flush=True)
        if not holds:
            raise SystemExit(f"not proved: {words}")
        self.held += 1


def check_contents(proof: Proof, image: Image) -> None:
    """What is in the image, and what is not."""
    print("\n== what is in it")
    opt = inside(image.root, "/opt")
    foreign = [str(p.relative_to(opt)) for pattern in FOREIGN for p in opt.rglob(pattern)]
    # A few text files of torch carry such names; what counts is code that could be loaded.
    foreign = [p for p in foreign if "/torch/" not in p or ".so" in p]
    proof.claim(not foreign, f"no library of CUDA {foreign[:5]}")
    ours = inside(image.root, "/opt/app")
    proof.claim(
        (ours / "model/checkpoints/wave-64.safetensors").is_file(), "the checkpoint is baked in"
    )
    packages = sorted(p.name for p in ours.iterdir() if p.is_dir() and "." not in p.name)
    proof.claim(
        packages == ["index_builder", "model", "service"], f"our packages, no more: {packages}"
    )
    pips = [*opt.rglob("pip"), *opt.rglob("tests/architecture"), *opt.rglob("gallery")]
    proof.claim(not pips, "no installer, no tests and no gallery of ours")
    owners = {p.lstat().st_uid for p in opt.rglob("*")}
    proof.claim(owners == {0}, "code and weights belong to root")


def check_settings(proof: Proof, image: Image) -> None:
    """How a container of it begins."""
    print("\n== how it is set")
    proof.claim(image.user == "10001:10001", f"runs as {image.user}")
    proof.claim(image.entrypoint == ["python", "-m"], f"begins with {image.entrypoint}")
    data = inside(image.root, image.environment["LIPSIM_DATA_DIR"])
    proof.claim(data.stat().st_uid == 10001, "the data folder belongs to that user")


def prove_training(proof: Proof, image: Image) -> None:
    """The workshop's programs start, and one writes to its volume."""
    print("\n== the workshop")
    with _volume() as data:
        how = _how(image, data, "rw")
        for program in ("train", "evaluate", "attack"):
            run(image.root, [*image.entrypoint, f"model.{program}", "--help"], how)
            proof.claim(True, f"model.{program} loads, sealed and without network")
        corpus = ["model.train", "corpus", "/data/corpus", "--recipe", "none"]
        corpus += ["--source", "folder:/gallery", "--composites", "0"]
        run(image.root, [*image.entrypoint, *corpus], how)
        proof.claim((data / "corpus").is_dir(), "a corpus is written to the volume")


def prove_service(proof: Proof, image: Image) -> None:
    """An index is built, served, asked and left, each as the compose file does it."""
    with _volume() as data:
        how = _how(image, data, "rw")
        print("\n== the index builder, in the same image")
        run(image.root, [*image.entrypoint, "index_builder", "build", "/gallery"], how)
        proof.claim((data / "indexes/default").is_dir(), "an index is on the volume")
        print("\n== the service")
        how = _how(image, data, "ro", **PATIENT)
        service = Container(image.root, [*image.entrypoint, *image.command], how)
        try:
            _check_running(proof, image, service)
            _check_answers(proof, service)
            began = time.monotonic()
            code = service.stop(STOP_TIMEOUT_S)
            proof.claim(
                code == 0, f"SIGTERM: exit code {code} after {time.monotonic() - began:.1f} s"
            )
        finally:
            service.kill()


def _check_running(proof: Proof, image: Image, service: Container) -> None:
    began = time.monotonic()
    _wait(service, lambda: service.ask(image.healthcheck).returncode == 0)
    proof.claim(
        True, f"the HEALTHCHECK of the file says ready after {time.monotonic() - began:.1f} s"
    )
    status = service.ask(["cat", "/proc/1/status"]).stdout.decode()
    rows = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    proof.claim(rows["Name"] == "python", "the first process is Python itself")
    proof.claim(rows["Uid"].split() == ["10001"] * 4, "as uid 10001")
    proof.claim(int(rows["CapBnd"], 16) == 0 == int(rows["CapEff"], 16), "without any capability")
    proof.claim(rows["NoNewPrivs"] == "1", "and without a way to gain one")
    proof.claim(b"libjemalloc" in service.ask(["cat", "/proc/1/maps"]).stdout, "on jemalloc")
    for path in ("/opt/app/x", "/etc/x", "/x", "/data/x"):
        refused = service.ask(["touch", path]).stderr.decode().strip()
        proof.claim("Read-only file system" in refused, f"{path}: {refused.rpartition(': ')[2]}")
    proof.claim(service.ask(["touch", "/tmp/x"]).returncode == 0, "/tmp can be written")


def _check_answers(proof: Proof, service: Container) -> None:
    originals = json.loads((QUERIES / "queries.json").read_text(encoding="utf-8"))
    for name, original in sorted(originals.items()):
        kind = {".jpg": "jpeg"}.get(Path(name).suffix, Path(name).suffix[1:])
        status, body = _search(service, (QUERIES / name).read_bytes(), f"image/{kind}")
        proof.claim(status == 200, f"/search answers {status}")
        first = json.loads(body)["results"][0]
        words = f"{name}: {first['id']}, certified radius {first['certified_radius']}"
        # A folder's ids are its paths; the list of originals leaves the endings away.
        found = first["id"].rpartition(".")[0]
        proof.claim(found == original and first["certified_radius"] > 0, words)
    largest = _largest_image()
    # Three times by one process: a heap that keeps addresses back would meet the kernel's limit.
    found = [_search(service, largest, "image/png")[0] for _ in range(3)]
    proof.claim(found == [200] * 3, f"the largest image, {LARGEST_SIDE}^2 pixels: {found}")
    status, body = _search(service, b"no image at all", "image/png")
    proof.claim(status == 415, f"what is no image: {status}")
    rows = service.ask(["cat", "/proc/1/status"]).stdout.decode().splitlines()
    (peak,) = [row for row in rows if row.startswith("VmHWM")]
    print(f"       most memory of the service itself: {peak.split(':')[1].strip()}")


def _search(service: Container, image: bytes, kind: str) -> tuple[int, str]:
    done = service.ask(["python", "-c", SEARCH, kind], stdin=image)
    if done.returncode != 0:
        raise SystemExit(f"asking failed: {done.stderr.decode()[-500:]}")
    status, _, body = done.stdout.decode().partition(" ")
    return int(status), body


def _largest_image() -> bytes:
    """With an alpha channel, as that takes the most memory to decode."""
    from PIL import Image as Picture  # noqa: PLC0415 - the rest needs nothing but Python.

    stream = io.BytesIO()
    Picture.new("RGBA", (LARGEST_SIDE, LARGEST_SIDE), (200, 90, 30, 128)).save(stream, "PNG")
    return stream.getvalue()


def _wait(service: Container, is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not is_done():
        if service.has_ended() or time.monotonic() > deadline:
            raise SystemExit("not proved: the service did not become ready")
        time.sleep(0.2)


def _how(image: Image, data: Path, mode: str, **settings: str) -> How:
    volumes = ((GALLERY, "/gallery", "ro"), (data, "/data", mode))
    environment = image.environment | settings
    return How(environment, image.folder, image.user, volumes=volumes, is_sealed=True)


@contextlib.contextmanager
def _volume() -> Iterator[Path]:
    """A data volume as Docker makes it from an image: owned as the folder in the image is."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, 10001, 10001)
        yield Path(name)
