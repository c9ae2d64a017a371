"""Damaged denoisers and those of others: one line that says what is wrong, before any work."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from text_to_3d import main
from tiny_latent_models import stable, tokenizer

import vlmreward_3d
from vlmreward_3d.guidance.diffusion.mvdream import MVDream
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion
from vlmreward_3d.guidance.diffusion.stable_diffusion import StableDiffusion
from vlmreward_3d.guidance.loading import load_denoiser

BLOCKS = Path(vlmreward_3d.__file__).parent / "blocks" / "weights" / "denoiser"
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


class _Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def _edited(name, **changes):
    def apply(folder):
        whole = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps({**whole, **changes}))

    return apply


def _written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def _without(name):
    def apply(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return apply


def _tensors(name, change):
    def apply(folder):
        state = load_file(folder / name)
        change(state)
        save_file(state, folder / name, metadata={"format": "pt"})

    return apply


def _fewer(state):
    for key in sorted(state)[:4]:
        del state[key]


def _pickled(folder):
    (folder / UNET).unlink()
    path = folder / "unet/diffusion_pytorch_model.bin"
    path.write_bytes(pickle.dumps(_Harm(folder / "harm")))


PORT = "is a MultiViewUNetModel, which is not supported; expected .*: for MVDream pass its authors'"
BOTH = {
    "tensors missing": (
        _tensors(UNET, _fewer),
        r"cannot load the unet .* 4 missing \(.*, \.\.\.\)",
    ),
    "another tensor": (_tensors(UNET, lambda s: s.update(x=torch.zeros(1))), r"1 unexpected \(x\)"),
    "another shape": (
        _tensors(UNET, lambda s: s.update({"conv_in.bias": torch.zeros(7)})),
        r"the unet of .*\(conv_in.bias expected shape .*7\]\)\); expected 'builtin/blocks'",
    ),
    "text encoder's missing": (_tensors(TEXT, _fewer), r"the text_encoder .* 4 missing \("),
    "text encoder's other": (
        _tensors(TEXT, lambda s: s.update(x=torch.zeros(1))),
        r"the text_encoder .* 1 unexpected \(x\)",
    ),
    "text encoder of another shape": (
        _tensors(TEXT, lambda s: s.update({sorted(s)[0]: torch.zeros(7)})),
        r"the text_encoder .* 1 of another shape \(.*: \(7,\) in the file",
    ),
    "truncated": (
        lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:9000]),
        r"diffusion_pytorch_model.safetensors is damaged \(9000 bytes",
    ),
    "empty": (_written(UNET, b""), r"safetensors is damaged \(0 bytes"),
    "git-lfs": (_written(UNET, b"version https://git-lfs.github.com/spec/v1"), "pointer of git-lf"),
    "no weights": (_without(UNET), "no file named diffusion_pytorch_model.safetensors"),
    "pickled harm": (_pickled, "no file named diffusion_pytorch_model.safetensors"),
    "list as config": (_written("unet/config.json", b"[]"), "config.json holds a list; expected"),
    "half a config": (_written("unet/config.json", b"{"), "config.json is not JSON"),
    "no config": (_without("unet/config.json"), "cannot load the denoiser .* no file named config"),
    "another config": (_written("unet/config.json", b"{}"), "the unet of .*expected shape"),
    "list as scheduler": (
        _written("scheduler/scheduler_config.json", b"[]"),
        "the scheduler of .*: scheduler_config.json holds a list",
    ),
    "predicts something else": (
        _edited("scheduler/scheduler_config.json", prediction_type="sample"),
        "predicts 'sample'; expected one of",
    ),
    "list as tokenizer": (_written("tokenizer/tokenizer.json", b"[]"), "the tokenizer .* a list; "),
    "no vocabulary": (_without("tokenizer/tokenizer.json"), "tokenizer knows no word; expected"),
    "text encoder's config": (_written("text_encoder/config.json", b"[]"), "holds a list; expect"),
    "no text encoder": (_without("text_encoder"), "text_encoder"),
    "a port's UNet": (_edited("unet/config.json", _class_name="MultiViewUNetModel"), PORT),
    "a port's index": (
        _edited("model_index.json", unet=["mv_unet", "MultiViewUNetModel"]),
        PORT,
    ),
    "two text encoders": (
        _edited("model_index.json", text_encoder_2=["transformers", "CLIPTextModelWithProjection"]),
        "the text_encoder_2 of .* is a CLIPTextModelWithProjection, which is not supported",
    ),
    "labels of something else": (
        _edited(
            "unet/config.json",
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2048,
        ),
        "takes class labels of 2048 numbers; expected the 16 of a camera",
    ),
    "no size": (_edited("unet/config.json", sample_size=None), "sample_size is None; expected the"),
}
LATENT = {
    "autoencoder's missing": (
        _tensors("vae/diffusion_pytorch_model.safetensors", _fewer),
        r"cannot load the vae .* 4 missing",
    ),
    "no autoencoder's config": (_without("vae/config.json"), "cannot load the vae .*config.json"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stable")
    stable().save_pretrained(folder)
    return folder


def _refused(folder, message):
    with pytest.raises((OSError, ValueError), match=message) as caught:
        load_denoiser(str(folder))
    assert "\n" not in str(caught.value)
    assert not (folder / "harm").exists()


@pytest.mark.parametrize("name", BOTH)
def test_damaged_denoisers_of_pixels(name, tmp_path):
    damage, message = BOTH[name]
    shutil.copytree(BLOCKS, tmp_path / "model")
    damage(tmp_path / "model")
    _refused(tmp_path / "model", message)


@pytest.mark.parametrize("name", [*BOTH, *LATENT])
def test_damaged_denoisers_of_latents(name, saved, tmp_path):
    damage, message = {**BOTH, **LATENT}[name]
    shutil.copytree(saved, tmp_path / "model")
    damage(tmp_path / "model")
    _refused(tmp_path / "model", message)


def _the_line(capsys):
    """The one line on stderr beside the first, which says that libraries are loaded."""
    first, line = capsys.readouterr().err.strip().splitlines()
    assert first.startswith("loading ")
    return line


@pytest.mark.parametrize("name", ["tensors missing", "a port's index", "truncated", "no size"])
def test_the_example_says_it_in_one_line(name, saved, tmp_path, capsys):
    damage, message = BOTH[name]
    shutil.copytree(saved, tmp_path / "model")
    damage(tmp_path / "model")
    options = ["--no-vlm", "--steps", "2", "--out", str(tmp_path / "run")]
    assert main(["a red cube", "--denoiser", str(tmp_path / "model"), *options]) == 2
    line = _the_line(capsys)
    with pytest.raises(ValueError, match=message):
        raise ValueError(line)
    assert line.startswith("error: ")


def _unet_alone():
    return {"model.diffusion_model.x": torch.zeros(1)}


def _whole(**extra):
    names = ["model.diffusion_model.x", "first_stage_model.x", "cond_stage_model.model.x"]
    return {**{name: torch.zeros(1) for name in names}, **extra}


CAMERAS = {
    f"model.diffusion_model.camera_embed.{i}.{kind}": torch.zeros(2, 2)
    for i in (0, 2)
    for kind in ("weight", "bias")
}
FILES = {
    "another model's": (lambda: {"a": torch.zeros(1)}, r"nothing under 'model.*', but a\); exp"),
    "a UNet alone": (_unet_alone, r"nothing under 'first_stage_model\.'"),
    "Stable Diffusion's": (_whole, "its UNet takes no cameras, as of Stable Diffusion's own"),
    "cameras and nothing else": (lambda: _whole(**CAMERAS), r"is not MVDream's \(.*input_blocks"),
    "nothing": (dict, "nothing under .*, but nothing at all"),
    "a list": (lambda: [torch.zeros(1)], "it holds a list of other things than tensors"),
    "numbers": (lambda: {"state_dict": {"a": 1}}, "other things than tensors"),
    "other objects": (lambda: {"a": Path("x")}, r"cannot read .*\(\d+ bytes; .*expected MVDream's"),
}


@pytest.fixture
def _no_tokenizer_is_asked_for(monkeypatch):
    def asked(*_, **__):
        raise AssertionError("the hub is asked before the file is looked at")

    monkeypatch.setattr(
        "vlmreward_3d.guidance.diffusion.mvdream.CLIPTokenizer.from_pretrained", asked
    )


@pytest.mark.usefixtures("_no_tokenizer_is_asked_for")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_single_files_are_looked_at_first(name, suffix, tmp_path):
    make, message = FILES[name]
    path, content = tmp_path / f"model.{suffix}", make()
    if suffix == "pt":
        torch.save(content, path)
    elif isinstance(content, dict) and all(torch.is_tensor(v) for v in content.values()):
        save_file(content, path)
    else:
        pytest.skip("safetensors hold tensors alone")
    # where the names are right, the tokenizer comes next
    options = {"tokenizer": tokenizer()} if name == "cameras and nothing else" else {}
    with pytest.raises((OSError, ValueError), match=message) as caught:
        MVDream.from_checkpoint(path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_no_tokenizer_is_asked_for")
@pytest.mark.parametrize("suffix", ["pt", "ckpt", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 100], ids=["empty", "garbage"])
def test_single_files_that_are_damaged(suffix, content, tmp_path, capsys):
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(content)
    with pytest.raises(OSError, match=rf"cannot read .*\({len(content)} bytes; .*; expected MVD"):
        load_denoiser(str(path))
    options = ["--no-vlm", "--steps", "2", "--out", str(tmp_path / "run")]
    assert main(["a red cube", "--denoiser", str(path), *options]) == 2
    assert _the_line(capsys).startswith("error: cannot read ")


def test_whole_folders_load(saved):
    assert isinstance(load_denoiser(str(saved)), StableDiffusion)
    assert isinstance(load_denoiser(str(BLOCKS)), PixelDiffusion)


def test_parts_of_different_models_are_refused():
    model = stable()
    parts = {
        name: getattr(model, name)
        for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    }
    for part, name, value, message in (
        ("unet", "in_channels", 9, "takes 9 channels and gives 4; expected 4 and 4"),
        ("unet", "cross_attention_dim", 99, "texts of width 99; expected 16"),
    ):
        other = stable()
        getattr(other, part).register_to_config(**{name: value})
        with pytest.raises(ValueError, match=message):
            StableDiffusion(**{**parts, part: getattr(other, part)})
    parts["text_encoder"].config.vocab_size = 9
    with pytest.raises(ValueError, match=r"tokenizer has \d+ tokens; expected at most 9"):
        StableDiffusion(**parts)
