import csv
import json

import pytest
import score_images
import torch
from PIL import Image
from torchvision.utils import save_image

from vlmreward import YesNoReward
from vlmreward.images.io import load_image


def table(folder):
    return json.loads((folder / "scores.json").read_text())


def test_the_default_run_scores_its_own_pictures(tmp_path, capsys):
    assert score_images.main(["--out", str(tmp_path)]) == 0
    rows = table(tmp_path)
    assert len(rows) == 9
    for row in rows:
        fits = row["prompt"].replace(" ", "-") in row["image"]
        assert (row["reward"] > 0) == fits
        assert row["p_yes"] == pytest.approx(1 / (1 + 2.718281828 ** -row["reward"]), abs=1e-4)
    with (tmp_path / "scores.csv").open() as file:
        assert [float(row["reward"]) for row in csv.DictReader(file)] == [r["reward"] for r in rows]
    assert "a green mug" in capsys.readouterr().out


def test_files_and_folders_of_different_sizes(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    sizes = {"b.PNG": (30, 40), "a.png": (64, 64)}
    for name, size in sizes.items():
        save_image(torch.rand(3, *size), folder / name)
    (folder / "notes.txt").write_text("no picture")
    Image.new("L", (20, 20), 128).save(tmp_path / "gray.jpg")
    words = [
        folder,
        tmp_path / "gray.jpg",
        "--prompt",
        "a red cube",
        "--batch",
        2,
        "--out",
        tmp_path,
    ]
    assert score_images.main([str(word) for word in words]) == 0
    rows = table(tmp_path)
    assert [row["image"].rsplit("/", 1)[1] for row in rows] == ["a.png", "b.PNG", "gray.jpg"]
    image = load_image(folder / "b.PNG").image
    expected = float(YesNoReward("builtin/blocks", device="cpu")(image[None], prompt="a red cube"))
    assert rows[1]["reward"] == pytest.approx(expected, abs=1e-3)


def test_bad_input(refused, tmp_path, capsys):
    main = score_images.main
    words = ["--prompt", "a cube", "--out", tmp_path]
    assert "no images in the folder" in refused(main, tmp_path, *words)
    assert "no such file" in refused(main, tmp_path / "none.png", *words)
    (tmp_path / "broken.png").write_text("no picture")
    assert "cannot read" in refused(main, tmp_path / "broken.png", *words)
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "expected a --prompt" in capsys.readouterr().err
