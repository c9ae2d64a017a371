import json
import os
import signal
import threading
import time
from pathlib import Path

import generate_many
import pytest
from PIL import Image

PROMPTS = [f"thing number {i}" for i in range(8)]


def quickly(prompts, out, **options):
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "support")
    return generate_many.make_all(prompts, out, [], module="quick_asset", workers=2, **options)


def kill_one(out, killed):
    """SIGKILL to the worker that is first seen at its third step."""
    for _ in range(600):
        for pids in out.glob("*/pids"):
            lines = pids.read_text().split()
            if len(lines) >= 3:
                killed.append((pids.parent, int(lines[-1])))
                os.kill(killed[0][1], signal.SIGKILL)
                return
        time.sleep(0.05)


@pytest.mark.timeout(240)
def test_all_are_made_while_a_worker_is_killed_and_none_twice(tmp_path):
    killed = []
    killer = threading.Thread(target=kill_one, args=(tmp_path, killed))
    killer.start()
    outcomes = quickly(PROMPTS, tmp_path)
    killer.join()
    assert [outcome.prompt for outcome in outcomes] == PROMPTS
    assert {outcome.status for outcome in outcomes} == {"made"}
    ((folder, pid),) = killed
    pids = (folder / "pids").read_text().split()
    assert str(pid) in pids
    assert len(set(pids)) == 2  # another process went on
    assert len(pids) <= 7  # from where the first one was, with one step at most done again
    for other in generate_many.folders(PROMPTS, tmp_path):
        assert (other / "steps").read_text() == "6"
        if other != folder:
            assert len((other / "pids").read_text().split()) == 6

    again = quickly([*PROMPTS, "one more", "a wrong one"], tmp_path, retries=1)
    assert [o.status for o in again] == ["there already"] * 8 + ["made", "failed"]
    assert again[-1].reason == "error: there is no such thing"
    assert len((Path(again[-1].folder) / "log.txt").read_text().splitlines()) == 2  # one retry


def test_prompts_of_a_file(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a red cube\n\n# not this\n a red cube \nZwölf Äpfel!\n…\n")
    prompts = generate_many.read_prompts(file)
    assert prompts == ["a red cube", "Zwölf Äpfel!", "…"]
    names = [folder.name for folder in generate_many.folders(prompts, tmp_path)]
    assert names == ["000-a-red-cube", "001-zw-lf-pfel", "002-asset"]


def test_the_sheet_has_a_picture_of_each(tmp_path):
    outcomes = []
    for i, color in enumerate(["red", "blue"]):
        (tmp_path / str(i)).mkdir()
        Image.new("RGB", (80, 40), color).save(tmp_path / str(i) / "views.png")
        outcomes.append(generate_many.Outcome(f"a {color} thing", str(tmp_path / str(i)), "made"))
    assert generate_many.sheet(outcomes[:0], tmp_path / "none.png") is None
    generate_many.sheet(outcomes, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 24)}
    assert {(255, 0, 0), (0, 0, 255)} <= colors


def test_failures_are_in_the_summary_and_in_the_exit_code(tmp_path, monkeypatch, refused):
    outcomes = [
        generate_many.Outcome("a", str(tmp_path / "a"), "made", 1.0),
        generate_many.Outcome("b", str(tmp_path / "b"), "failed", reason="out of memory"),
    ]
    monkeypatch.setattr(generate_many, "make_all", lambda *_, **__: outcomes)
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    line = refused(generate_many.main, tmp_path / "prompts.txt", "--out", tmp_path / "out")
    assert "1 of 2 failed" in line
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [entry["reason"] for entry in summary] == ["", "out of memory"]


def test_bad_input(tmp_path, refused, capsys):
    main = generate_many.main
    assert "cannot read" in refused(main, tmp_path / "none.txt", "--out", tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    assert "has no prompts" in refused(main, tmp_path / "empty.txt", "--out", tmp_path)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "empty.txt"), "--", "--out", "elsewhere"])
    assert "--out is behind --" in capsys.readouterr().err
