"""Run the notebooks of docs/tutorials and write their outputs into them:

    python docs/run_notebooks.py [NAME ...]

Needs the extra `docs`. The tests run the code of the notebooks too, with fewer steps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).parent / "tutorials"


def code_of(path: Path) -> list[str]:
    """The code cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run(path: Path) -> None:
    """Execute a notebook in an empty folder and save it with its outputs."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    # a terminal's progress bars and warnings are not part of the lesson
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Run notebooks and keep their outputs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="without suffix; default: all")
    names = parser.parse_args().names or sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    for name in names:
        start = time.monotonic()
        run(FOLDER / f"{name}.ipynb")
        print(f"{name}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
