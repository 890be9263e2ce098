"""Captioning on two ranks: the weights, captions and figures of one, with sizes that do not divide; and errors that reach both."""

from collections import Counter

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from tests.distributed.spawn import run_on_ranks
from tests.optim import optim_settings
from tests.step_data import item_data
from tests.tiny import WORDS, encoded_image, random_captions, random_pixels, tiny_model
from tests.unit.evaluation.fakes import Items, OracleModel, item
from tests.unit.training.running import trainer_for, weights_of
from timix_pl.core.distributed import world_size
from timix_pl.core.errors import DataError
from timix_pl.data.sets.caption_items import CaptionItems
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.shards.writer import ShardWriter
from timix_pl.evaluation.evaluators.captioning import Captioning
from timix_pl.models.caption_decoder import small_decoder
from timix_pl.models.caption_tokenizers import CaptionsToTokens
from timix_pl.models.captioner import Captioner
from timix_pl.training.module import TrainModule
from timix_pl.training.objective import Objective

CPU = torch.device("cpu")


class RandomWriter(OracleModel):
    """Words that depend on every pixel."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Linear(3 * 4 * 8, 6)
        self.images_seen = Counter()

    def caption(self, images):
        self.images_seen.update(images[:, 0, 0, 0].tolist())
        numbers = (self.image(images.flatten(1) / 255) * 1000).int().abs() % len(WORDS)
        return [" ".join(WORDS[number] for number in row) for row in numbers.tolist()]


def dataset(num_images, without_captions=None):
    items = []
    for number in range(num_images):
        noise = torch.randint(0, 256, (3, 4, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        noise[0, 0, 0] = number
        captions = random_captions(1 + number % 3, number) if number != without_captions else []
        items.append(item(number, captions)._replace(image=noise))
    return Items(items)


def evaluate(num_images):
    model = RandomWriter()
    metrics, chance, examples, _ = Captioning(dataset(num_images), batch_size=4).run(model, CPU)
    return metrics, chance, [example | {"image": example["image"].tolist()} for example in examples["captioning"]], model.images_seen


def all_cases():
    try:
        Captioning(dataset(13, without_captions=12), batch_size=4).run(
            RandomWriter(), CPU
        )  # in the last batch, which the second rank reads
    except DataError as error:
        return evaluate(3), evaluate(43), str(error)
    raise AssertionError("the broken set was accepted")


@pytest.fixture(scope="module")
def on_two_ranks():
    """For each case of ``all_cases`` the pair of what the ranks returned."""
    return list(zip(*run_on_ranks(all_cases, 2), strict=True))


@pytest.mark.parametrize(("case", "num_images"), [(0, 3), (1, 43)])  # fewer batches than ranks; eleven batches, the last one ragged
def test_two_ranks_give_the_figures_of_one_and_share_the_work(on_two_ranks, case, num_images):
    (*first, seen_by_first), (*second, seen_by_second) = on_two_ranks[case]
    *alone, _ = evaluate(num_images)
    assert first == second == alone
    assert seen_by_first + seen_by_second == Counter(range(num_images))
    if num_images > 4:
        assert abs(seen_by_first.total() - seen_by_second.total()) <= 4


def test_an_error_on_one_rank_is_raised_on_both(on_two_ranks):
    first, second = on_two_ranks[2]
    assert first == second and "'key12' has no captions" in first


def write_captions(folder):
    """One to three captions of one to twelve words each, so that ranks have different numbers of tokens."""
    draw = np.random.default_rng(0)
    with ShardWriter(folder, samples_per_shard=6) as writer:
        for number in range(20):
            captions = [" ".join(draw.choice(WORDS, draw.integers(1, 13))) for _ in range(1 + number % 3)]
            writer.write(f"s{number}", encoded_image(random_pixels(40, 60, number), "PNG"), "png", captions=captions)


def learn(folder, towers="all"):
    """Weights, and the loss and the number of tokens of each step, of three steps of eight images with at most two captions each."""
    encoder = tiny_model()
    decoder = small_decoder(encoder.image.patch_dim, vocab_size=600, dim=16, layers=1, heads=2, dropout=0.0, max_length=60)
    model = Captioner(encoder, decoder, label_smoothing=0.1, generation={}, towers=towers)
    # so large an eps that AdamW moves by the gradient, not by its sign: rounding stays rounding
    optim = optim_settings(lr=0.1, eps=1.0, weight_decay=0.0, warmup_frac=0.0)
    module = TrainModule(model, Objective(), optim, global_batch_size=8, planned_samples=24, seed=0, log_every_n_steps=1)
    data = item_data(
        SampleStream(str(folder), key="train", seed=0, name="train", window_shards=2),
        CaptionItems(CaptionsToTokens(decoder.tokenizer, 60)),
        global_batch_size=8,
        max_steps=3,
    )
    strategy = DDPStrategy(process_group_backend="gloo", gradient_as_bucket_view=True) if world_size() > 1 else "auto"
    trainer = trainer_for(3, strategy=strategy, devices=world_size())
    trainer.fit(module, datamodule=data)
    tokens = [data.training_set()[step].items_of_term for step in range(3)]
    return weights_of(model), [row["train/loss/caption"] for row in trainer.loggers[0].rows], tokens


@pytest.mark.parametrize("towers", ["frozen", "all"])
def test_two_ranks_learn_what_one_learns(tmp_path, towers):
    write_captions(tmp_path)
    alone, losses, _ = learn(tmp_path, towers)
    (first, losses_of_first, tokens_of_first), (second, _, tokens_of_second) = run_on_ranks(learn, 2, tmp_path, towers)
    assert tokens_of_first != tokens_of_second
    assert losses_of_first == pytest.approx(losses, rel=1e-5)
    for name, weight in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], weight, rtol=1e-4, atol=1e-6, msg=name)
