"""Runs on another device: on a stand-in anywhere, and on a GPU where there is one (``-m gpu``)."""

import copy
import dataclasses

import pytest
import torch
from fake_device import DEVICE, Elsewhere, back, elsewhere
from stub_models import RandomDenoiser, Schedule, build_vlm3d, redness, shrink_exports, tiny
from torch.testing import assert_close

from vlmreward_3d import presets
from vlmreward_3d.config import DensificationConfig
from vlmreward_3d.export.run_artifacts import export_all
from vlmreward_3d.guidance import loading as load
from vlmreward_3d.rendering.gaussians import rasterize_gsplat as splat_cuda
from vlmreward_3d.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vlmreward_3d.vlm3d import VLM3D

EVERYTHING = {
    "camera.n_groups": 2,
    "field.orientation_weight": Schedule.constant(1.0),
    "regularizers.entropy_weight": Schedule.constant(0.2),
    "regularizers.sparsity_weight": Schedule.constant(0.1),
    "field.tv_weight": Schedule.constant(0.1),
    "field.shading": (0.2, 0.4, 0.4),
    "vlm.weighting.n_views": 2,
    "vlm.weighting.interval": 2,
    "vlm.weighting.cache_gradient": True,
}


SPLATS = {
    "field": "gaussians",
    "field.n_gaussians": 80,
    "regularizers.entropy_weight": Schedule.constant(0.2),
    "regularizers.sparsity_weight": Schedule.constant(0.1),
    "vlm.weighting.interval": 2,
    "vlm.weighting.cache_gradient": True,
}


GROWTH = {
    "vlm.weighting.cache_gradient": False,
    "field.densification": DensificationConfig(
        interval=2,
        grad_threshold=1e-3,
        split_size=0.15,
        min_opacity=0.01,
        max_screen_radius=100.0,
        reset_interval=3,
        max_gaussians=150,
    ),
}


class Placed(RandomDenoiser):
    """The random denoiser where it is put."""

    def __init__(self, device):
        super().__init__()
        self.kernel = self.kernel.to(device)

    def encode_text(self, texts):
        return super().encode_text(texts).to(self.kernel.device)


def test_operands_on_two_devices_are_refused(monkeypatch):
    here = torch.rand(3)
    with elsewhere(monkeypatch):
        there = here.to(DEVICE)
        assert (type(there), there.device) == (Elsewhere, DEVICE)
        assert torch.equal((there * torch.ones(3, device=DEVICE)).cpu(), here)
        with pytest.raises(RuntimeError, match="two devices"):
            there + here
        with pytest.raises(RuntimeError, match="a generator on cpu"):
            torch.rand(3, device=DEVICE, generator=torch.Generator())
        with pytest.raises(TypeError, match="the CPU alone"):
            there.numpy()


@pytest.mark.parametrize("chunk", [None, 300])
def test_steps_are_the_same_elsewhere(chunk, monkeypatch):
    config = tiny(field__rays__rays_per_chunk=chunk, **EVERYTHING)
    expected = build_vlm3d(config, Placed("cpu"), redness)
    reports = [expected.step() for _ in range(5)]
    with elsewhere(monkeypatch):
        model = build_vlm3d(config, Placed(DEVICE), redness, device=DEVICE)
        assert [model.step() for _ in range(5)] == reports
        for ours, theirs in zip(model.field.parameters(), expected.field.parameters()):
            assert torch.equal(back(ours), theirs)


@pytest.mark.parametrize("changes", [{}, GROWTH], ids=["fixed", "growing"])
def test_splats_are_the_same_elsewhere(changes, monkeypatch, tmp_path):
    config = tiny(**SPLATS | changes)
    expected = build_vlm3d(config, Placed("cpu"), redness)
    reports = [expected.step() for _ in range(4)]
    shrink_exports(monkeypatch)
    with elsewhere(monkeypatch):
        model = build_vlm3d(config, Placed(DEVICE), redness, device=DEVICE)
        assert [model.step() for _ in range(4)] == reports
        for ours, theirs in zip(model.field.parameters(), expected.field.parameters()):
            assert torch.equal(back(ours), theirs)
        assert (len(expected.field.means) > 80) == bool(changes)
        export_all(tmp_path, model, reports)
    assert {"views.png", "splats.ply"} <= {path.name for path in tmp_path.iterdir()}


def test_a_run_with_the_built_in_models_elsewhere(monkeypatch, tmp_path):
    """All parts: teachers, checkpoint, exports. Attention takes another path there."""
    config = presets.blocks("a red cube", steps=4)
    config = config.replace(
        {"camera.resolution": Schedule.constant(32), "field.rays.samples_per_ray": 8}
    )
    guidances = load.load_guidances(config)
    here = VLM3D(config, copy.deepcopy(guidances))
    expected = [here.step() for _ in range(3)]
    shrink_exports(monkeypatch)
    with elsewhere(monkeypatch):
        denoiser, reward = guidances[0].guidance.denoiser, guidances[1].guidance.reward
        model = build_vlm3d(config, denoiser.to(DEVICE), reward.to(DEVICE), device=DEVICE)
        reports = [model.step() for _ in range(2)]
        file = tmp_path / "checkpoint.safetensors"
        save_checkpoint(file, Checkpoint(2, config.to_json(), model.state()))
        model.load_state(load_checkpoint(file).state)
        reports.append(model.step())
        export_all(tmp_path, model, reports)
    for ours, theirs in zip(reports, expected):
        for name, value in dataclasses.asdict(theirs).items():
            assert getattr(ours, name) == pytest.approx(value, rel=2e-3, abs=1e-5), name
    assert {"views.png", "mesh.glb"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("chunk", [None, 300])
def test_steps_are_the_same_on_a_gpu(chunk):
    config = tiny(field__rays__rays_per_chunk=chunk, **EVERYTHING)
    here = build_vlm3d(config, Placed("cpu"), redness)
    there = build_vlm3d(config, Placed("cuda"), redness, device="cuda")
    for _ in range(3):
        expected, report = here.step(), there.step()
        for name, value in dataclasses.asdict(expected).items():
            assert getattr(report, name) == pytest.approx(value, rel=1e-3, abs=1e-5), name
    for ours, theirs in zip(there.field.parameters(), here.field.parameters()):
        assert_close(ours.cpu(), theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("route", ["torch", "gsplat"])
def test_splats_are_the_same_on_a_gpu(route, monkeypatch):
    if route == "torch":
        monkeypatch.setattr(splat_cuda, "available", lambda device: False)
    elif not splat_cuda.available(torch.device("cuda")):
        pytest.skip("needs gsplat with its kernels")
    config = tiny(**SPLATS)
    here = build_vlm3d(config, Placed("cpu"), redness)
    there = build_vlm3d(config, Placed("cuda"), redness, device="cuda")
    for _ in range(3):
        expected, report = here.step(), there.step()
        for name, value in dataclasses.asdict(expected).items():
            assert getattr(report, name) == pytest.approx(value, rel=1e-3, abs=1e-4), name
    for ours, theirs in zip(there.field.parameters(), here.field.parameters()):
        assert_close(ours.cpu(), theirs, rtol=1e-3, atol=1e-3)
