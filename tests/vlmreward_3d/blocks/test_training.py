"""Both trainings, from rendering to a folder that loads, in a few small steps."""

import warnings
from argparse import Namespace

import numpy as np
import pytest
import torch

from vlmreward import YesNoReward
from vlmreward_3d.blocks.training import train_denoiser, train_vlm
from vlmreward_3d.blocks.training.trainer import Trainer, cpu_has_bfloat16
from vlmreward_3d.blocks.world import dataset
from vlmreward_3d.blocks.world.descriptions import unbound_caption, usual_arrangements
from vlmreward_3d.guidance import load_denoiser
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion

FAST = cpu_has_bfloat16()
"""Trained in bfloat16 where the CPU has it, as the command does; elsewhere it takes minutes."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(dataset, "SHARD", 24)
    folder = tmp_path_factory.mktemp("train")
    dataset.render_dataset(folder, 24, seed=1, workers=1)
    yield folder
    patch.undo()


def options(data, out, **changed):
    common = {
        "data": data,
        "out": out,
        "scenes": 24,
        "steps": 2,
        "batch": 2,
        "lr": 1e-3,
        "matrix_lr": 1e-3,
        "composed": 0.0,
        "mixtures": 0.0,
        "alignment": 0.0,
        "start": None,
        "radius": 0.0,
    }
    return Namespace(
        **{**common, "seed": 0, "save_every": 1, "device": "cpu", "bf16": FAST, **changed}
    )


def test_vlm(data, tmp_path):
    train_vlm.train(options(data, tmp_path, steps=3, compile=False))
    reward = YesNoReward(tmp_path / "model", question="{prompt}", device="cpu")
    value = reward(torch.rand(1, 4, 3, 64, 64), prompt="Is there a red cube?")
    assert value.isfinite().all()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 3


def test_blends_alone_teach_without_facts(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "SHARD", 24)
    folder = tmp_path / "data"
    dataset.render_dataset(folder, 24, seed=1, counterparts=True, workers=1)
    drawn = []
    draw = train_vlm.QuestionSampler.draw

    def recorded(self, *args, **kwargs):
        drawn.append(draw(self, *args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(train_vlm.QuestionSampler, "draw", recorded)
    misled = []

    def mislead(model, images, loss, radius, generator):
        misled.append((radius, len(images)))
        return images

    monkeypatch.setattr(train_vlm, "mislead", mislead)
    start = options(folder, tmp_path / "out", start="builtin/blocks", mixtures=1.0, radius=1.5)
    train_vlm.train(Namespace(**{**vars(start), "steps": 8, "compile": False}))
    assert any(all(facts is None for facts in batch.facts) for batch in drawn)
    assert misled == [(1.5, len(batch.questions)) for batch in drawn]
    state = torch.load(tmp_path / "out" / "state.pt", weights_only=True)
    assert all(x.isfinite().all() for x in state["model"].values())


def test_a_loss_that_is_not_finite_ends_the_training_before_it_does_harm(tmp_path):
    model = torch.nn.Linear(2, 2)
    kept = {name: x.clone() for name, x in model.state_dict().items()}
    trainer = Trainer(model, [model.weight], out=tmp_path, steps=5, lr=1.0, matrix_lr=1.0, warmup=1)
    with pytest.raises(FloatingPointError, match="step 3: the loss is nan; expected a finite"):
        trainer.update(model(torch.ones(2)).sum() * torch.nan, 3)
    assert all((x == kept[name]).all() for name, x in model.state_dict().items())


def test_both_learn_the_words_of_compositions(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "SHARD", 12)
    monkeypatch.setattr(train_denoiser, "SHOWN", ("three striped red cubes",))
    monkeypatch.setattr(train_denoiser, "SAMPLING_STEPS", 2)
    dataset.render_dataset(tmp_path / "data", 12, seed=1, composed=0.6, workers=1)
    rich = {"scenes": 12, "composed": 0.6}
    vlm, denoiser = tmp_path / "vlm", tmp_path / "denoiser"
    # one step of each stage: words, simple, attributes, all
    train_vlm.train(options(tmp_path / "data", vlm, steps=4, compile=False, **rich))
    train_denoiser.train(options(tmp_path / "data", denoiser, teacher="strong", **rich))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        reward = YesNoReward(vlm / "model", question="Do the views show {prompt}?", device="cpu")
        text = "two small dotted cubes behind a green mug without a handle"
        assert reward(torch.rand(1, 4, 3, 64, 64), prompt=text).isfinite().all()
        encoded = load_denoiser(str(denoiser / "model")).encode_text([text])
    assert encoded.shape[1] == train_denoiser.RICH_TEXT_LENGTH
    assert not [w for w in said if "was not trained on" in str(w.message)]


def test_a_trained_vlm_learns_on_from_views_that_mislead_it(data, tmp_path, monkeypatch):
    misled = []

    def mislead(model, images, loss, radius, generator):
        assert loss(images).isfinite()
        misled.append(radius)
        return images

    monkeypatch.setattr(train_vlm, "mislead", mislead)
    still = {"lr": 0.0, "matrix_lr": 0.0}
    train_vlm.train(
        options(data, tmp_path, start="builtin/blocks", radius=1.5, compile=False, **still)
    )
    assert misled == [1.5, 1.5]
    question, images = "Is there a red cube?", torch.rand(1, 4, 3, 64, 64)
    before, after = (
        YesNoReward(source, question=question, device="cpu")(images)
        for source in ("builtin/blocks", tmp_path / "model")
    )
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize(
    ("teacher", "views"), [("strong", 4), ("coarse", 4), ("biased", 4), ("single-view", 1)]
)
def test_denoiser(data, tmp_path, monkeypatch, teacher, views):
    monkeypatch.setattr(train_denoiser, "SHOWN", ("a red cube",))
    monkeypatch.setattr(train_denoiser, "SAMPLING_STEPS", 2)
    train_denoiser.train(options(data, tmp_path, teacher=teacher))
    model = load_denoiser(str(tmp_path / "model"))
    assert isinstance(model, PixelDiffusion)
    assert (model.resolution, model.n_views) == (32, views)
    assert (tmp_path / "samples-000002.png").stat().st_size > 0


def test_a_trained_denoiser_learns_on_at_full_resolution(data, tmp_path, monkeypatch):
    monkeypatch.setattr(train_denoiser, "SHOWN", ("a red cube",))
    monkeypatch.setattr(train_denoiser, "SAMPLING_STEPS", 2)
    sizes, loss_of = [], train_denoiser.loss_of

    def seen(model, batch, generator):
        sizes.append(batch[0].shape[-1])
        return loss_of(model, batch, generator)

    monkeypatch.setattr(train_denoiser, "loss_of", seen)
    still = {"lr": 0.0, "matrix_lr": 0.0, "bf16": False}
    arguments = options(data, tmp_path, teacher="coarse", start="builtin/coarse", **still)
    train_denoiser.train(arguments)
    assert sizes == [32, 32]
    before, after = (
        load_denoiser(source).state_dict() for source in ("builtin/coarse", str(tmp_path / "model"))
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_biased_denoiser_sees_usual_arrangements_more_often(data):
    loaded = dataset.load_dataset(data, 1)
    plain, biased = (
        train_denoiser.Batches(loaded, seed=0, teacher=teacher) for teacher in ("coarse", "biased")
    )
    assert plain.rows == biased.rows
    ratio = biased.weight / plain.weight
    counts = np.array([usual_arrangements(loaded.scenes[row]) for row in plain.rows])
    assert {0, 1, 2} == {*counts.tolist()}
    np.testing.assert_allclose(ratio / ratio[counts == 0][0], 5.0**counts)
    assert biased.caption is unbound_caption  # which does not tell what belongs to what


def test_pairs_and_cubes_are_drawn_more_often(data):
    loaded = dataset.load_dataset(data, 1)
    batches = train_denoiser.Batches(loaded, seed=0)
    kinds = {False: [], True: []}
    for row, weight in zip(batches.rows, batches.weight):
        scene = loaded.scenes[row]
        assert scene.flaw is None
        kinds[bool(scene.relation) or scene.things[0].shape == "cube"].append(weight)
    assert min(kinds[True]) > max(kinds[False])


def test_single_views_have_captions_of_their_own_and_show_the_front(data):
    loaded = dataset.load_dataset(data, 1)
    batches = train_denoiser.Batches(loaded, seed=0, teacher="single-view")
    fronts = []
    for step in range(40):
        images, texts, cameras = batches.draw(step, 2)
        assert len(images) == len(texts) == len(cameras) == 8
        fronts += (cameras.view(-1, 4, 4)[:, 0, 3] > 0).tolist()
    # of azimuths with concentration 2 around the front, 9 in 10 are within a quarter turn of it
    assert 0.8 < sum(fronts) / len(fronts) < 0.98
