import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlmreward_3d.blocks.world import dataset
from vlmreward_3d.blocks.world.augment import augment_and_composite
from vlmreward_3d.blocks.world.captions import PRESENCE_WORDS, RICH_WORDS
from vlmreward_3d.blocks.world.questions import _WORD, QuestionSampler, word_labels
from vlmreward_3d.blocks.world.raycast import raycast
from vlmreward_3d.blocks.world.scenes import COLORS, SHAPES, sample_scene


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(dataset, "SHARD", 12)
    folder = tmp_path_factory.mktemp("scenes")
    paths = [folder / f"shard-{i:04d}.safetensors" for i in range(2)]
    for i, path in enumerate(paths):
        dataset._render_shard((path, 5, i, 12, 0.4, 0.0, False))
    yield folder, dataset.load_dataset(folder)
    patch.undo()


def test_shards_are_reproducible_and_differ(rendered, tmp_path):
    folder, data = rendered
    again = tmp_path / "again.safetensors"
    dataset._render_shard((again, 5, 1, 12, 0.4, 0.0, False))
    assert again.read_bytes() == (folder / "shard-0001.safetensors").read_bytes()
    assert data.scenes[:12] != data.scenes[12:]
    assert data.rgba.shape == (24, 8, 64, 64, 4)


def test_a_folder_of_another_recipe_is_refused(rendered):
    folder, _ = rendered
    (folder / "recipe.json").write_text('{"seed": 5}')
    with pytest.raises(ValueError, match="choose another folder"):
        dataset.render_dataset(folder, 24, seed=6)


def test_words_are_where_the_things_are(rendered):
    _, data = rendered
    i = next(i for i, s in enumerate(data.scenes) if s.flaw is None and s.relation == "on top of")
    labels = word_labels(data.scenes[i], data.coverage[i])
    top, bottom = data.scenes[i].things
    word = PRESENCE_WORDS.index
    true = labels == 1
    # where the upper thing is seen, so are its own words
    assert true[..., word("top")].any()
    assert (~true[..., word("top")] | true[..., word(top.shape)]).all()
    assert (~true[..., word("below")] | true[..., word(bottom.color)]).all()
    rows = torch.arange(16) // 4
    height = [rows.expand(8, 16)[true[..., word(w)]].float().mean() for w in ("top", "below")]
    assert height[0] < height[1]
    nothing = data.coverage[i].flatten(1, 2).float().sum(-1) == 0
    assert labels[nothing].nan_to_num(1.0).max() == 0


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_batches_are_reproducible_and_complete(rendered, views):
    _, data = rendered
    batch = QuestionSampler(data, 3).draw(7, 4, views=views)
    again = QuestionSampler(data, 3).draw(7, 4, views=views)
    assert batch.questions == again.questions
    assert batch.rgba.shape == (4, views, 64, 64, 4)
    assert batch.words.shape == (4, views, 16, len(PRESENCE_WORDS + RICH_WORDS))
    assert all(batch.questions)
    asked = {q.kind for asked in batch.questions for q in asked}
    assert any(k.startswith("geometry") for k in asked) == (views >= 4)


def test_mirrored_batches_keep_pixels_and_words_together(rendered):
    _, data = rendered
    colors = [PRESENCE_WORDS.index(c) for c in COLORS]
    flipped = 0
    for number in range(6):
        batch = QuestionSampler(data, 3).draw(number, 8, stage="simple")
        opaque = F.avg_pool2d(batch.rgba[..., 3].float() / 255, 16).flatten(2)
        known = batch.words[..., colors].nan_to_num(0.0).amax(-1) > 0
        # where a color word is true, something is seen, in mirrored views too
        assert opaque[known].min() > 0.15
        original = data.rgba.flatten(0, 1)
        seen = batch.rgba.flatten(0, 1)
        plain = torch.stack([(original == view).flatten(1).all(1).any() for view in seen])
        mirror = torch.stack([(original == view.flip(1)).flatten(1).all(1).any() for view in seen])
        assert (plain | mirror).all()
        flipped += int((mirror & ~plain).sum())
    assert 0.3 < flipped / (6 * 8 * 4) < 0.7


def test_the_last_stage_asks_more_about_mixed_views(rendered):
    _, data = rendered

    def share(stage):
        batches = [QuestionSampler(data, 3).draw(n, 8, stage=stage) for n in range(12)]
        asked = [q for b in batches for per_scene in b.questions for q in per_scene]
        return np.mean([q.kind == "geometry: mixed" for q in asked])

    assert share("flaws") > 1.5 * share("all")


def test_damage_stays_in_range_and_clean_views_stay_clean(rendered):
    _, data = rendered
    g = torch.Generator().manual_seed(0)
    views = data.rgba[:6, :4]
    damaged = augment_and_composite(views, g)
    assert damaged.min() >= 0
    assert damaged.max() <= 1
    clean = augment_and_composite(views, g, strength=0)
    alpha = views[..., 3:].permute(0, 1, 4, 2, 3) == 255
    solid = views[..., :3].permute(0, 1, 4, 2, 3) / 255
    torch.testing.assert_close(clean[alpha.expand_as(clean)], solid[alpha.expand_as(clean)])
    gone = augment_and_composite(
        views, torch.Generator().manual_seed(1), strength=0, fade=torch.zeros(6)
    )
    other = augment_and_composite(
        views.flip(0), torch.Generator().manual_seed(1), strength=0, fade=torch.zeros(6)
    )
    torch.testing.assert_close(gone, other)


def test_what_has_no_front_is_not_what_its_name_says():
    rng = np.random.default_rng(4)
    scenes = [sample_scene(rng, flaw="no front") for _ in range(8)]
    generator = torch.Generator().manual_seed(0)
    views = [raycast(s, dataset.sample_cameras(generator), 64) for s in scenes]
    rgba = torch.stack([(v.rgba * 255).round().to(torch.uint8) for v in views])
    cells = torch.stack([v.coverage.reshape(8, 4, 16, 4, 16, -1).mean((2, 4)) for v in views])
    data = dataset.BlocksData(
        scenes * 2, rgba.repeat(2, 1, 1, 1, 1), cells.repeat(2, 1, 1, 1, 1), cells
    )
    sampler = QuestionSampler(data, 0)
    sampler.clean = sampler.flawed  # all that there is
    batch = sampler.draw(0, 40, stage="flaws", views=4)
    for facts, asked in zip(batch.facts, batch.questions):
        if facts is None or not facts.words:  # mixed views, or nothing to be seen
            continue
        for question in asked:
            named = any(f" {shape}" in question.text for shape in SHAPES)
            assert named == (question.kind == "no front")
            if named:
                assert not question.yes
    kinds = [q for asked in batch.questions for q in asked]
    assert {q.yes for q in kinds if q.kind == "color"} == {True, False}
    assert any(q.yes for q in kinds if q.kind == "geometry: sound")
    shown = [_WORD[scene.things[0].shape] for scene in scenes]
    for scene, cover, word in zip(scenes, cells, shown):
        assert word_labels(scene, cover)[..., word].isnan().all()
