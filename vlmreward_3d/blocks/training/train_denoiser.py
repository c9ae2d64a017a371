"""Train the built-in denoiser: ``python -m vlmreward_3d.blocks.training.train_denoiser``.

With ``--start`` a trained denoiser is trained further, at full resolution alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel

from vlmreward.models.vocabulary import KNOWN_WORDS
from vlmreward_3d.blocks.training.tokenizer import train_tokenizer
from vlmreward_3d.blocks.training.trainer import Trainer, command_line
from vlmreward_3d.blocks.world.captions import caption, known_words
from vlmreward_3d.blocks.world.dataset import RING, BlocksData, render_dataset
from vlmreward_3d.blocks.world.descriptions import unbound_caption, usual_arrangements
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion
from vlmreward_3d.guidance.sampling import sample

RESOLUTION = 32
TEXT_LENGTH, RICH_TEXT_LENGTH = 20, 24
SAMPLING_STEPS = 20
SHOWN = (
    "a red cube",
    "a blue sphere",
    "a green mug",
    "a yellow snowman",
    "a red cube on top of a blue sphere",
    "a pink cone on top of a green cylinder",
    "an orange mug next to a purple chair",
    "a cyan car next to a yellow torus",
)
"""Prompts of the sample pictures that a training writes."""
FRONTAL = 2.0
"""Concentration of the azimuths of single views around the front (von Mises)."""
COARSE = 0.5
"""Share of the steps at half resolution, with four times the groups, which train the texts."""
BIAS = 5.0
"""Frequency of a pair with usual colors, or in the usual order, relative to the opposite."""
TEACHERS = ("strong", "coarse", "biased", "single-view")
"""Kinds of denoisers: "coarse" learns from captions whose colors and order are exchanged at random,
so that it knows words and not what belongs to what; "biased" learns from the same captions, mostly
of usual arrangements, so that it makes those whatever the caption says; "single-view" sees one
view, mostly from the front, and no cameras, so that it wants to see the front from everywhere."""


def build(seed: int = 0, *, cameras: bool = True, rich: bool = False) -> PixelDiffusion:
    """A denoiser with random weights: of single views without `cameras`; `rich`: of more words."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(768, rich=True) if rich else train_tokenizer()
    tokenizer.init_kwargs[KNOWN_WORDS] = known_words(captions=True, rich=rich)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=RICH_TEXT_LENGTH if rich else TEXT_LENGTH,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=RESOLUTION,
        in_channels=3,
        out_channels=3,
        block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=128,
        norm_num_groups=16,
        class_embed_type="projection" if cameras else None,
        projection_class_embeddings_input_dim=16 if cameras else None,
        # the whole text joins the time embedding: attention alone learns colors very late
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    # a fifth of the timesteps is so noisy that nothing of an image can be guessed: with less (as in
    # the cosine schedule), few pixels still show where things are, and the text is not listened to
    scheduler = DDPMScheduler(beta_schedule="linear", prediction_type="v_prediction")
    return PixelDiffusion(unet, scheduler, text, tokenizer)


