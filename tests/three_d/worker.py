"""A run in a process of its own, to be killed: python worker.py OUT [resume]."""

import sys

import torch
from stubs import RandomDenoiser, redness, tiny

from vlmreward_3d.schedule import Schedule
from vlmreward_3d.train import RunFolder, Stopped, train
from vlmreward_3d.vlm3d import VLM3D

CONFIG = tiny(steps=120, orientation_weight=Schedule.ramp(0.0, 0.1), vlm_every=2)
CHECKPOINT_EVERY = 7


def main(out: str, resume: bool) -> int:
    torch.set_num_threads(1)
    folder = RunFolder(out, CONFIG, resume=resume)
    model = VLM3D(CONFIG, RandomDenoiser(), redness)
    try:
        train(model, folder, checkpoint_every=CHECKPOINT_EVERY, progress=False)
    except Stopped as error:
        print(error, flush=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "resume" in sys.argv[2:]))
