"""A task of the smallest kind: guess how many letters each caption has, from its own tokens and the image."""

import torch
from torch import nn

from tests.tiny import GRID, IMAGE_SIZE_PX, random_captions, tiny_model
from timix_pl.core.types import ItemBatch
from timix_pl.data.sets.item_set import ItemSet
from timix_pl.data.shards.reader import BadSampleError
from timix_pl.models.fine_tuned import FineTuned, token_dim


class Lengths(FineTuned):
    """Two terms: of captions whose first word has three letters or more, and of the others, each with a layer of its own."""

    def __init__(self, encoder=None, **options):
        encoder = encoder or tiny_model()
        torch.manual_seed(1)
        head = nn.ModuleDict({name: nn.Linear(encoder.image.patch_dim + token_dim(encoder), 1) for name in ("long", "short")})
        super().__init__(encoder, head, **options)

    def sums(self, batch):
        patches, (tokens, padding) = self.patch_features(batch.images), self.token_features(batch.items["tokens"])
        shown = ~padding[:, :, None]
        joined = torch.cat((patches.mean(1)[batch.image_index], (tokens * shown).sum(1) / shown.sum(1)), 1)
        error = {name: (layer(joined)[:, 0].float() - batch.items["length"]) ** 2 for name, layer in self.head.items()}
        return {"long": (error["long"] * batch.items["long"]).sum(), "short": (error["short"] * ~batch.items["long"]).sum()}


class Captions:
    """Items are captions."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def of(self, sample):
        if not sample.captions:
            raise BadSampleError("the sample has no caption")
        return sample.captions

    def collate(self, items):
        long = torch.tensor([len(caption.split()[0]) > 2 for caption in items])
        length = torch.tensor([len(caption) / 20 for caption in items])
        return {"tokens": self.tokenizer(items), "length": length, "long": long}, {"long": int(long.sum()), "short": int((~long).sum())}


def item_set(samples, model, **options):
    defaults = {"items_per_image": 2, "image_size_px": IMAGE_SIZE_PX, "patch_grid": GRID, "global_batch_size": 8, "seed": 0}
    return ItemSet(samples, Captions(model.tokenizer), **(defaults | options))


def ready_task_batches(model, num_steps, *, counts=(3, 1, 2, 1, 1, 4, 1, 2)):
    """Images with so many captions each."""
    batches = []
    for seed in range(num_steps):
        images = torch.randint(0, 256, (len(counts), 3, *IMAGE_SIZE_PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        items, items_of_term = Captions(model.tokenizer).collate(random_captions(sum(counts), seed))
        index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        keys = [f"image-{seed}-{number}" for number in range(len(counts))]
        batches.append(
            ItemBatch(
                images=images,
                image_index=index,
                items_per_image=list(counts),
                items=items,
                items_of_term=items_of_term,
                keys=keys,
                first=0,
            )
        )
    return batches
