"""Stands for examples/text_to_3d.py: steps that are counted in a file, and what can go wrong."""

import json
import os
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    prompt, folder = arguments[0], Path(arguments[2])
    if "wrong" in prompt:
        print("error: there is no such thing", file=sys.stderr)
        return 2
    steps = folder / "steps"
    if (folder / "config.json").exists() and "--resume" not in arguments:
        print("error: holds a run", file=sys.stderr)
        return 2
    (folder / "config.json").write_text("{}")
    done = int(steps.read_text()) if steps.exists() else 0
    for step in range(done, 6):
        with (folder / "pids").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.25)
        steps.write_text(str(step + 1))
    (folder / "state.json").write_text(json.dumps({"finished": True}))
    return 0
