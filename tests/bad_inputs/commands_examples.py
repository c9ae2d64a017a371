"""The examples' commands."""

_3D = "text_to_3d 'a red cube' --out new"
_IMAGE = "optimize_image 'a red car' --out new"
_NOISE = "optimize_noise 'a red mug' --out new"
_LORA = "finetune_diffusion --out new"
_SCORE = "score_images picture.png --prompt cube --out new"
_VQA = "finetune_easy_vqa --out new"
_MANY = "generate_many prompts.txt --out new"
_ARENA = "arena full --mode pointwise --out new"
_TURN = "arena_export full --method ours --out new"
_PAPER = "benchmark_paper_scale"


def _numbers(command: str, option: str, bad: str) -> list[tuple[str, str, int, str]]:
    """An option with each of some bad numbers, of which argparse says what is expected."""
    name = command.split()[0]
    return [
        (
            f"{name}: {option} {value}",
            f"{command} {option}={value}",
            2,
            rf"{option}.*{value}.*expected",
        )
        for value in bad.split()
    ]


_COUNT = "0 -1 1.5 nan inf many ²"
_ABOVE = "0 -1 nan inf many"


def _places(command: str) -> list[tuple[str, str, int, str]]:
    """Folders that cannot be written, and devices that are not there."""
    words = command.split(" --out")[0]
    name = command.split()[0]
    return [
        (f"{name}: out a file", f"{words} --out note.txt", 2, r"note\.txt.*expected"),
        (f"{name}: out below a file", f"{words} --out note.txt/x", 2, r"note\.txt.*expected"),
        (f"{name}: out a pipe", f"{words} --out pipe", 2, r"pipe.*expected"),
        (f"{name}: out dangling", f"{words} --out dangling", 2, r"dangling.*expected"),
        (f"{name}: out empty", f'{words} --out ""', 2, r"--out.*expected"),
        (f"{name}: out nowhere", f"{words} --out /proc/x", 2, r"/proc/x.*expected"),
        *_devices(command),
    ]


def _devices(command: str, option: str = "--device") -> list[tuple[str, str, int, str]]:
    name = command.split()[0]
    return [
        (f"{name}: {option} gpu", f"{command} {option} gpu", 2, r"gpu.*expected"),
        (f"{name}: {option} empty", f'{command} {option} ""', 2, rf"{option} '' *.*; expected"),
        (f"{name}: {option} meta", f"{command} {option} meta", 2, r"meta.*expected"),
        (f"{name}: {option} cuda:99", f"{command} {option} cuda:99", 2, r"cuda:99.*expected"),
    ]


