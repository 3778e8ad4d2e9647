"""Prints llama.cpp's devices as JSON: ``python -m`` this module.

In a process of its own, because looking for devices loads the GPU's driver, which may crash.
"""

from __future__ import annotations

import os
import sys

import orjson


def main() -> None:
    """Print a list of devices; see ``placement.gpus_of``."""
    output = os.dup(1)
    os.dup2(2, 1)
    # Whatever the native library prints goes to standard error.
    import xllamacpp  # noqa: PLC0415

    devices = [
        {**device, "type": getattr(device["type"], "name", "")}
        for device in xllamacpp.get_device_info()
    ]
    os.write(output, orjson.dumps(devices) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
