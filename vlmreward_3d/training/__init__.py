"""Training: the loop, the directory of a run, its logs and its measurements."""

from vlmreward_3d.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vlmreward_3d.training.collapse_detector import CollapseDetector
from vlmreward_3d.training.profiling import (
    ChunkTiming,
    Phase,
    best_chunk,
    measure,
    measure_chunks,
    phases,
)
from vlmreward_3d.training.run_directory import RunDirectory, RunError
from vlmreward_3d.training.tensorboard_logger import TensorBoardLogger
from vlmreward_3d.training.trainer import TrainingInterrupted, train
from vlmreward_3d.training.viewer import LiveView

__all__ = [
    "Checkpoint",
    "ChunkTiming",
    "CollapseDetector",
    "LiveView",
    "Phase",
    "RunDirectory",
    "RunError",
    "TensorBoardLogger",
    "TrainingInterrupted",
    "best_chunk",
    "load_checkpoint",
    "measure",
    "measure_chunks",
    "phases",
    "save_checkpoint",
    "train",
]