ROWS = [
    # --- text_to_3d
    ("text_to_3d: nothing", "text_to_3d", 2, r"required: PROMPT"),
    ("text_to_3d: no prompt", 'text_to_3d ""', 2, r"PROMPT: received ''; expected"),
    ("text_to_3d: blank", 'text_to_3d " " --out new', 2, r"PROMPT: received ' '; expected"),
    ("text_to_3d: signs", "text_to_3d '???'", 2, r"'\?\?\?'; expected some words"),
    ("text_to_3d: preset", f"{_3D} --preset fast", 2, r"invalid choice: 'fast'"),
    ("text_to_3d: field", f"{_3D} --field mesh", 2, r"invalid choice: 'mesh'"),
    ("text_to_3d: template", f"{_3D} --question C", 2, r"invalid choice: 'C'"),
    ("text_to_3d: both", f"{_3D} --resume --overwrite", 2, r"not allowed with"),
    (
        "text_to_3d: questions",
        f"{_3D} --separate-questions --no-geometry-question",
        2,
        r"not allowed with",
    ),
    ("text_to_3d: mesh", f"{_3D} --export stl", 2, r"'stl'; expected some of"),
    ("text_to_3d: meshes", f"{_3D} --export glb,,obj", 2, r"''; expected some of"),
    ("text_to_3d: seed", f"{_3D} --seed {2**63}", 2, rf"--seed.*{2**63}.*expected"),
    *_numbers(_3D, "--steps", _COUNT),
    *_numbers(_3D, "--seed", "-1 1.5 nan zero"),
    *_numbers(_3D, "--vlm-interval", "0 1.5"),
    *_numbers(_3D, "--vlm-grad-ratio", _ABOVE),
    *_numbers(_3D, "--vlm-max-grad-ratio", _ABOVE),
    *_numbers(_3D, "--rays-per-chunk", "0 1.5"),
    *_numbers(_3D, "--threads", "0 1.5 99999999999"),
    *_numbers(_3D, "--viewer-port", "-1 70000 99999 http"),
    ("text_to_3d: denoiser", f"{_3D} --denoiser no/such-model", 2, r"no/such-model.*expected"),
    ("text_to_3d: denoiser ''", f'{_3D} --denoiser ""', 2, r"denoiser.*expected"),
    ("text_to_3d: a file", f"{_3D} --denoiser note.txt", 2, r"note\.txt.*expected"),
    ("text_to_3d: no file", f"{_3D} --denoiser nowhere.pt", 2, r"nowhere\.pt.*expected"),
    ("text_to_3d: no parts", f"{_3D} --denoiser ./empty", 2, r"empty.*expected"),
    ("text_to_3d: vlm", f"{_3D} --vlm no/such-model", 2, r"no/such-model.*expected"),
    ("text_to_3d: vlm ''", f'{_3D} --vlm ""', 2, r"vlm.*expected"),
    ("text_to_3d: vlm a file", f"{_3D} --vlm note.txt", 2, r"note\.txt.*expected"),
    ("text_to_3d: nothing to ask", f"{_3D} --no-vlm --vlm paligemma", 2, r"--vlm.*expected"),
    ("text_to_3d: cache alone", f"{_3D} --vlm-cache-gradient", 2, r"--vlm-cache.*expected"),
    (
        "text_to_3d: chunks",
        f"{_3D} --field gaussians --rays-per-chunk 9",
        2,
        r"--rays-per-chunk.*expected",
    ),
    ("text_to_3d: grids", f"{_3D} --grow 3dgs", 2, r"--grow.*expected"),
    *_numbers(f"{_3D} --field gaussians --grow 3dgs", "--max-gaussians", "0 1.5"),
    (
        "text_to_3d: too few",
        f"{_3D} --field gaussians --grow 3dgs --max-gaussians 9",
        2,
        r"n_gaussians=2000; expected at most max_gaussians=9",
    ),
    ("text_to_3d: resume", f"{_3D} --resume", 2, r"nothing to resume; expected"),
    (
        "text_to_3d: old",
        "text_to_3d 'a red cube' --out full --resume",
        2,
        r"nothing to resume; exp",
    ),
    *_places(_3D),
    *_devices(_3D, "--vlm-device"),
    # --- optimize_image
    (
        "optimize_image: prompt",
        "optimize_image 'a red elephant' --out new",
        2,
        r"elephant.*expected",
    ),
    ("optimize_image: empty", "optimize_image '' --out new", 2, r"''.*expected"),
    (
        "optimize_image: start",
        f"{_IMAGE} --start nowhere.png",
        2,
        r"no file 'nowhere\.png'.*expected",
    ),
    ("optimize_image: words", f"{_IMAGE} --start note.txt", 2, r"note\.txt.*expected"),
    ("optimize_image: a folder", f"{_IMAGE} --start full", 2, r"full.*expected"),
    ("optimize_image: a pipe", f"{_IMAGE} --start pipe", 2, r"pipe.*expected"),
    ("optimize_image: how", f"{_IMAGE} --parametrization fft", 2, r"invalid choice: 'fft'"),
    ("optimize_image: model", f"{_IMAGE} --model no/x", 2, r"judge.*expected|expected.*judge"),
    ("optimize_image: two", f"{_IMAGE} --model no/x --judge-model no/y", 2, r"no/x.*expected"),
    ("optimize_image: judge", f"{_IMAGE} --judge-model no/y", 2, r"no/y.*expected"),
    ("optimize_image: strength 6", f"{_IMAGE} --strength 6", 2, r"strength.*6.*expected"),
    *_numbers(_IMAGE, "--steps", "0 1.5"),
    *_numbers(_IMAGE, "--size", "0 -64 64.5 99999999999"),
    *_numbers(_IMAGE, "--lr", _ABOVE),
    *_numbers(_IMAGE, "--samples", "0 nan"),
    *_numbers(_IMAGE, "--strength", "0 nan"),
    *_places(_IMAGE),
    # --- optimize_noise
    ("optimize_noise: empty", "optimize_noise '' --out new", 2, r"''.*expected"),
    ("optimize_noise: diffusion", f"{_NOISE} --diffusion no/x", 2, r"no/x.*expected"),
    ("optimize_noise: a file", f"{_NOISE} --diffusion note.txt", 2, r"note\.txt.*expected"),
    ("optimize_noise: a folder", f"{_NOISE} --diffusion ./empty", 2, r"empty.*expected"),
    ("optimize_noise: model", f"{_NOISE} --model no/x", 2, r"no/x.*expected"),
    *_numbers(_NOISE, "--count", "0 1.5"),
    *_numbers(_NOISE, "--lr", "0 nan"),
    *_numbers(_NOISE, "--regularization", "-1 nan inf much"),
    *_numbers(_NOISE, "--sampler-steps", "0 1.5"),
    (
        "optimize_noise: many steps",
        f"{_NOISE} --sampler-steps 5000",
        2,
        r"5000 .*expected at most 1000",
    ),
    *_numbers(_NOISE, "--guidance", "0 -1 nan"),
    *_places(_NOISE),
    # --- finetune_diffusion
    (
        "finetune_diffusion: one",
        f"{_LORA} --prompts prompts.txt",
        2,
        r"expected both --prompts and",
    ),
    (
        "finetune_diffusion: last",
        f"{_LORA} --last 9 --sampler-steps 4",
        2,
        r"--last is 9; expected",
    ),
    (
        "finetune_diffusion: no file",
        f"{_LORA} --prompts nowhere --held-out note.txt",
        2,
        r"nowhere.*expected",
    ),
    (
        "finetune_diffusion: a folder",
        f"{_LORA} --prompts full --held-out note.txt",
        2,
        r"full.*expected",
    ),
    (
        "finetune_diffusion: a picture",
        f"{_LORA} --prompts picture.png --held-out note.txt",
        2,
        r"picture\.png.*expected",
    ),
    (
        "finetune_diffusion: empty",
        f"{_LORA} --prompts /dev/null --held-out note.txt",
        2,
        r"/dev/null.*expected",
    ),
    ("finetune_diffusion: model", f"{_LORA} --model no/x", 2, r"no/x.*expected"),
    *_numbers(_LORA, "--rank", "0 1.5"),
    *_numbers(_LORA, "--batch", "0 nan"),
    *_numbers(_LORA, "--lr", "0 nan"),
    *_places(_LORA),
    # --- score_images
    ("score_images: no prompt", "score_images picture.png --out new", 2, r"expected a --prompt"),
    (
        "score_images: empty",
        "score_images picture.png --prompt '' --out new",
        2,
        r"prompt.*expected",
    ),
    (
        "score_images: no file",
        "score_images nowhere.png --prompt x --out new",
        2,
        r"nowhere.*expected",
    ),
    (
        "score_images: words",
        "score_images note.txt --prompt x --out new",
        2,
        r"note\.txt.*expected",
    ),
    (
        "score_images: a folder",
        "score_images empty --prompt x --out new",
        2,
        r"no images.*expected",
    ),
    ("score_images: model", f"{_SCORE} --model no/x", 2, r"no/x.*expected"),
    *_numbers(_SCORE, "--batch", "0 1.5"),
    *_places(_SCORE),
    # --- finetune_easy_vqa
    ("finetune_easy_vqa: model", f"{_VQA} --model no/x --limit 2", 2, r"no/x.*expected"),
    *_numbers(_VQA, "--steps", "0 1.5"),
    *_numbers(_VQA, "--limit", "0 nan"),
    *_places(_VQA),
    # --- generate_many
    ("generate_many: nothing", "generate_many", 2, r"required: FILE"),
    ("generate_many: no file", "generate_many nowhere --out new", 2, r"nowhere.*expected"),
    ("generate_many: a folder", "generate_many full --out new", 2, r"full.*expected"),
    (
        "generate_many: a picture",
        "generate_many picture.png --out new",
        2,
        r"picture\.png.*expected",
    ),
    (
        "generate_many: empty",
        "generate_many /dev/null --out new",
        2,
        r"/dev/null is empty; expected",
    ),
    ("generate_many: out", "generate_many note.txt -- --out x", 2, r"--out is behind --; expected"),
    (
        "generate_many: resume",
        "generate_many note.txt -- --resume",
        2,
        r"--resume is behind --; expec",
    ),
    (
        "generate_many: words",
        "generate_many note.txt -- --out=x",
        2,
        r"--out=x is behind --; expected",
    ),
    (
        "generate_many: options",
        "generate_many note.txt --out new -- --steps 0",
        2,
        r"steps.*expected",
    ),
    *_numbers(_MANY, "--workers", "0 1.5"),
    *_numbers(_MANY, "--cpus", "0 nan"),
    *_numbers(_MANY, "--gpus", "-1 nan"),
    *_numbers(_MANY, "--retries", "-1 1.5"),
    *_places(_MANY.replace("prompts.txt", "note.txt"))[:6],
    # --- arena
    ("arena: nothing", "arena", 2, r"required: --mode"),
    ("arena: mode", "arena full --mode both --out new", 2, r"invalid choice: 'both'"),
    ("arena: nowhere", "arena nowhere --mode pointwise --out new", 2, r"nowhere.*expected"),
    ("arena: a file", "arena note.txt --mode pointwise --out new", 2, r"note\.txt.*expected"),
    ("arena: empty", "arena empty --mode pointwise --out new", 2, r"prompts\.json.*expected"),
    ("arena: same", f"{_ARENA} --answers yes Yes", 2, r"yes Yes; expected"),
    ("arena: criterion", f"{_ARENA} --criteria beauty", 2, r"invalid choice: 'beauty'"),
    ("arena: questions", f"{_ARENA} --questions picture.png", 2, r"picture\.png.*expected"),
    ("arena: views", f"{_ARENA} --views 5", 2, r"invalid choice: 5"),
    *_numbers(_ARENA, "--size", "0 1.5"),
    *_numbers(_ARENA, "--jobs", "0 1.5"),
    *_numbers(_ARENA, "--limit", "0 -1"),
    *_numbers(_ARENA, "--comparisons-per-pair", "0 nan"),
    *_numbers(_ARENA, "--draw-margin", "-1 2 nan"),
    *_numbers(_ARENA, "--timeout", "0 nan"),
    *_places(_ARENA),
    ("arena_export: nothing", "arena_export", 2, r"required: RUN"),
    ("arena_export: up", "arena_export full --method ../x --out new", 2, r"\.\./x.*expected"),
    (
        "arena_export: no run",
        "arena_export nowhere --method ours --out new",
        2,
        r"nowhere.*expected the folder of a run",
    ),
    *_numbers(_TURN, "--frames", "0 1.5"),
    *_numbers(_TURN, "--size", "0 nan"),
    *_places(_TURN),
    # --- benchmarks
    ("benchmark_paper_scale: size", f"{_PAPER} --size huge", 2, r"invalid choice: 'huge'"),
    *_numbers(_PAPER, "--rounds", "0 1.5"),
    *_devices(f"{_PAPER} --size small"),
    (
        "benchmark_processors: family",
        "benchmark_processors --families gpt",
        2,
        r"invalid choice: 'gpt'",
    ),
    *_numbers("benchmark_processors", "--rounds", "0 -1 1.5"),
    *_numbers("benchmark_processors", "--threads", "0 1.5"),
    *_numbers("benchmark_processors", "--seconds", "0 nan"),
    *_devices("benchmark_processors"),
    (
        "benchmark_reward: config",
        "benchmark_reward --model-config 70b",
        2,
        r"invalid choice: '70b'",
    ),
    ("benchmark_reward: 7b", "benchmark_reward --model-config 7b", 2, r"no weights.*expected"),
    (
        "benchmark_reward: both",
        "benchmark_reward --model x --model-config small",
        2,
        r"expected one of --model and",
    ),
    *_numbers("benchmark_reward", "--rounds", "0 2"),
    *_numbers("benchmark_reward", "--views", "0 1.5"),
    *_numbers("benchmark_reward", "--size", "0 -1"),
    *_numbers("benchmark_reward", "--threads", "0"),
    *_devices("benchmark_reward"),
]
