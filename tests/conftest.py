"""Threads: tests that run beside each other share the cores."""

import os

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """Each worker of pytest-xdist, and what it starts, takes its part of the cores."""
    worker = getattr(config, "workerinput", None)
    if worker:
        threads = max(1, (os.cpu_count() or 1) // worker["workercount"])
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        torch.set_num_threads(threads)
