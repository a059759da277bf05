"""The guide's Python runs as written, block by block, against a real service."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
from paths import DOCS, ROOT
from service_helpers import draw_picture


def test_the_python_of_the_guide_runs(client: httpx.Client, tmp_path: Path):
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / "client.md").read_text(), re.M | re.S)
    assert len(blocks) >= 5
    code = "".join(blocks).replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/"))
    draw_picture(5, 100, 75).save(tmp_path / "query.jpg")
    draw_picture(6, 100, 75).save(tmp_path / "other.png")
    (tmp_path / "pictures").mkdir()
    for seed in range(3):
        draw_picture(seed).save(tmp_path / "pictures" / f"{seed}.png")
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("p05.jpg ")
    assert "pictures/2.png p02.jpg" in lines
    assert lines[-1].startswith("415 unsupported_image_format ")
