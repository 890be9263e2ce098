"""A run directory as training leaves it, made up: for tests of what reads one."""

import csv
import json
import math
import random
from dataclasses import asdict
from pathlib import Path

from PIL import Image, ImageDraw

from timix_pl.building.evaluators import built_in_metric

COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 200), "yellow": (220, 190, 50)}
METRICS = {
    "retrieval/image_to_text/recall_at_1": 0.412,
    "retrieval/image_to_text/recall_at_5": 0.731,
    "retrieval/image_to_text/median_rank": 2.0,
    "retrieval/text_to_image/recall_at_1": 0.398,
    "retrieval/text_to_image/recall_at_5": 0.702,
    "retrieval/text_to_image/median_rank": 3.0,
    "retrieval/mean_recall": 0.561,
    "zero_shot/top_1": 0.823,
    "zero_shot/mean_per_class": 0.811,
    "grounding/pointing": 0.874,
    "grounding/patch_ap": 0.642,
}
CHANCE = {
    "retrieval/image_to_text/recall_at_1": 1 / 512,
    "retrieval/image_to_text/recall_at_5": 5 / 512,
    "retrieval/image_to_text/median_rank": 256.5,
    "retrieval/text_to_image/recall_at_1": 1 / 512,
    "retrieval/text_to_image/recall_at_5": 5 / 512,
    "retrieval/text_to_image/median_rank": 256.5,
    "retrieval/mean_recall": 3 / 512,
    "zero_shot/top_1": 1 / 48,
    "grounding/pointing": 0.11,
}
CONFIG = """\
name: demo
seed: 0
run_dir: runs/${name}
data:
  kind: scenes
  global_batch_size: 64
model:
  architecture: timix-tiny
pta:
  block: 3
mixing:
  kind: timix
  ratio: 1.0
loss:
  kind: info_nce
trainer:
  max_steps: 1200
"""


def make_fake_run(run_dir: Path, *, num_steps: int = 1200, num_pictures: int = 4, caption: str | None = None) -> Path:
    """Write every file of a finished run; tests then remove or break what they are about."""
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(CONFIG)
    write_metrics(run_dir / "metrics.csv", num_steps)
    descriptions = {name: asdict(metric) for name in METRICS if (metric := built_in_metric(name))}
    evaluation = {"step": num_steps, "metrics": METRICS, "chance": CHANCE, "descriptions": descriptions}
    (run_dir / "evaluation.json").write_text(json.dumps(evaluation))
    summary = {
        "status": "finished",
        "steps": num_steps,
        "consumed": 64 * num_steps,
        "wall_s": 372.4,
        "samples_per_s": 206.3,
        "num_parameters": {"image": 812_000, "text": 634_000, "pta": 51_000},
        "num_train_samples": 20_000,
    }
    (run_dir / "summary.json").write_text(json.dumps(summary))
    write_pictures(run_dir / "pictures", num_pictures, caption)
    return run_dir


