"""The live view: a real server, and a run that does not notice it."""

import socket
import sys
import threading
import urllib.request

import numpy as np
import pytest
import torch
from stub_models import RandomDenoiser, build_vlm3d, redness, tiny

from vlmreward_3d.cameras import orbit
from vlmreward_3d.training.run_directory import RunDirectory
from vlmreward_3d.training.trainer import train
from vlmreward_3d.training.viewer import LiveView, _started, _widened, camera_of
from vlmreward_3d.vlm3d import VLM3D


class Client:
    """A stand-in for viser's handle of a browser, with the pictures that were sent to it."""

    def __init__(self, position, wxyz) -> None:
        self.camera = self
        self.scene = self
        self.position, self.wxyz = np.array(position), np.array(wxyz)
        self.fov, self.aspect = 0.7, 1.5
        self.pictures: list[np.ndarray] = []

    def set_background_image(self, picture, **_) -> None:
        self.pictures.append(picture)


# from +x, looking back at the origin, z up: right is +y, down -z, forward -x
FRONT = Client((3.0, 0.0, 0.0), (0.5, -0.5, -0.5, 0.5))


def run(folder, watch=None, **changes) -> tuple[VLM3D, str]:
    config = tiny(steps=6, **changes)
    model = build_vlm3d(config, RandomDenoiser(), redness)
    train(model, RunDirectory(folder, config), progress=False, watch=watch)
    return model, (folder / "metrics.jsonl").read_text()


@pytest.mark.parametrize("changes", [{}, {"field": "gaussians", "field.n_gaussians": 50}])
def test_the_server_answers_and_the_run_is_the_same_bit_for_bit(changes, tmp_path, monkeypatch):
    pytest.importorskip("viser")
    alone, log = run(tmp_path / "alone", **changes)
    answers = []
    with LiveView(0, every=2, size=16) as view:
        client = Client(FRONT.position, FRONT.wxyz)
        monkeypatch.setattr(view.server, "get_clients", lambda: {0: client})

        def watch(model, report):
            view(model, report)
            with urllib.request.urlopen(f"http://127.0.0.1:{view.port}", timeout=30) as answer:
                answers.append(answer.status)

        watched, same_log = run(tmp_path / "watched", watch, **changes)
    assert answers == [200] * 6
    assert len(client.pictures) == 3
    assert client.pictures[-1].shape == (16, 24, 3)
    assert client.pictures[-1].std() > 0
    assert same_log == log
    for name, value in watched.state().items():
        assert torch.equal(value, alone.state()[name]), name


def test_the_browsers_camera_is_ours():
    camera = camera_of(FRONT.wxyz, FRONT.position, FRONT.fov)
    expected = orbit(0.0, 0.0, 3.0, float(np.degrees(FRONT.fov)))
    torch.testing.assert_close(camera.c2w, expected.c2w)
    torch.testing.assert_close(camera.fov, expected.fov)
    model = build_vlm3d(tiny(), RandomDenoiser(), redness)
    model.field.update_occupancy()
    pictures = [next(model.field.render_images(c, 12, n_samples=64)) for c in (camera, expected)]
    torch.testing.assert_close(pictures[0], pictures[1])


def test_a_turned_camera_keeps_its_axes():
    """30 degrees around z, after looking along +x: cos and sin in the right places."""
    half = np.radians(15)
    turn = np.array([np.cos(half), 0, 0, np.sin(half)])
    w, x, y, z = FRONT.wxyz
    c, s = turn[0], turn[3]
    both = np.array([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w])
    position = 3 * np.array([np.cos(np.radians(30)), np.sin(np.radians(30)), 0])
    expected = orbit(30.0, 0.0, 3.0, 40.0)
    torch.testing.assert_close(camera_of(both, position, 0.7).c2w, expected.c2w)


def test_pictures_are_cut_or_filled_up_to_the_windows_shape():
    square = np.zeros((8, 8, 3), dtype=np.uint8)
    wide = _widened(square, 2.0)
    assert wide.shape == (8, 16, 3)
    assert (wide[:, :4] == 255).all()
    assert (wide[:, 4:12] == 0).all()
    assert _widened(square, 0.5).shape == (8, 4, 3)


def test_a_missing_viser_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ImportError, match=r"pip install 'vlmreward\[view\]'"):
        LiveView(0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("taken", [True, False])
def test_a_port_that_cannot_be_listened_on_is_refused_at_once(taken):
    """viser itself goes on to the next port, or waits forever."""
    pytest.importorskip("viser")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1] if taken else 99999
        with pytest.raises(ValueError, match=f"received port {port} of 127.0.0.1.*pass another"):
            LiveView(port)


@pytest.mark.timeout(60)
def test_a_server_that_does_not_start_is_not_waited_for():
    def fail():
        raise RuntimeError("no loop")

    with pytest.raises(ValueError, match=r"cannot be served \(no loop\)"):
        _started(fail)
    with pytest.raises(ValueError, match=r"cannot be served \(no answer in 0.05 s\)"):
        _started(lambda: threading.Event().wait(), seconds=0.05)


def test_trouble_of_the_server_ends_the_view_and_not_the_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("viser")
    asked = []

    def clients():
        asked.append(1)
        raise RuntimeError("the loop is closed")

    with LiveView(0, every=1, size=16) as view:
        monkeypatch.setattr(view.server, "get_clients", clients)
        with pytest.warns(UserWarning, match=r"the view has ended \(the loop is closed\)"):
            run(tmp_path, view)
    assert len(asked) == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 6
    assert capsys.readouterr().out == ""  # the server does not announce its end
