"""Image files of every kind against what Pillow or the format itself says is in them."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from vlmreward.images.find import find_images
from vlmreward.images.io import ImageFileError, load_image

rng = np.random.default_rng(0)
RGB = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
GRAY = rng.integers(0, 256, (12, 16), dtype=np.uint8)


def unit(array):
    return torch.from_numpy(array.astype(np.float32) / 255).movedim(-1, 0)


def same(loaded, expected):
    assert loaded.image.dtype == torch.float32
    assert loaded.image.is_contiguous()
    torch.testing.assert_close(loaded.image, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm"])
def test_rgb_is_taken_as_it_is(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(RGB).save(path)
    loaded = load_image(path)
    same(loaded, unit(RGB))
    assert (loaded.path, loaded.conversions) == (path, ())


def test_gray(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "x.png")
    loaded = load_image(tmp_path / "x.png")
    same(loaded, unit(np.stack([GRAY] * 3, -1)))
    assert loaded.conversions == ("gray to RGB",)


def test_black_and_white(tmp_path):
    Image.fromarray(GRAY > 127).save(tmp_path / "x.png")
    loaded = load_image(tmp_path / "x.png")
    same(loaded, torch.from_numpy(GRAY > 127).float().expand(3, -1, -1))
    assert loaded.conversions == ("black and white to RGB",)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_kept(tmp_path, suffix):
    """257 levels a step of 8 bits: neither cut off nor rounded."""
    levels = rng.integers(0, 65536, (12, 16), dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / f"x.{suffix}")
    loaded = load_image(tmp_path / f"x.{suffix}")
    expected = torch.from_numpy(levels.astype(np.float32) / 65535).expand(3, -1, -1)
    same(loaded, expected)
    assert loaded.conversions == ("16-bit gray to RGB",)


@pytest.mark.parametrize(("background", "name"), [(1.0, "white"), (0.25, "0.25")])
def test_transparency(tmp_path, background, name):
    alpha = rng.integers(0, 256, (12, 16), dtype=np.uint8)
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "x.png")
    loaded = load_image(tmp_path / "x.png", background=background)
    a = torch.from_numpy(alpha / 255).float()
    same(loaded, unit(RGB) * a + background * (1 - a))
    assert loaded.conversions == ("RGBA to RGB", f"transparency over {name}")


def test_gray_with_transparency(tmp_path):
    alpha = 255 - GRAY
    Image.fromarray(np.dstack([GRAY, alpha])).save(tmp_path / "x.png")
    loaded = load_image(tmp_path / "x.png")
    a = torch.from_numpy(alpha / 255).float()
    same(loaded, unit(np.stack([GRAY] * 3, -1)) * a + (1 - a))
    assert loaded.conversions == ("gray with transparency to RGB", "transparency over white")


def test_palette(tmp_path):
    image = Image.fromarray(GRAY % 4)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    image.save(tmp_path / "x.png")
    table = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], dtype=np.uint8)
    loaded = load_image(tmp_path / "x.png")
    same(loaded, unit(table[GRAY % 4]))
    assert loaded.conversions == ("palette to RGB",)
    image.save(tmp_path / "clear.png", transparency=3)
    loaded = load_image(tmp_path / "clear.png")
    table[3] = 255
    same(loaded, unit(table[GRAY % 4]))
    assert loaded.conversions == ("palette to RGB", "transparency over white")


def test_orientation(tmp_path):
    """6: turn by 90 degrees clockwise to see it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "x.png", exif=exif)
    loaded = load_image(tmp_path / "x.png")
    same(loaded, unit(np.rot90(RGB, -1).copy()))
    assert loaded.conversions == ("turned as its EXIF orientation says",)


def test_cmyk_and_animations(tmp_path):
    Image.new("CMYK", (16, 12), (0, 255, 255, 0)).save(tmp_path / "x.tiff")
    loaded = load_image(tmp_path / "x.tiff")
    same(loaded, torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 12, 16))
    assert loaded.conversions == ("CMYK to RGB",)
    frames = [Image.new("RGB", (16, 12), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    loaded = load_image(tmp_path / "x.gif")
    same(loaded, torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 12, 16))
    assert loaded.conversions == ("first of 2 frames", "palette to RGB")


def test_what_cannot_be_read(tmp_path):
    def refused(name, message):
        with pytest.raises(ImageFileError, match=message):
            load_image(tmp_path / name)

    refused("none.png", r"cannot read .*none.png: no such file")
    (tmp_path / "folder.png").mkdir()
    refused("folder.png", "a folder")
    (tmp_path / "text.png").write_text("hello")
    refused("text.png", "not an image")
    Image.fromarray(RGB).save(tmp_path / "x.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "x.png").read_bytes()[:200])
    refused("half.png", "truncated")
    Image.fromarray(GRAY.astype(np.float32)).save(tmp_path / "float.tiff")
    refused("float.tiff", "floats of an unknown range; expected 8 or 16 bits")
    Image.fromarray(GRAY.astype(np.int32)).save(tmp_path / "int.tiff")
    refused("int.tiff", "32-bit integers of an unknown range")
    Image.new("RGB", (603, 3)).save(tmp_path / "thin.png")
    refused("thin.png", "the image is 3x603, an aspect ratio of 201")


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(RGB[:11, :15]).save(tmp_path / "x.png")  # 165, of which Pillow only warns
    with pytest.raises(ImageFileError, match="exceeds limit"):
        load_image(tmp_path / "x.png")


def test_find_images(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", "inside/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(*patterns):
        paths = find_images([tmp_path / p for p in patterns])
        return [p.relative_to(tmp_path).as_posix() for p in paths]

    assert found(".") == ["a.JPG", "b.png"]
    assert found("b.png", ".", "b.png") == ["b.png", "a.JPG"]
    assert found("*.png", "none.png", "notes.txt") == ["b.png", "none.png", "notes.txt"]
    assert found("**/*.webp") == ["inside/c.webp"]
    (tmp_path / "[1].png").touch()
    assert found("[1].png") == ["[1].png"]
    with pytest.raises(ImageFileError, match=r"nothing matches .*q\*"):
        found("q*")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageFileError, match="no images in the folder"):
        found("empty")


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bits_of_colors_become_8_and_it_is_said(tmp_path, channels):
    levels = rng.integers(0, 65536, (12, 16, channels), dtype=np.uint16)
    levels[..., 3:] = 65535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 16, 12, 16, 2 if channels == 3 else 6, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    loaded = load_image(tmp_path / "deep.png")
    assert loaded.conversions[0] == "16-bit colors to 8 bits"
    expected = torch.from_numpy(levels[..., :3].astype(np.float32) / 65535).permute(2, 0, 1)
    torch.testing.assert_close(loaded.image, expected, atol=1 / 255, rtol=0)
