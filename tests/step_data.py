"""Data modules on streams, as tests need them."""

from functools import partial

from tests.tiny import GRID, IMAGE_SIZE_PX
from timix_pl.data.datamodule import StepDataModule
from timix_pl.data.sets.item_set import ItemSet
from timix_pl.data.sets.pair_set import PairSet
from timix_pl.data.sets.sample_stream import SampleStream


def pair_data(samples, regions, tokenizer, *, max_steps, num_workers=0, allow_changed=False, global_batch_size=8, seed=0, **options):
    """Options are those of ``PairSet``."""
    sizes = {"image_size_px": IMAGE_SIZE_PX, "patch_grid": GRID, "global_batch_size": global_batch_size, "seed": seed}
    make_set = partial(PairSet, samples if isinstance(samples, SampleStream) else None, regions, tokenizer, **sizes, **options)
    run = {"max_steps": max_steps, "num_workers": num_workers, "allow_changed": allow_changed}
    return StepDataModule(samples, regions, make_set=make_set, global_batch_size=global_batch_size, seed=seed, **run)


def item_data(samples, task_items, *, max_steps, global_batch_size, items_per_image=2, seed=0):
    sizes = {"image_size_px": IMAGE_SIZE_PX, "patch_grid": GRID, "global_batch_size": global_batch_size, "seed": seed}
    make_set = partial(ItemSet, samples, task_items, items_per_image=items_per_image, **sizes)
    return StepDataModule(samples, make_set=make_set, global_batch_size=global_batch_size, seed=seed, max_steps=max_steps, num_workers=0)
