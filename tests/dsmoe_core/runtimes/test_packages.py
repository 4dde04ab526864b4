"""Telemetry of the optional packages is disabled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
calls = []
def record(event, details):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        calls.append(event)
sys.addaudithook(record)
from dsmoe_core.runtimes.packages import import_package
for package in ("onnx", "onnxruntime", "openvino", "nncf"):
    import_package(package)
from nncf.telemetry import telemetry
telemetry.send_event("nncf", "action", "label")
from openvino.tools.ovc import telemetry_utils
telemetry_utils.init_ovc_telemetry().send_event("ov", "action", "label")
import time
time.sleep(0.5)  # telemetry is sent from a thread
print("CALLS", calls, "openvino_telemetry" in {m.split(".")[0] for m, v in sys.modules.items() if v})
"""


def test_no_package_opens_a_connection(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=root,
        env={"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "CALLS [] False" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "intel").exists()  # where the packages store an id of the machine
