"""Damaged and incomplete model folders: one line that says what is wrong, before any answer."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.utils import save_image

from vlmreward import YesNoReward
from vlmreward.cli import main
from vlmreward.models.loading import load, resolve

WEIGHTS = "model.safetensors"


class _Harm:
    """Unpickled as other objects are, it would leave a file."""

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)

    def __init__(self, path):
        self.path = path


def _edited(name, **changes):
    def apply(folder):
        whole = json.loads((folder / name).read_text())
        for key, value in changes.items():
            whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
        (folder / name).write_text(json.dumps(whole))

    return apply


def _written(name, content):
    def apply(folder):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return apply


def _without(name):
    return lambda folder: (folder / name).unlink()


def _tensors(change):
    def apply(folder):
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

    return apply


def _layers(count):
    text = {"num_hidden_layers": count, "layer_types": ["full_attention"] * count}
    return _edited("config.json", text_config=text)


def _norm(state):
    return next(key for key in state if key.endswith("norm.weight"))


def _truncated(folder):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:100_000])


def _pickled(content):
    def apply(folder):
        (folder / WEIGHTS).unlink()
        (folder / "pytorch_model.bin").write_bytes(content(folder))

    return apply


def _parts(names):
    def apply(folder):
        (folder / WEIGHTS).unlink()
        index = {"metadata": {}, "weight_map": names}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))

    return apply


def _remote(name, **classes):
    return _edited(name, auto_map=classes)


DAMAGES = {
    "two more layers": (_layers(6), r"24 missing \(model.language_model.layers.4.*\.\.\.\); exp"),
    "two layers less": (_layers(2), r"24 unexpected \(model.language_model.layers.2"),
    "another tensor": (
        _tensors(lambda s: s.update(other=torch.zeros(3))),
        r"1 unexpected \(other\); expected every tensor of Qwen2_5_VLFor",
    ),
    "a tensor less": (_tensors(lambda s: s.pop(_norm(s))), r"1 missing \(.*norm.weight\)"),
    "another shape": (
        _tensors(lambda s: s.update({_norm(s): torch.zeros(7)})),
        r"1 of another shape \(.*norm.weight: \(7,\) in the file, \(192,\) in the model\)",
    ),
    "truncated": (_truncated, r"model.safetensors is damaged \(100000 bytes; .*not fully covered"),
    "garbage": (_written(WEIGHTS, b"garbage" * 1000), r"model.safetensors is damaged \(7000 by"),
    "empty weights": (_written(WEIGHTS, b""), r"model.safetensors is damaged \(0 bytes"),
    "a page in its place": (_written(WEIGHTS, "<html>Not found</html>"), "safetensors is damaged"),
    "git-lfs": (
        _written(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "is a pointer of git-lfs.*: run git lfs pull",
    ),
    "no tensor": (_tensors(lambda s: s.clear()), "model.safetensors holds no tensor; expected the"),
    "no weights": (_without(WEIGHTS), "no file named model.safetensors.*; expected a folder as"),
    "pickled garbage": (
        _pickled(lambda folder: b"garbage" * 100),
        r"pytorch_model.bin: damaged, or .*not run\); expected weights in safetensors",
    ),
    "pickled harm": (
        _pickled(lambda folder: pickle.dumps(_Harm(folder / "harm"))),
        r"pytorch_model.bin: damaged, or it holds more than tensors",
    ),
    "parts missing": (
        _parts({"a": "model-1.safetensors", "b": "model-2.safetensors"}),
        "names 2 files of weights, of which 2 are missing: model-1.safetensors, model-2",
    ),
    "index without parts": (_parts([]), "names 0 files of weights"),
    "list as config": (_written("config.json", "[1, 2]"), "config.json holds a list; expected a"),
    "text as config": (_written("config.json", '"x"'), "config.json holds a str; expected a JSON"),
    "half a config": (_written("config.json", '{"a": '), "config.json is not JSON"),
    "binary config": (_written("config.json", b"\xff\xfe\0"), "config.json is not JSON"),
    "no config": (_without("config.json"), "Should have a `model_type` key.*: check config.json"),
    "unknown type": (_edited("config.json", model_type="martian"), "model type `martian` but"),
    "a text model": (_written("config.json", '{"model_type": "llama"}'), "LlamaConfig"),
    "text as a size": (
        _edited("config.json", text_config={"hidden_size": "x"}),
        "'hidden_size': TypeError: Field 'hidden_size' expected int, got str",
    ),
    "no heads": (
        _edited("config.json", text_config={"num_attention_heads": 0}),
        r"\(ZeroDivisionError: .*\); expected a folder as save_pretrained",
    ),
    "list as tokenizer": (_written("tokenizer.json", "[]"), "tokenizer.json holds a list; exp"),
    "half a tokenizer": (_written("tokenizer.json", "{"), "tokenizer.json is not JSON"),
    "another object as tokenizer": (_written("tokenizer.json", "{}"), "KeyError: 'added_tokens'"),
    "no tokenizer": (_without("tokenizer.json"), "its tokenizer knows no word; expected a vocab"),
    "no processor": (_without("processor_config.json"), "load image processor for"),
    "list as processor": (_written("processor_config.json", "[]"), "processor_config.json holds a"),
    "half a template": (
        _written("chat_template.jinja", "{% for x in %}"),
        r"chat template fails \(TemplateSyntaxError: .*\); expected a Jinja template",
    ),
    "template of something else": (
        _written("chat_template.jinja", "{{ messages.foo.bar }}"),
        r"chat template fails \(UndefinedError: .*: set processor.chat_template",
    ),
    "no template": (_without("chat_template.jinja"), "has no chat template; expected one: set"),
    "code of its own": (
        lambda folder: (
            _edited("config.json", model_type="martian")(folder),
            _remote("config.json", AutoConfig="m.C", AutoModelForImageTextToText="m.M")(folder),
        ),
        r'code of its own, which is not run unasked; .*model_kwargs={"trust_remote_code": True}',
    ),
    "processor with code of its own": (
        lambda folder: (
            _edited("processor_config.json", processor_class="Martian")(folder),
            _remote("processor_config.json", AutoProcessor="m.P")(folder),
        ),
        "code of its own, which is not run unasked",
    ),
}


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "red.png"
    save_image(torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 64, 64), path)
    return path


@pytest.fixture
def damaged(tmp_path, request):
    folder = tmp_path / "model"
    shutil.copytree(resolve("builtin/blocks"), folder)
    damage, message = DAMAGES[request.param]
    damage(folder)
    return folder, message


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch):
    def refused(*_):
        raise AssertionError("asked on the standard input")

    monkeypatch.setattr("builtins.input", refused)


@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
def test_one_line_says_what_is_wrong(damaged):
    folder, message = damaged
    with pytest.raises((OSError, ValueError), match=message) as caught:
        YesNoReward(folder, device="cpu")
    assert "\n" not in str(caught.value)
    assert "; expected " in str(caught.value)
    assert not (folder / "harm").exists()


@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
def test_the_commands_say_it_too(damaged, picture, capsys):
    folder, message = damaged
    for words in (["score", str(picture), "--prompt", "a cube", "--model"], ["doctor"]):
        assert main([*words, str(folder), "--device", "cpu"]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        (line,) = said.err.strip().splitlines()
        assert line.startswith(f"vlmreward {words[0]}: error: ")
        with pytest.raises(ValueError, match=message):
            raise ValueError(line)


def test_whole_models_of_every_family_load(family_pair, family_folder):
    from tiny_models import FAMILIES

    for family in FAMILIES:
        model, _ = family_pair(family)
        loaded, _ = load(str(family_folder(family)), torch.device("cpu"))
        state = loaded.state_dict()
        for name, value in model.state_dict().items():
            torch.testing.assert_close(state[name], value)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_not_missing_and_parts_are_one_model(family_pair, tmp_path, tied):
    import copy

    model, processor = family_pair("llava")
    model = copy.deepcopy(model)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = tied
    if tied:
        model.tie_weights()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    processor.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    loaded, _ = load(str(tmp_path), torch.device("cpu"))
    output, given = loaded.get_output_embeddings(), loaded.get_input_embeddings()
    assert (output.weight.data_ptr() == given.weight.data_ptr()) == tied
    torch.testing.assert_close(output.weight, model.get_output_embeddings().weight)


def test_buffers_of_old_checkpoints_are_ignored(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(resolve("builtin/blocks"), folder)
    old = {"model.language_model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(16)}
    _tensors(lambda s: s.update(old))(folder)
    load(str(folder), torch.device("cpu"))


def test_pickled_tensors_load(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(resolve("builtin/blocks"), folder)
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    values = [YesNoReward(m, device="cpu")(images, "a cone") for m in (folder, "builtin/blocks")]
    torch.testing.assert_close(*values, atol=0, rtol=0)
