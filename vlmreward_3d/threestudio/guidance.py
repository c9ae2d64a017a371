"""The guidance of a threestudio configuration: denoiser, distillation rule and strength."""

from __future__ import annotations

from vlmreward_3d.config import ScoreDistillationConfig, StudentConfig, WeightingConfig
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.threestudio.settings import Settings

__all__ = ["distillation_of"]

_GUIDANCES = (
    "stable-diffusion-guidance",
    "stable-diffusion-vsd-guidance",
    "mvdream-multiview-diffusion-guidance",
)
_WEIGHTINGS = {"sds": "sds", "dreamfusion": "sds", "uniform": "sjc"}
"""Rules by threestudio's `weighting_strategy`: w = 1 - abar, and w = 1, which is that of SJC."""
_SD_2_1 = "stabilityai/stable-diffusion-2-1"


def distillation_of(settings: Settings, steps: int, changed: list[str]) -> ScoreDistillationConfig:
    """The first guidance of the run.

    Args:
        settings: The file.
        steps: Length of the run.
        changed: Lines about changes are added here.

    Raises:
        ValueError: A guidance without a counterpart.
    """
    where, kind = "system.guidance", settings.values.get("system.guidance_type")
    if kind == "vlm-reward-guidance":  # of this project, around another one
        where, kind = f"{where}.base", settings.values.get(f"{where}.base_type")
    if kind not in _GUIDANCES:
        raise ValueError(
            f"received guidance_type={kind!r}, which has no counterpart; expected one of "
            f"{_GUIDANCES}"
        )
    settings.skip(rf"{where}\.(half_precision_weights|enable_.*|token_merging.*|max_items_eval)")
    settings.skip(r"system\.prompt_processor\.(pretrained_model_name_or_path|spawn|use_cache)")
    multi_view = kind == _GUIDANCES[2]
    perp_neg = bool(settings.take("system.prompt_processor.use_perp_neg", default=False))
    view_prompts = bool(settings.take(f"{where}.view_dependent_prompting", not multi_view))
    if not view_prompts:
        settings.skip(r"system\.prompt_processor\.(front|back|overhead)_threshold")
    rule, rescale = _rule(settings, where, kind, changed)
    scale = settings.number(
        f"{where}.guidance_scale", {_GUIDANCES[0]: 100.0, _GUIDANCES[1]: 7.5}.get(kind, 50.0)
    )
    if kind == _GUIDANCES[0] and not perp_neg:
        # that guidance adds k (e_c - e_n) to e_c, all others and this project to e_n
        changed.append(f"{where}.guidance_scale = {scale:g}: {scale + 1:g}, counted from no prompt")
        scale += 1
    weight = "lambda_vsd" if rule == "vsd" else "lambda_sds"
    return ScoreDistillationConfig(
        denoiser=_denoiser(settings, where, multi_view, changed),
        negative_prompt=settings.take("system.prompt_processor.negative_prompt", "") or "",
        view_prompts=view_prompts,
        perp_neg=perp_neg and view_prompts,
        rule=rule,
        guidance_scale=float(scale),
        guidance_rescale=rescale,
        t_min=settings.schedule(f"{where}.min_step_percent", 0.02, steps),
        t_max=_t_max(settings, where, steps),
        shared_timestep=multi_view,
        student=_student(settings),
        weighting=WeightingConfig(weight=settings.schedule(f"system.loss.{weight}", 1, steps)),
    )


def _rule(settings: Settings, where: str, kind: object, changed: list[str]) -> tuple[str, float]:
    """The distillation rule and its `guidance_rescale`."""
    if kind == _GUIDANCES[2]:
        rescale = settings.number(f"{where}.recon_std_rescale", 0.5)
        return (
            ("x0", rescale) if settings.take(f"{where}.recon_loss", default=True) else ("sds", 0.0)
        )
    strategy = settings.take(f"{where}.weighting_strategy", "sds")
    if kind == _GUIDANCES[1]:
        return "vsd", 0.0
    if settings.take(f"{where}.use_sjc", default=False):
        if not settings.take(f"{where}.var_red", default=True):
            changed.append(f"{where}.var_red = False: the noise is subtracted")
        return "sjc", 0.0
    settings.take(f"{where}.var_red")
    if strategy not in _WEIGHTINGS:
        changed.append(f"{where}.weighting_strategy = {strategy!r}: 'sds', w = 1 - abar")
    rule = _WEIGHTINGS.get(strategy, "sds")
    clip = settings.take(f"{where}.grad_clip")
    if clip is not None:
        if rule == "sds":
            rule = "clamped-sds"
        changed.append(f"{where}.grad_clip = {clip!r}: the rule {rule!r}, with bounds of its own")
    return rule, 0.0


def _denoiser(settings: Settings, where: str, multi_view: bool, changed: list[str]) -> str:
    if multi_view:
        path = settings.take(f"{where}.ckpt_path")
        name = settings.take(f"{where}.model_name", "sd-v2.1-base-4view")
        return path or f"{name}.pt"
    name = settings.take(
        f"{where}.pretrained_model_name_or_path", "stable-diffusion-v1-5/stable-diffusion-v1-5"
    )
    if settings.values.get(f"{where}.pretrained_model_name_or_path_lora") == name:
        settings.take(f"{where}.pretrained_model_name_or_path_lora")
    if name.startswith(_SD_2_1):
        changed.append(
            f"{where}.pretrained_model_name_or_path = {name!r}: the same, but no longer on the "
            "hub; score_distillation.denoiser takes a folder or a mirror"
        )
    if name == "runwayml/stable-diffusion-v1-5":
        moved = "stable-diffusion-v1-5/stable-diffusion-v1-5"
        changed.append(
            f"{where}.pretrained_model_name_or_path = {name!r}: {moved!r}, where it is now"
        )
        return moved
    return name


def _t_max(settings: Settings, where: str, steps: int) -> Schedule:
    schedule = settings.schedule(f"{where}.max_step_percent", 0.98, steps)
    annealed = settings.take(f"{where}.max_step_percent_annealed")
    start = settings.take(f"{where}.anneal_start_step")
    if annealed is None or start is None or start >= steps or annealed == schedule(0.0):
        return schedule
    return Schedule.steps(schedule(0.0), (start / steps, float(annealed)))


def _student(settings: Settings) -> StudentConfig:
    name = "system.optimizer.params.guidance.lr"
    if settings.values.get("system.loss.lambda_lora") == 1:
        settings.take("system.loss.lambda_lora")
    return StudentConfig(learning_rate=float(settings.number(name, 1e-4)))
