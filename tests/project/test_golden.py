"""The bytes of the small chain are those that are committed."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

CAMPAIGNS = Path(__file__).parents[1] / "campaigns"
# what NumPy and Pillow draw without a floating-point library, equal on any processor
DRAWN = ("data/raw/", "data/split.csv", "metrics/leakage.csv")


def test_chain_gives_committed_bytes(tmp_path: Path) -> None:
    golden = json.loads((CAMPAIGNS / "golden.json").read_text(encoding="utf-8"))
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, str(CAMPAIGNS / "golden.py"), str(tmp_path / "chain")]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    hashes = json.loads(finished.stdout[finished.stdout.index("{") :])

    ran_on = json.loads((tmp_path / "chain/models/conditions.json").read_text(encoding="utf-8"))
    limited = "capability" in ran_on  # said only where the promise of equal bytes does not hold
    expected = {path: digest for path, digest in golden["sha256"].items() if not limited or path.startswith(DRAWN)}
    different = [path for path, digest in expected.items() if hashes.get(path) != digest]
    versions = {name: version(name) for name in golden["versions"]}
    assert not different, (
        f"other bytes in {', '.join(different)}. Either the code changed what it computes (then look at the difference "
        "and run: make golden), or the machine does: "
        f"versions {versions} instead of {golden['versions']}, processor {platform.processor() or platform.machine()}"
    )
    assert limited or set(hashes) == set(golden["sha256"])