def write_metrics(path: Path, num_steps: int) -> None:
    """Sparse rows: training every 5 steps, evaluation every 200."""
    rng = random.Random(0)
    rows: list[dict[str, float]] = []
    for step in range(5, num_steps + 1, 5):
        done = step / num_steps
        info_nce = 4.1 * math.exp(-3 * done) + 0.4 + rng.gauss(0, 0.08)
        mixed = info_nce + 0.5 + rng.gauss(0, 0.1)
        patch_text = 0.2 + 0.4 * math.exp(-4 * done) + rng.gauss(0, 0.01)
        row: dict[str, float] = {"step": step, "consumed": 64 * step}
        row |= {
            "train/loss/total": info_nce + mixed + patch_text,
            "train/loss/info_nce": info_nce,
            "train/loss/mixed": mixed,
            "train/loss/patch_text": patch_text,
        }
        row |= {"train/mixing/lam": 0.7 + rng.gauss(0, 0.08), "train/mixing/gamma": min(1, 5 * done), "train/mixing/num_mixed": 64}
        row |= {"train/mixing/side": rng.randint(2, 6), "train/pta/precision": 0.3 + 0.5 * done + rng.gauss(0, 0.02)}
        row |= {"train/pta/recall": 0.2 + 0.6 * done + rng.gauss(0, 0.02), "train/grad_norm": 1.5 + rng.expovariate(2)}
        row |= {"train/logit_scale": 14.3 + 12 * done, "train/lr": 5e-4 * min(1, 20 * done) * (1 + math.cos(math.pi * done)) / 2}
        row |= {"train/samples_per_s": 205 + rng.gauss(0, 6), "train/data_wait_frac": abs(rng.gauss(0.02, 0.01))}
        row |= {"train/optimizer_frac": 0.05, "train/samples_per_s_per_device": 205.0, "train/peak_memory_gb": 1.5}
        row |= {"train/num_skipped_steps": 0, "train/num_bad_samples": 0}
        if step % 200 == 0:
            share = 1 - math.exp(-4 * done)
            row |= {name: value * share if value < 1 else value / share for name, value in METRICS.items() if done < 1} or METRICS
        rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_pictures(folder: Path, number: int, caption: str | None = None) -> None:
    folder.mkdir()
    names = list(COLOURS)
    mixed, heat_maps = [], []
    for index in range(number):
        own, partner = names[index % 4], names[(index + 1) % 4]
        clean, source = _scene(own, index), _scene(partner, index + 7)
        blend = clean.copy()
        blend.paste(source.crop((16, 16, 48, 48)), (32, 0))
        for kind, image in (("clean", clean), ("source", source), ("mixed", blend)):
            image.save(folder / f"mixed-{index}-{kind}.png")
        mixed.append(
            {
                **{kind: f"mixed-{index}-{kind}.png" for kind in ("clean", "source", "mixed")},
                "caption": caption or f"a small {own} ring left of a striped {partner} square",
                "partner_caption": f"a large {partner} disc above two dotted triangles",
                "lam": 0.75,
                "target_xyxy_norm": [0.5, 0.0, 1.0, 0.5],
                "source_xyxy_norm": [0.25, 0.25, 0.75, 0.75],
                "step": 1200,
            }
        )
        clean.save(folder / f"heat-{index}.png")
        scores = [[math.exp(-((r - 3 - index) ** 2 + (c - 3) ** 2) / 5) for c in range(8)] for r in range(8)]
        heat_maps.append(
            {
                "image": f"heat-{index}.png",
                "scores": scores,
                "phrase": caption or f"{own} disc",
                "box_xyxy_norm": [0.3, 0.3, 0.7, 0.7],
                "hit": index < 3,
                "step": 1200,
            }
        )
    (folder / "mixed.json").write_text(json.dumps(mixed))
    (folder / "heat_maps.json").write_text(json.dumps(heat_maps))


def write_examples(folder: Path, *, text: str = "a small red ring", step: int = 0) -> None:
    """Examples of every kind, as evaluations leave them in ``folder/examples``."""
    examples = folder / "examples"
    examples.mkdir(parents=True)
    images = []
    for number, colour in enumerate(COLOURS):
        images.append(f"image-{number}.png")
        _scene(colour, number + step).resize((224, 224)).save(examples / images[-1])
    found = [{"image": name, "right": number == 1} for number, name in enumerate(images)]
    missed = [{"caption": f"{text} {number}", "right": False} for number in range(5)]
    queries = [
        {"caption": text, "rank": 2, "found": found},
        {"image": images[0], "rank": 1, "found": [{"caption": text, "right": True}, *missed[:4]]},
        {"image": images[1], "rank": 17, "found": missed, "answer": {"caption": f"the answer to {text}"}},
    ]
    matrix = [[9 if given == true else int(given == true + 1) for given in range(4)] for true in range(4)]
    classes = [f"{text} {number}" for number in range(4)]
    asked = {"image": images[0], "question": f"is this {text}?", "answers": ["yes", "yes", "no"]}
    choices = [{"choice": answer, "score": score} for answer, score in (("yes", 0.75), ("no", 0.2), ("maybe", 0.05))]
    answers = [asked | {"right": True, "choices": choices}, asked | {"right": False, "given": "three", "accuracy": 0.0}]
    captions = [{"image": images[2], "caption": f"we see {text}", "references": [f"there is {text}", "a ring"], "cider_d": 1.234}]
    for name, content in (
        ("retrieval", queries),
        ("zero_shot", [{"confusion": matrix, "num_images": [sum(row) for row in matrix], "classes": classes}]),
        ("vqa", answers),
        ("captioning", captions),
    ):
        (examples / f"{name}.json").write_text(json.dumps(content))


def _scene(colour: str, seed: int) -> Image.Image:
    rng = random.Random(seed)
    image = Image.new("RGB", (64, 64), tuple(rng.randint(120, 230) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    draw.ellipse((18, 18, 46, 46), fill=COLOURS[colour])
    for _ in range(3):
        x, y = rng.randint(0, 50), rng.randint(0, 50)
        draw.rectangle((x, y, x + rng.randint(5, 12), y + rng.randint(5, 12)), fill=rng.choice(list(COLOURS.values())))
    return image
