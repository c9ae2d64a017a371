"""Live view of a run in the browser, by the optional dependency viser."""

from __future__ import annotations

import contextlib
import io
import queue
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import torch

from vlmreward.utils.arguments import whole
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.vlm3d import VLM3D, StepReport

__all__ = ["LiveView", "camera_of"]


class LiveView:
    """A web page that shows the field from the reader's camera, and the run's metrics.

    Pictures are rendered in the thread of the training, between two steps, so that no parameter
    changes during the rendering; the model is only read, and its random state not used. A run has
    the same result with and without a viewer; only the time for the pictures is added.

    Args:
        port: Port of the page; 0 takes a free port.
        host: Address that the server listens on; "0.0.0.0" admits other machines.
        every: Steps between pictures.
        size: Height of the pictures in pixels.

    Raises:
        ImportError: viser is not installed.
        ValueError: The page cannot be served there: the port is taken, or not for this user.
    """

    def __init__(
        self, port: int = 8080, *, host: str = "127.0.0.1", every: int = 5, size: int = 160
    ) -> None:
        try:
            import viser
        except ImportError:
            raise ImportError(
                "received a wish to watch without viser; expected it to be installed; "
                "run `pip install 'vlmreward[view]'`"
            ) from None
        whole("every", every)
        whole("size", size)
        self.every = every
        self.size = size
        self._failed = False
        _require_free(host, port)
        with _silent():
            self.server = _started(lambda: viser.ViserServer(host=host, port=port, verbose=False))
        self.server.scene.set_up_direction("+z")
        self.server.initial_camera.position = (1.8, 0.7, 0.8)
        self._text = self.server.gui.add_markdown("waiting for the first step")

    @property
    def port(self) -> int:
        """Port of the page."""
        return self.server.get_port()

    def __call__(self, model: VLM3D, report: StepReport) -> None:
        """Show the model after a step, if a picture is due.

        Trouble of the server or a browser ends the view with a warning, and not the run.
        """
        if self._failed or report.step % self.every:
            return
        try:
            self._show(model, report)
        except Exception as error:
            self._failed = True
            warnings.warn(f"the view has ended ({error}); the run goes on without it", stacklevel=2)

    def _show(self, model: VLM3D, report: StepReport) -> None:
        self._text.content = _numbers(model, report)
        clients = self.server.get_clients().values()
        if not clients:
            return
        field = model.field.for_evaluation()
        for client in clients:
            eye = client.camera
            cameras = camera_of(eye.wxyz, eye.position, eye.fov).to(model.device)
            picture = next(field.render_images(cameras, self.size, n_samples=32))
            pixels = (picture * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            client.scene.set_background_image(
                _widened(pixels, eye.aspect), format="jpeg", jpeg_quality=92
            )

    def __enter__(self) -> LiveView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _silent(), contextlib.suppress(Exception):
            self.server.stop()


def _silent() -> contextlib.redirect_stdout[io.StringIO]:
    """Context that drops viser's messages on standard output, which is for results."""
    return contextlib.redirect_stdout(io.StringIO())


def _require_free(host: str, port: int) -> None:
    """Refuse a port that is taken or forbidden: viser would take the next one, or wait forever.

    Raises:
        ValueError: The port cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if sys.platform != "win32":  # as servers do; a closed connection does not count there
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"received port {port} of {host} for the view, which cannot be listened on ({reason}); "
            "expected a free one; pass another, or 0 for any"
        ) from None


def _started(start: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The result of `start`, waited for at most this long.

    Raises:
        ValueError: `start` has failed or has not returned in time.
    """
    started: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            started.put(start())
        except Exception as error:
            started.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        result = started.get(timeout=seconds)
    except queue.Empty:
        result = TimeoutError(f"no answer in {seconds:g} s")
    if isinstance(result, Exception):
        raise ValueError(
            f"received a wish to watch, but the page cannot be served ({result}); expected a "
            "server that starts; pass another port, or leave --viewer-port out"
        ) from result
    return result


def camera_of(wxyz: np.ndarray, position: np.ndarray, fov: float) -> Cameras:
    """The browser's camera as `Cameras`, float32 on the CPU.

    Args:
        wxyz: (4,) unit quaternion, camera to world, in OpenCV's frame: right, down, forward.
        position: (3,) in the world.
        fov: Vertical field of view in radians.
    """
    w, x, y, z = (float(q) for q in wxyz)
    right = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    down = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    forward = (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y))
    c2w = torch.eye(4)
    c2w[:3, 0] = torch.tensor(right)
    c2w[:3, 1] = -torch.tensor(down)
    c2w[:3, 2] = -torch.tensor(forward)
    c2w[:3, 3] = torch.as_tensor(np.asarray(position), dtype=torch.float32)
    return Cameras(c2w[None], torch.tensor([float(fov)]))


def _widened(pixels: np.ndarray, aspect: float) -> np.ndarray:
    """A square picture in the aspect ratio of a window: cropped, or with white at the sides."""
    side = len(pixels)
    width = max(1, round(side * aspect))
    if width <= side:
        left = (side - width) // 2
        return pixels[:, left : left + width]
    left = (width - side) // 2
    return np.pad(pixels, ((0, 0), (left, width - side - left), (0, 0)), constant_values=255)


def _numbers(model: VLM3D, report: StepReport) -> str:
    lines = [f"**step** {report.step + 1} of {model.config.steps}"]
    lines += [f"**{name}** {value:.3g}" for name, value in report.headline.items()]
    return "\n\n".join(lines)
