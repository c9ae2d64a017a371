"""Output of a run: nothing from other libraries, and one warning of versions that differ."""

import logging
import subprocess
import sys
import threading
import warnings

import pytest
import torch
import transformers
from transformers.utils import logging as transformers_logging

from vlmreward import YesNoReward
from vlmreward.models.loading import load, resolve
from vlmreward.models.quiet_loading import loading, quiet

RUN = """
import torch
from vlmreward import YesNoReward
reward = YesNoReward("builtin/blocks", device="cpu")
for size in ((64, 64), (1, 1), (2, 1), (3, 3)):
    images = torch.rand(1, 3, *size, requires_grad=True)
    reward(images, prompt="a red cube").sum().backward()
"""


def test_a_good_run_writes_nothing():
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, timeout=120, check=True)
    assert done.stdout == done.stderr == b""


def test_users_loggers_and_bars_stay_as_they_were():
    logger = logging.getLogger("transformers.image_utils")
    before = (list(logger.filters), logger.level, logger.propagate, list(logger.handlers))

    def hook(make, arguments, options):
        return make(*arguments, **options)

    def fail():
        with loading():
            assert len(logger.filters) > len(before[0])
            raise KeyError

    previous = transformers_logging.set_tqdm_hook(hook)
    try:
        with pytest.raises(KeyError):
            fail()
        assert transformers_logging.set_tqdm_hook(hook) is hook
    finally:
        transformers_logging.set_tqdm_hook(previous)
    assert (list(logger.filters), logger.level, logger.propagate, list(logger.handlers)) == before


def test_what_is_dropped_and_what_is_not():
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    for name, dropped in (
        ("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward from kernels: no"),
        ("transformers.image_utils", "The channel dimension is ambiguous. Got image shape"),
        ("transformers.modeling_utils", "X LOAD REPORT from: y"),
    ):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        try:
            with quiet():
                logger.warning(dropped)
                logger.warning("something else")
            logger.warning(dropped)
        finally:
            logger.removeHandler(handler)
        assert heard == ["something else", dropped]
        heard.clear()


@pytest.mark.parametrize(("weights", "shown"), [(0, False), (2**31, True), (None, True)])
def test_bars_of_large_models_on_a_terminal(weights, shown, monkeypatch):
    class Terminal:
        written = ""

        def write(self, text):
            self.written += text

        def flush(self):
            pass

        def isatty(self):
            return True

    with loading(weights):
        for there in (True, False):
            stream = Terminal()
            stream.isatty = lambda there=there: there
            list(transformers_logging.tqdm(range(3), desc="Loading weights", file=stream))
            assert ("Loading weights" in stream.written) == (shown and there)


def test_threads_load_whole_models_and_leave_nothing_behind():
    """In threads, transformers alone often leaves the output matrix untied and calls it missing."""
    logger = logging.getLogger("transformers.modeling_utils")
    before, hook = list(logger.filters), transformers_logging._tqdm_hook
    path, tied = resolve("builtin/blocks"), []

    def one():
        model, _ = load(path, torch.device("cpu"))
        tied.append(model.get_output_embeddings().weight is model.get_input_embeddings().weight)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tied == [True] * 4
    assert list(logger.filters) == before
    assert transformers_logging._tqdm_hook is hook


@pytest.mark.parametrize(
    ("family", "version", "warned"),
    [
        ("paligemma2", "5.22.2", True),
        ("paligemma2", "5.9.0", True),
        ("paligemma2", "5.23.0", False),
        ("paligemma2", "6.0.0.dev0", False),
        ("paligemma", "5.22.2", False),
        ("qwen2_5_vl", "5.22.2", False),
    ],
)
def test_versions_that_compute_something_else(family_pair, monkeypatch, family, version, warned):
    monkeypatch.setattr(transformers, "__version__", version)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        YesNoReward(family_pair(family))
    said = [w for w in caught if "transformers" in str(w.message)]
    assert len(said) == warned
    if warned:
        assert f"transformers {version} leaves the last soft cap out" in str(said[0].message)
        assert "; expected at least 5.23 for paligemma with gemma2: pip" in str(said[0].message)
        assert said[0].filename == __file__
