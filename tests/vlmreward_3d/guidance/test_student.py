"""Rules whose student learns the distribution of the renders: VSD, ESD and ASD."""

import dataclasses

import pytest
import torch
from stub_models import AttentiveDenoiser, RandomDenoiser, build_vlm3d, tiny
from tiny_latent_models import stable
from torch.testing import assert_close

from vlmreward_3d.config import StudentConfig
from vlmreward_3d.guidance import student as student_module
from vlmreward_3d.guidance.rules import RULES, Lesson, Prediction
from vlmreward_3d.guidance.rules.vsd import esd_gradient
from vlmreward_3d.guidance.score_distillation import add_noise
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.guidance.student import Student
from vlmreward_3d.presets import blocks
from vlmreward_3d.rendering.evaluation import evaluation_cameras
from vlmreward_3d.schedule import Schedule

CAMERAS = evaluation_cameras(blocks("any").camera, 4)
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def distillation(rule="vsd", **settings):
    at = Schedule.constant(0.5)
    return ScoreDistillation(
        AttentiveDenoiser(), "a cube", rule=rule, guidance_scale=7.5, t_min=at, t_max=at, **settings
    )


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def prediction(**changes):
    generator = seeded()
    names = ("latents", "noise", "noisy", "unconditional", "conditional", "student")
    names += ("student_free",)
    kind = {"dtype": torch.float64, "generator": generator}
    tensors = {name: torch.randn(3, 4, 5, 5, **kind) for name in names}
    alpha_bar = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    settings = {"guidance_scale": 7.5, "guidance_rescale": 0.0, "group_size": 1}
    return Prediction(**{**tensors, "alpha_bar": alpha_bar, **settings, **changes})


def test_with_the_noise_for_a_student_it_is_sds():
    given = prediction()
    known = dataclasses.replace(given, student=given.noise)
    assert_close(RULES["vsd"](known), RULES["sds"](given))
    assert (RULES["vsd"](given) - RULES["sds"](given)).abs().max() > 0.1


def test_entropic_distillation_is_variational_where_cameras_weigh_all():
    given = prediction()
    assert_close(esd_gradient(given, 1.0), RULES["vsd"](given), rtol=0, atol=1e-12)
    halves = [esd_gradient(given, k) for k in (0.0, 1.0)]
    assert_close(RULES["esd"](given), (halves[0] + halves[1]) / 2)
    free = dataclasses.replace(given, student=given.student_free)
    assert_close(halves[0], RULES["vsd"](free))
    for rule, missing in (("vsd", "student"), ("esd", "student_free")):
        with pytest.raises(ValueError, match="received a prediction without"):
            RULES[rule](dataclasses.replace(given, **{missing: None}))


def test_adversarial_distillation_is_variational_without_repulsion(monkeypatch):
    def gradients(rule):
        teacher = distillation(rule, student=StudentConfig(rank=2, learning_rate=0.1))
        draws = seeded()
        return [teacher(IMAGES, CAMERAS, 0.0, draws).gradient for _ in range(4)]

    variational, adversarial = gradients("vsd"), gradients("asd")
    assert torch.equal(variational[0], adversarial[0])  # nothing is learnt yet
    assert (variational[-1] - adversarial[-1]).abs().max() > 1e-3
    still = dataclasses.replace(RULES["asd"], lesson=Lesson(repulsion=0.0))
    monkeypatch.setitem(RULES, "asd", still)
    assert all(map(torch.equal, variational, gradients("asd")))


def test_before_it_has_learnt_the_student_is_the_denoiser():
    teacher = distillation()
    conditioned = teacher.prompts.seen_from(CAMERAS, IMAGES)
    t = torch.full((4,), 500)
    text, condition = conditioned.text["plain"], conditioned.cameras.condition()
    said = teacher.denoiser.predict_noise(IMAGES, t, text, condition)
    assert torch.equal(teacher.student.predict(conditioned, IMAGES, t), said)
    # the text with words for the sides is encoded apart, which some processors round otherwise
    (sided,) = conditioned.predict(IMAGES, t, ("prompt",))
    assert_close(sided, said, rtol=0, atol=2e-6)
    blind = teacher.student.predict(conditioned, IMAGES, t, cameras=False)
    assert (blind - said).abs().max() > 1e-4


