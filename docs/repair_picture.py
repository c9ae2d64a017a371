"""Draw docs/images/repair.png, the first assets of docs/images/coarse.png with their prompts:

python docs/repair_picture.py
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).parent
PROMPTS = DOCS.parent / "examples/evaluation/pairs.txt"
ROWS = ("score distillation\nalone", "with the reward\nof a VLM")
COUNT, SIDE, LEFT, BELOW = 8, 128, 170, 50
"""Number of assets; side of a view, width of the rows' names and height of the prompts, in px."""


def main() -> None:
    """Crop, label and save."""
    sheet = Image.open(DOCS / "images/coarse.png")  # four prompts a row, two views of each
    picture = Image.new("RGB", (LEFT + COUNT * SIDE, 2 * SIDE + BELOW), "white")
    draw = ImageDraw.Draw(picture)
    name, text = ImageFont.load_default(17), ImageFont.load_default(13)
    for row, words in enumerate(ROWS):
        draw.text((10, (row + 0.5) * SIDE), words, "black", name, anchor="lm")
    for i, prompt in enumerate(PROMPTS.read_text(encoding="utf-8").splitlines()[:COUNT]):
        block, column = divmod(i, 4)
        for row in range(2):
            left, top = 2 * column * SIDE, (2 * block + row) * SIDE
            view = sheet.crop((left, top, left + SIDE, top + SIDE))
            picture.paste(view, (LEFT + i * SIDE, row * SIDE))
        words = textwrap.fill(prompt, 17)
        draw.text((LEFT + (i + 0.5) * SIDE, 2 * SIDE), words, "black", text, "ma", align="center")
    picture.save(DOCS / "images/repair.png")


if __name__ == "__main__":
    main()
