import pytest
import torch

from vlmreward import YesNoReward
from vlmreward_3d.blocks.training.vlm_model import PackedVLM, build_vlm
from vlmreward_3d.blocks.world.captions import Question


@pytest.fixture(scope="module")
def packed():
    return PackedVLM(*build_vlm(seed=3)).eval()


QUESTIONS = [
    [
        Question("Is there a red cube?", True, ""),
        Question("Is it sound and consistent?", False, ""),
    ],
    [Question("Do the views show a pink mug next to a car?", True, "")],
]


@pytest.mark.filterwarnings("ignore:the text has words that this small model")
@pytest.mark.parametrize("views", [1, 4])
def test_packed_answers_equal_the_reward_on_each_question(packed, views):
    vlm, processor = build_vlm(seed=3)
    reward = YesNoReward((vlm, processor), question="{prompt}")
    images = torch.rand(2, views, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = packed.margins(images, QUESTIONS)
        alone = [
            reward(images[i : i + 1], prompt=q.text)
            for i, asked in enumerate(QUESTIONS)
            for q in asked
        ]
    torch.testing.assert_close(ours, torch.cat(alone), atol=1e-5, rtol=0)
    assert ours.std() > 1e-3


def test_saved_folder_loads_as_any_other_model(packed, tmp_path):
    vlm, processor = build_vlm(seed=3)
    vlm.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = YesNoReward(tmp_path, question="{prompt}", device="cpu")
    images = torch.rand(1, 4, 3, 96, 80, generator=torch.Generator().manual_seed(1))
    direct = YesNoReward((vlm, processor), question="{prompt}")
    torch.testing.assert_close(loaded(images, prompt="?"), direct(images, prompt="?"))
    assert loaded.answers.ids == (packed.yes, packed.no)


def test_word_presence_loss_falls_where_tokens_are_the_words(packed):
    table = packed.vlm.get_input_embeddings().weight[packed.words].detach()
    labels = torch.zeros(1, 1, 2, len(table))
    labels[0, 0, 0, 3] = labels[0, 0, 1, 5] = 1
    right = table[[3, 5]][None]
    wrong = table[[5, 3]][None]
    assert packed.presence_loss(right, labels) < packed.presence_loss(wrong, labels)
    labels[..., 3] = labels[..., 5] = torch.nan
    torch.testing.assert_close(
        packed.presence_loss(right, labels), packed.presence_loss(wrong, labels)
    )
