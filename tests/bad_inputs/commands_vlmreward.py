"""``vlmreward score``, ``doctor`` and ``explain``."""

_SCORE = "vlmreward score picture.png --prompt cube"
_EXPLAIN = "vlmreward explain picture.png --prompt cube"
_DOCTOR = "vlmreward doctor builtin/blocks --quick"
_META = "vlmreward doctor builtin/blocks --meta"


def _outputs(command: str, option: str, suffix: str) -> list[tuple[str, str, int, str]]:
    """An output that cannot be written, in every way that there is."""
    name = command.split()[1]
    cases = [
        ("a folder", "full", r"full.*it is a folder.*expected"),
        ("no folder", f"nowhere/a{suffix}", r"no folder nowhere.*expected|nowhere.*expected"),
        ("below a file", f"note.txt/a{suffix}", r"note\.txt.*expected"),
        ("empty", '""', r"received an empty --(out|json); expected"),
        ("a pseudo folder", f"/proc/a{suffix}", r"/proc/a.*expected"),
        ("long", f"{'a' * 300}{suffix}", r"aaa.*expected"),
    ]
    return [
        (f"{name}: {option} {what}", f"{command} {option} {value}", 2, message)
        for what, value, message in cases
    ]


def _model_options(command: str) -> list[tuple[str, str, int, str]]:
    """Options of the model, which all commands have."""
    name = command.split()[1]
    cases = [
        ("device gpu", "--device gpu", r"'gpu'.*expected"),
        ("no device", '--device ""', r"device.*''.*expected|is empty.*expected"),
        ("device meta", "--device meta", r"meta.*expected"),
        ("no such GPU", "--device cuda:99", r"cuda:99.*expected"),
        ("dtype", "--dtype int8", r"--dtype: invalid choice: 'int8'.*|expected"),
        ("pixel mode", "--pixel-mode uint16", r"--pixel-mode: invalid choice: 'uint16'"),
        ("one answer", "--answers Yes", r"--answers: expected 2 arguments"),
        ("equal answers", "--answers Yes Yes", r"share the token.*expected"),
        ("an empty answer", '--answers Yes ""', r"--answers: received ''; expected"),
        ("braces", '--question "Is {prompt"', r"malformed.*expected placeholders"),
        ("a placeholder", '--question "Is {thing}?"', r"thing.*expected"),
        ("an unknown question", "--question paper/Z", r"'paper/Z'.*expected"),
        ("an empty question", '--question ""', r"question.*''.*expected"),
    ]
    return [
        (f"{name}: {what}", f"{command} {options}", 2, message) for what, options, message in cases
    ]


