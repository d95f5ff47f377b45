"""Bytes sent for the demo with pull, against `upload = "all"`: the demo is run twice, as a user runs it."""

import io
import tempfile
import time
from pathlib import Path

from rich.console import Console

from hub.demo.show import run_demo
from hub.store import Store


def main() -> None:
    print("Bytes sent by the demo's three devices")
    sent: dict[str, int] = {}
    for upload in ("want", "all"):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "demo"
            started = time.monotonic()
            images = run_demo(out, upload=upload, size=50, console=Console(file=io.StringIO()))
            seconds = time.monotonic() - started
            with Store.open(out / "hub.db", create=False) as store:
                status = store.status(now_ms=0)
        sent[upload] = sum(device.bytes_up for device in status.devices)
        findings = sum(status.findings.values())
        print(
            f"  upload = {upload!r}: {sent[upload] / 1e6:.2f} MB, {findings} findings, {status.groups} groups,"
            f" batch of {images}, {seconds:.0f} s"
        )
    print(f"  pull sends {sent['want'] / sent['all']:.1%} of what upload = 'all' sends")


if __name__ == "__main__":
    main()
