"""How far pixels and features by the transforms of open_clip and transformers are from timix-pl's: ``python -m benchmarks.pixels PHOTO...``

The features are those of a ViT-B-32 with random weights. Beside the photos, noise and a smooth gradient of 640 x 480 pixels are looked at.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor

from timix_pl.data.images.decode import upright_rgb
from timix_pl.data.sets.evaluation_set import centre_crop
from timix_pl.models.dual_encoder import DualEncoder

SIDE_PX = 224


def transforms() -> dict[str, Callable[[Image.Image], Tensor]]:
    """Of both libraries, back to uint8 pixels."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    of_open_clip = open_clip.image_transform(SIDE_PX, is_train=False)
    processor = CLIPImageProcessor(size={"shortest_edge": SIDE_PX}, crop_size=SIDE_PX)

    def pixels(normalised: Tensor) -> Tensor:
        return ((normalised * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

    return {
        "open_clip": lambda image: pixels(of_open_clip(image)),
        "CLIPProcessor": lambda image: pixels(processor(images=image, return_tensors="pt")["pixel_values"][0]),
    }


def main() -> None:
    """Print a line for each picture made up, and one for all photos."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="*", type=Path)
    photos = parser.parse_args().photos
    torch.manual_seed(0)
    model = DualEncoder.create("ViT-B-32", with_pta=False).eval()
    y, x = np.mgrid[0:480, 0:640]
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    gradient = np.stack([x / 639, y / 479, (x + y) / 1118], -1) * 255
    sets = {"noise": [Image.fromarray(noise)], "gradient": [Image.fromarray(gradient.round().astype(np.uint8))]}
    sets |= {f"{len(photos)} photos": [Image.open(path).convert("RGB") for path in photos]} if photos else {}
    for name, transform in transforms().items():
        for what, images in sets.items():
            pixels, features, cosines = [], [], []
            for image in images:
                own, other = centre_crop(upright_rgb(image), (SIDE_PX, SIDE_PX))[0], transform(image)
                with torch.no_grad():
                    one, two = model.encode_image(torch.stack((own, other)))
                pixels.append(int((own.int() - other.int()).abs().max()))
                features.append(float((one - two).abs().max()))
                cosines.append(float(one @ two))
            print(
                f"{name:<14}{what:<12}pixels equal to a level: {sum(most <= 1 for most in pixels)} of {len(images)}, largest difference "
                f"{max(pixels)}; features: largest difference {max(features):.2g}, "
                f"cosine median {np.median(cosines):.4f}, least {min(cosines):.4f}"
            )


if __name__ == "__main__":
    main()