ROWS = [
    # --- the program
    ("vlmreward: nothing", "vlmreward", 2, r"required: COMMAND"),
    ("vlmreward: unknown", "vlmreward paint", 2, r"invalid choice: 'paint'"),
    ("vlmreward: an option", "vlmreward --verbose score", 2, r"unrecognized|required|invalid"),
    # --- score
    ("score: nothing", "vlmreward score", 2, r"required: IMAGE"),
    ("score: no prompt", "vlmreward score picture.png", 2, r"--prompt is missing; expected"),
    (
        "score: an empty prompt",
        'vlmreward score picture.png --prompt ""',
        2,
        r"--prompt: received ''; expected",
    ),
    (
        "score: a blank prompt",
        'vlmreward score picture.png --prompt " "',
        2,
        r"--prompt: received ' '; expected",
    ),
    ("score: no image", "vlmreward score nowhere.png --prompt cube", 2, r"nowhere\.png.*expected"),
    ("score: no match", "vlmreward score 'no*.png' --prompt cube", 2, r"nothing matches.*expected"),
    (
        "score: empty folder",
        "vlmreward score empty --prompt cube",
        2,
        r"no images in.*empty; expected",
    ),
    (
        "score: no pictures",
        "vlmreward score full --prompt cube",
        2,
        r"no images in.*full; expected",
    ),
    ("score: words", "vlmreward score note.txt --prompt cube", 2, r"note\.txt.*expected"),
    (
        "score: an empty name",
        'vlmreward score "" --prompt cube',
        2,
        r"IMAGE: received ''; expected",
    ),
    ("score: dangling", "vlmreward score dangling --prompt cube", 2, r"dangling.*expected"),
    ("score: truncated", "vlmreward score truncated.png --prompt cube", 2, r"truncated.*expected"),
    ("score: enormous", "vlmreward score bomb.png --prompt cube", 2, r"bomb.*expected"),
    ("score: thin", "vlmreward score thin.png --prompt cube", 2, r"ratio of 300.*expected"),
    ("score: integers", "vlmreward score integers.tif --prompt cube", 2, r"integers.*expected"),
    ("score: a pipe", "vlmreward score pipe --prompt cube", 2, r"pipe.*expected"),
    ("score: a device", "vlmreward score /dev/null --prompt cube", 2, r"/dev/null.*expected"),
    (
        "score: a bad view",
        "vlmreward score picture.png truncated.png --views --prompt x",
        2,
        r"truncated.*none is left out",
    ),
    ("score: batch 0", f"{_SCORE} --batch 0", 2, r"--batch.*0.*expected"),
    ("score: batch -4", f"{_SCORE} --batch -4", 2, r"--batch.*-4.*expected"),
    ("score: batch half", f"{_SCORE} --batch 1.5", 2, r"--batch.*'1\.5'.*expected"),
    ("score: batch a word", f"{_SCORE} --batch many", 2, r"--batch.*'many'.*expected"),
    ("score: format", f"{_SCORE} --format xml", 2, r"--format: invalid choice: 'xml'"),
    ("score: no model", f"{_SCORE} --model no/such-model", 2, r"no/such-model.*expected"),
    ("score: no folder", f"{_SCORE} --model ./nowhere", 2, r"nowhere.*expected"),
    ("score: a file", f"{_SCORE} --model note.txt", 2, r"note\.txt.*expected"),
    ("score: no builtin", f"{_SCORE} --model builtin/x", 2, r"builtin/x.*expected"),
    ("score: no name", f'{_SCORE} --model ""', 2, r"''.*expected|is empty.*expected"),
    (
        "score: prompt and no placeholder",
        f"{_SCORE} --question 'Is it a cube?'",
        2,
        r"has no \{prompt\}.*expected",
    ),
    ("score: a full disk", f"{_SCORE} --out device-full", 2, r"device-full.*[Nn]o space.*expected"),
    ("score: unknown", f"{_SCORE} --fast", 2, r"unrecognized arguments: --fast"),
    (
        "score: half a surrogate",
        "vlmreward score picture.png --prompt '\udcff'",
        2,
        r"UTF-8; expected",
    ),
    *_outputs(_SCORE, "--out", ".csv"),
    *_model_options(_SCORE),
    # --- explain
    ("explain: nothing", "vlmreward explain", 2, r"required: IMAGE, --out"),
    ("explain: no out", _EXPLAIN, 2, r"required: --out"),
    (
        "explain: no prompt",
        "vlmreward explain picture.png --out a.png",
        2,
        r"--prompt is missing; expect",
    ),
    (
        "explain: empty prompt",
        f"{_EXPLAIN} --out a.png --prompt ''",
        2,
        r"--prompt: received ''; expect",
    ),
    (
        "explain: sizes",
        "vlmreward explain picture.png smaller.png --prompt x --out a.png",
        2,
        r"48x48, 64x64; expected one size",
    ),
    (
        "explain: a bad one",
        "vlmreward explain picture.png truncated.png --prompt x --out a.png",
        2,
        r"truncated.*none is left out",
    ),
    (
        "score: none good",
        "vlmreward score note.txt empty.png --prompt x",
        2,
        r"none of the 2.*expected",
    ),
    ("explain: suffix", f"{_EXPLAIN} --out a.xyz", 2, r"a\.xyz; expected a file ending in"),
    ("explain: no suffix", f"{_EXPLAIN} --out picture", 2, r"picture; expected a file ending in"),
    ("explain: method", f"{_EXPLAIN} --out a.png --method lime", 2, r"invalid choice: 'lime'"),
    ("explain: steps 0", f"{_EXPLAIN} --out a.png --steps 0", 2, r"steps.*0.*expected"),
    ("explain: steps 3", f"{_EXPLAIN} --out a.png --steps 3", 2, r"steps.*3.*expected"),
    ("explain: steps half", f"{_EXPLAIN} --out a.png --steps 4.5", 2, r"steps.*'4\.5'.*expected"),
    ("explain: baseline", f"{_EXPLAIN} --out a.png --baseline 2", 2, r"'2'; expected a gray level"),
    ("explain: NaN", f"{_EXPLAIN} --out a.png --baseline nan", 2, r"'nan'; expected a gray level"),
    ("explain: black", f"{_EXPLAIN} --out a.png --baseline black", 2, r"'black'; expected a gray"),
    ("explain: no model", f"{_EXPLAIN} --out a.png --model ./nowhere", 2, r"nowhere.*expected"),
    *_outputs(_EXPLAIN, "--out", ".png")[1:4],
    *_model_options(f"{_EXPLAIN} --out a.png"),
    # --- doctor
    ("doctor: nothing", "vlmreward doctor", 2, r"required: MODEL"),
    ("doctor: no model", "vlmreward doctor no/such-model", 2, r"no/such-model.*expected"),
    ("doctor: no folder", "vlmreward doctor ./nowhere", 2, r"nowhere.*expected"),
    ("doctor: a file", "vlmreward doctor note.txt", 2, r"note\.txt.*expected"),
    ("doctor: an empty folder", "vlmreward doctor empty", 2, r"empty.*expected"),
    ("doctor: no name", 'vlmreward doctor ""', 2, r"''.*expected|is empty.*expected"),
    ("doctor: a GPU alone", f"{_DOCTOR} --gpu H100", 2, r"--gpu without --meta; expected both"),
    (
        "doctor: meta, no such GPU",
        f"{_META} --gpu H1",
        2,
        r"gpu is 'H1'; expected one of H200, H100",
    ),
    ("doctor: meta, quick", f"{_META} --quick", 2, r"--quick with --meta.*expected one"),
    ("doctor: meta, device", f"{_META} --device cpu", 2, r"--device with --meta.*expected one"),
    ("doctor: meta, no model", "vlmreward doctor ./nowhere --meta", 2, r"nowhere.*expected"),
    ("doctor: meta, empty", "vlmreward doctor empty --meta", 2, r"empty.*expected"),
    ("doctor: no prompt", f'{_DOCTOR} --prompt ""', 2, r"--prompt.*expected"),
    *_outputs(_DOCTOR, "--json", ".json")[:4],
    *[row for row in _model_options(_DOCTOR) if row[0] != "doctor: a placeholder"],
]

OUTPUTS = ["private.csv", "tool.sh", "link.png", "dangling", "pipe", "device-null"]
"""Keepsakes that ``vlmreward score`` may write, each in its own way."""

# noticed before torch is imported
_SCORE_TO = ["-m", "vlmreward", "score", "picture.png", "--prompt", "cube", "--out"]
PROCESSES = [
    (
        "LANG=C",
        ["-m", "vlmreward", "score", "picture.png", "--prompt", b"\xff"],
        {"LC_ALL": "C"},
        r"UTF-8; expected",
    ),
    (
        "ASCII",
        [*_SCORE_TO, "n\u00f6where/a.csv"],
        {"PYTHONIOENCODING": "ascii"},
        r"--out n\\xf6where/a\.csv, which cannot be written \(.*; expected",
    ),
    (
        "a name that is not UTF-8",
        [*_SCORE_TO, b"n\xffwhere/a.csv"],
        {"LC_ALL": "C.UTF-8"},
        r"where/a\.csv, which cannot be written \(.*; expected",
    ),
]
"""Arguments and environments that only a process of its own has."""
