"""The captioner: its loss against one caption after another, what learns, and captions of images that it was taught."""

import pytest
import torch

from tests.optim import optim_settings, slower_towers
from tests.tiny import random_images, tiny_model
from tests.unit.training.running import fit
from timix_pl.core.types import ItemBatch
from timix_pl.data.sets.caption_items import CaptionItems
from timix_pl.models.caption_decoder import small_decoder
from timix_pl.models.caption_tokenizers import CaptionsToTokens
from timix_pl.models.captioner import Captioner
from timix_pl.training.module import TrainModule
from timix_pl.training.objective import Objective

COUNTS = (2, 1, 3)
CAPTIONS = ["a ring", "the small red ring over a large square", "dotted", "a green square of a blue circle", "left", "the ring"]


def captioner(*, label_smoothing=0.0, max_length=30, dropout=0.0, **options):
    encoder = tiny_model()
    torch.manual_seed(1)
    decoder = small_decoder(encoder.image.patch_dim, vocab_size=600, dim=32, layers=2, heads=4, dropout=dropout, max_length=max_length)
    return Captioner(encoder, decoder, label_smoothing=label_smoothing, generation={"num_beams": 3}, **options)


def batch_of(model, captions=CAPTIONS, counts=COUNTS):
    items, items_of_term = CaptionItems(CaptionsToTokens(model.head.tokenizer, model.head.max_length)).collate(captions)
    index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    keys = [f"image-{number}" for number in range(len(counts))]
    images = {"images": random_images(len(counts), 0), "keys": keys, "first": 0}
    return ItemBatch(**images, image_index=index, items_per_image=list(counts), items=items, items_of_term=items_of_term)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_loss_is_the_sum_over_the_tokens_of_captions_taken_one_by_one(label_smoothing):
    model = captioner(label_smoothing=label_smoothing)
    batch = batch_of(model)
    start, end = model.head.tokenizer.start_id, model.head.tokenizer.end_id
    total, num_tokens = 0.0, 0
    for image, caption in zip(batch.image_index.tolist(), CAPTIONS, strict=True):
        tokens = torch.tensor([[start, *model.head.tokenizer.encode(caption), end]])
        states = model.head.project(model.patch_features(batch.images[image : image + 1]))
        logits = model.head.decoder(tokens[:, :-1], encoder_hidden_states=states).logits[0]
        log_probabilities = logits.log_softmax(-1)
        own = log_probabilities.gather(1, tokens[0, 1:, None])[:, 0]
        total -= ((1 - label_smoothing) * own + label_smoothing * log_probabilities.mean(1)).sum()
        num_tokens += len(own)
    torch.testing.assert_close(model.sums(batch)["caption"], total)
    assert batch.items_of_term == {"caption": num_tokens}


def test_a_cut_caption_does_not_learn_to_end():
    model = captioner(max_length=8)
    batch = batch_of(model)
    ends = (batch.items["tokens"] == model.head.tokenizer.end_id) & (torch.arange(9) < batch.items["length"][:, None])
    assert ends.any(1).tolist() == [len(model.head.tokenizer.encode(caption)) < 8 for caption in CAPTIONS]
    assert 0 < ends.sum() < len(CAPTIONS)


@pytest.mark.parametrize(("towers", "learning"), [("frozen", {"head"}), ("last", {"head", "encoder"}), ("all", {"head", "encoder"})])
def test_what_learns(towers, learning):
    model = captioner(towers=towers, last_blocks=1)
    model.sums(batch_of(model))["caption"].backward()
    moving = {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.abs().sum() > 0}
    assert {name.split(".")[0] for name in moving} == learning
    assert not any(name.startswith(("encoder.text", "encoder.pta")) for name in moving)


@pytest.mark.parametrize("towers", ["frozen", "all"])
def test_taught_images_get_their_captions(towers):
    """Through the training module, images with several captions: one of their own is written."""
    model = captioner(towers=towers)
    batch = batch_of(model, CAPTIONS[:5], (2, 1, 2))
    optim = optim_settings(lr=1e-2, schedule="constant", warmup_frac=0.0, weight_decay=0.0)
    options = {"global_batch_size": 3, "planned_samples": 300, "seed": 0, "log_every_n_steps": 100}
    options = {"global_batch_size": 3, "planned_samples": 300, "seed": 0, "log_every_n_steps": 100}
    module = TrainModule(model, Objective(), optim, groups=slower_towers(0.1), **options)
    fit(module, [batch] * 100)
    model.eval()
    with torch.no_grad():
        written = model.caption(batch.images)
        assert model.caption(batch.images.flip(0)) == written[::-1]
    assert all(caption in own for caption, own in zip(written, (CAPTIONS[:2], CAPTIONS[2:3], CAPTIONS[3:5]), strict=True))


def test_recomputing_changes_no_gradient():
    passes, gradients = [], []
    for recompute in (False, True):
        model = captioner(towers="all")
        if recompute:
            model.checkpoint_gradients()
        blocks = [model.encoder.image.blocks()[0], model.head.decoder.transformer.h[0].mlp]
        counts = [0, 0]
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(lambda *_, number=number, counts=counts: counts.__setitem__(number, counts[number] + 1))
        model.sums(batch_of(model))["caption"].backward()
        passes.append(counts)
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None})
    assert passes == [[1, 1], [2, 2]]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_in_bf16():
    model = captioner().to(torch.bfloat16)
    loss = model.sums(batch_of(model))["caption"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, captioner().sums(batch_of(model))["caption"], rtol=0.02, atol=0)
    with torch.no_grad():
        assert len(model.eval().caption(batch_of(model).images)) == 3