def test_the_student_learns_the_renders_and_the_denoiser_stays_as_it_is():
    teacher = distillation(student=StudentConfig(rank=4, learning_rate=0.02, camera_dropout=0.0))
    conditioned = teacher.prompts.seen_from(CAMERAS, IMAGES)
    before = {name: p.clone() for name, p in teacher.denoiser.unet.named_parameters()}
    t = torch.full((4,), 500)
    noise = torch.randn(IMAGES.shape, generator=seeded(5))
    noisy = add_noise(IMAGES, noise, teacher.denoiser.alphas_cumprod[t])

    def error():
        return (teacher.student.predict(conditioned, noisy, t) - noise).square().mean().item()

    (said,) = conditioned.predict(noisy, t, ("prompt",))
    first, draws = error(), seeded(2)
    losses = [teacher.student.learn(conditioned, IMAGES, draws) for _ in range(80)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert error() < 0.9 * first
    assert all(torch.equal(p, before[n]) for n, p in teacher.denoiser.unet.named_parameters())
    assert torch.equal(conditioned.predict(noisy, t, ("prompt",))[0], said)
    shared = {id(p) for p in teacher.denoiser.unet.parameters()}
    own = {id(p) for p in teacher.student.denoiser.unet.parameters()}
    assert shared < own
    assert len(own) - len(shared) == len(teacher.student.weights)


def test_half_of_the_lessons_can_be_without_cameras(monkeypatch):
    told = []
    teacher = distillation(student=StudentConfig(rank=1, camera_dropout=0.5))
    predict = Student.predict

    def recorded(self, *args, cameras=True):
        told.append(cameras)
        return predict(self, *args, cameras=cameras)

    monkeypatch.setattr(student_module.Student, "predict", recorded)
    conditioned, draws = teacher.prompts.seen_from(CAMERAS, IMAGES), seeded()
    for _ in range(40):
        teacher.student.learn(conditioned, IMAGES, draws)
    assert 10 < sum(told) < 30


def test_it_is_loaded_by_name_and_its_loss_is_logged():
    config = tiny(score_distillation__rule="esd", vlm=None, score_distillation__student__rank=3)
    model = build_vlm3d(config, AttentiveDenoiser())
    assert model.step().metrics["sds/student_loss"] > 0
    again = build_vlm3d(config, AttentiveDenoiser())
    again.load_state(model.state())
    assert model.step().metrics == again.step().metrics
    other = build_vlm3d(config.replace({"seed": 1}), AttentiveDenoiser())
    one, two = ({k: v for k, v in m.state().items() if "lora_A" in k} for m in (again, other))
    assert one.keys() == two.keys()
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_a_denoiser_without_a_unet_is_refused():
    with pytest.raises(TypeError, match="RandomDenoiser without a unet; expected one of diffusers"):
        ScoreDistillation(RandomDenoiser(), "a cube", rule="vsd", guidance_scale=7.5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_latent_denoisers_have_students(kind):
    """Stable Diffusion without cameras; the student of v predicts noise, as that of noise does."""
    model = stable(kind)
    teacher = ScoreDistillation(model, "a cube", rule="asd", guidance_scale=7.5)
    images = torch.rand(1, 3, 64, 64, generator=seeded())
    latents = model.to_latents(images).detach()
    conditioned = teacher.prompts.seen_from(CAMERAS[:1], latents)
    t = torch.tensor([300])
    (said,) = conditioned.predict(latents, t, ("prompt",))
    assert torch.equal(teacher.student.predict(conditioned, latents, t), said)
    draws = seeded(1)
    first = [teacher(images, CAMERAS[:1], 0.0, draws) for _ in range(2)]
    assert all(output.gradient.isfinite().all() for output in first)
    assert not torch.equal(teacher.student.predict(conditioned, latents, t), said)
    assert torch.equal(conditioned.predict(latents, t, ("prompt",))[0], said)
