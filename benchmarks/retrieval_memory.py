"""Peak memory of retrieval among 100,000 images and 500,000 captions, with random features; the ranking of a few queries, extrapolated.

python -m benchmarks.retrieval_memory [IMAGES] [CAPTIONS_PER_IMAGE] [QUERIES]
"""

import resource
import sys
import time

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.model import encode_images, encode_texts
from timix_pl.evaluation.sharing import shared_ranking

CPU = torch.device("cpu")
DIM = 512


class Pairs(Dataset[EvaluationItem]):
    def __init__(self, num_images: int, captions_per_image: int):
        self.num_images, self.captions_per_image = num_images, captions_per_image
        self.image = torch.zeros(3, 2, 2, dtype=torch.uint8)

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, number: int) -> EvaluationItem:
        words = "a caption of usual length that describes what is seen"
        captions = tuple(f"{words} in image {number}, number {n}" for n in range(self.captions_per_image))
        return EvaluationItem(f"{number:012d}", self.image, captions, (), {})


class RandomFeatures(nn.Module):
    def tokenizer(self, texts: list[str]) -> Tensor:
        return torch.zeros(len(texts), 77, dtype=torch.long)

    def encode_image(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(torch.randn(len(images), DIM), dim=1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.encode_image(tokens)

    def patch_scores(self, images: Tensor, tokens: Tensor) -> Tensor:
        raise NotImplementedError


def main(num_images: int = 100_000, captions_per_image: int = 5, num_queries: int = 2048) -> None:
    peak_gb = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # noqa: E731
    print(f"at the start: {peak_gb():.2f} GB")
    model = RandomFeatures()
    images, found = encode_images(
        model, Pairs(num_images, captions_per_image), lambda batch: batch.captions, batch_size=128, num_workers=0, device=CPU
    )
    captions = [caption for of_image in found for caption in of_image]
    texts = encode_texts(model, captions, 1024, CPU)
    print(f"after encoding {len(images):,} images and {len(texts):,} captions: {peak_gb():.2f} GB at most")
    of_image = torch.arange(num_images)
    of_text = of_image.repeat_interleave(captions_per_image)
    for name, queries, candidates, labels, candidate_labels in (
        ("image to text", images, texts, of_image, of_text),
        ("text to image", texts, images, of_text, of_image),
    ):
        start = time.perf_counter()
        shared_ranking(queries[:num_queries], candidates, labels[:num_queries], candidate_labels, 10, CPU)
        seconds = (time.perf_counter() - start) / num_queries * len(queries)
        print(
            f"after ranking {name}: {peak_gb():.2f} GB at most; {seconds / 60:.0f} minutes for all {len(queries):,} queries, extrapolated"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