def images_of(rgba: Tensor, background: Tensor, size: int = RESOLUTION) -> Tensor:
    """Views (N, 64, 64, 4) uint8 over backgrounds (N,) -> (N, 3, size, size) in [-1, 1]."""
    rgba = rgba.permute(0, 3, 1, 2).float() / 255
    image = rgba[:, :3] + (1 - rgba[:, 3:]) * background[:, None, None, None]
    return F.avg_pool2d(image, image.shape[-1] // size) * 2 - 1


class Batches:
    """Random groups of views of flawless scenes, with captions, over gray backgrounds.

    Args:
        data: the scenes.
        seed: batches depend on it and on their number alone.
        teacher: one of ``TEACHERS``.
    """

    def __init__(self, data: BlocksData, seed: int, teacher: str = "strong") -> None:
        self.data = data
        self.single = teacher == "single-view"
        self.caption = unbound_caption if teacher in ("coarse", "biased") else caption
        self.rows = [i for i, s in enumerate(data.scenes) if s.flaw is None]
        scenes = [data.scenes[i] for i in self.rows]
        pair = np.array([s.relation is not None for s in scenes], float)
        # what a cube looks like repeats four times in a turn, which is learnt last
        cube = np.array([any(t.shape == "cube" for t in s.things) for s in scenes], float)
        weight = 1 + 0.6 * pair + 1.5 * cube
        if teacher == "biased":
            weight *= BIAS ** np.array([usual_arrangements(s) for s in scenes], float)
        self.weight = weight / weight.sum()
        self.seed = seed

    def draw(
        self, step: int, groups: int, size: int = RESOLUTION
    ) -> tuple[Tensor, list[str], Tensor]:
        """Images (4 groups, 3, size, size), a caption per group ("" one time in ten), cameras.

        For single views each image is a group of its own, with its own caption.
        """
        rng = np.random.default_rng([self.seed, step])
        images, texts, cameras = [], [], []
        for i in (self.rows[int(p)] for p in self._pick(rng, groups)):
            shown = self._shown(i, rng)
            gray = torch.full((len(shown),), float(rng.uniform(0.1, 1.0)))
            images.append(images_of(self.data.rgba[i, shown], gray, size))
            cameras.append(self.data.cameras[i, shown])
            said = self.caption(self.data.scenes[i], rng)
            texts.append("" if rng.random() < 0.1 else said)
        return torch.cat(images), texts, torch.cat(cameras)

    def _pick(self, rng: np.random.Generator, groups: int) -> np.ndarray:
        return rng.choice(len(self.rows), groups * (RING if self.single else 1), p=self.weight)

    def _shown(self, scene: int, rng: np.random.Generator) -> np.ndarray:
        """Indices of the views of a group: a ring, or a single one that is mostly of the front."""
        if not self.single:
            return int(rng.integers(2)) * RING + np.arange(RING)
        x, y = self.data.cameras[scene].view(-1, 4, 4)[:, :2, 3].unbind(1)
        frontal = (FRONTAL * x / (x * x + y * y).sqrt()).exp().double().numpy()
        return rng.choice(len(frontal), 1, p=frontal / frontal.sum())


def loss_of(
    model: PixelDiffusion, batch: tuple[Tensor, list[str], Tensor], generator: torch.Generator
) -> Tensor:
    """Squared error of v, with timesteps shared by the views of a group.

    Unlike the error of the noise, that of v keeps its weight at high noise, where the text alone
    tells the colors.

    Args:
        model: to train.
        batch: images, texts and cameras, see ``Batches.draw``.
        generator: CPU source of noise and timesteps.
    """
    images, texts, cameras = batch
    images, cameras = images.to(model.unet.device), cameras.to(model.unet.device)
    groups = len(texts)
    t = torch.randint(len(model.alphas_cumprod), (groups,), generator=generator)
    t = t.repeat_interleave(model.n_views).to(images.device)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    alpha = model.alphas_cumprod[t][:, None, None, None]
    noisy = alpha.sqrt() * images + (1 - alpha).sqrt() * noise
    text = model.encode_text(texts).repeat_interleave(model.n_views, 0)
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * images
    return F.mse_loss(model(noisy, t, text, cameras).float(), velocity)


def picture(model: PixelDiffusion, data: BlocksData, path: Path, seed: int = 0) -> None:
    """A sheet of samples: one row of four views per prompt."""
    import imageio.v3 as iio

    texts = list(SHOWN)
    cameras = torch.cat([data.cameras[i, :RING] for i in range(len(texts))])
    out = sample(model, texts, cameras, guidance_scale=4.0, steps=SAMPLING_STEPS, seed=seed)
    sheet = out.reshape(len(texts), RING, 3, RESOLUTION, RESOLUTION).permute(0, 3, 1, 4, 2)
    sheet = sheet.reshape(len(texts) * RESOLUTION, RING * RESOLUTION, 3)
    sheet = sheet.repeat_interleave(3, 0).repeat_interleave(3, 1)
    iio.imwrite(path, (sheet * 255).byte().numpy())


def train(args: argparse.Namespace) -> None:
    """Train, continuing from ``args.out/state.pt`` if it exists, and write ``args.out/model``."""
    data = render_dataset(args.data, args.scenes, seed=1, composed=args.composed)
    device = torch.device(args.device)
    if args.start:
        model = PixelDiffusion.from_pretrained(args.start).requires_grad_(True).to(device)
    else:
        cameras, rich = args.teacher != "single-view", args.composed > 0
        model = build(args.seed, cameras=cameras, rich=rich).to(device)
    unet = model.unet
    inner = (unet.down_blocks, unet.mid_block, unet.up_blocks, model.text_encoder.encoder)
    muon_params = [p for part in inner for p in part.parameters() if p.ndim >= 2]
    trainer = Trainer(
        model,
        muon_params,
        out=args.out,
        steps=args.steps,
        lr=args.lr,
        matrix_lr=args.matrix_lr,
        warmup=100,
    )
    average = trainer.average
    batches = Batches(data, args.seed, args.teacher)
    steps = range(trainer.start, args.steps)
    losses: list[float] = []
    for step in tqdm(steps, initial=trainer.start, total=args.steps, desc="denoiser"):
        coarse = not args.start and step < COARSE * args.steps
        size, count = (RESOLUTION // 2, 4 * args.batch) if coarse else (RESOLUTION, args.batch)
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            batch = batches.draw(step, count, size)
            loss = loss_of(model, batch, generator)
        trainer.update(loss, step)
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            trainer.log(step=step + 1, loss=float(np.mean(losses)))
            losses.clear()
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            trainer.save(step + 1)
            picture(average.cpu().eval(), data, args.out / f"samples-{step + 1:06d}.png")
            average.save_pretrained(args.out / "model", torch.bfloat16)
            average.to(device)


def main() -> None:
    """Command line."""
    parser = command_line(
        __doc__,
        steps=9000,
        batch="groups of four views a step",
        batch_size=8,
        lr=8e-4,
        matrix_lr=4e-3,
    )
    parser.add_argument(
        "--composed", type=float, default=0.0, help="share of compositions among the scenes"
    )
    parser.add_argument("--start", help="folder or name of a trained denoiser that learns on")
    parser.add_argument("--teacher", choices=TEACHERS, default=TEACHERS[0])
    train(parser.parse_args())


if __name__ == "__main__":
    main()
