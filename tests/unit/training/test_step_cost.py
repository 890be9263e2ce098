"""FLOPs and kept memory of a step, counted without memory, against formulas and against real steps."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.tiny import GRID, mix_step, random_images, random_pairs, random_regions, tiny_model
from timix_pl.core.types import ItemBatch
from timix_pl.data.sets.caption_items import CaptionItems
from timix_pl.data.sets.questions import Question, QuestionItems
from timix_pl.metrics.vqa import soft_targets
from timix_pl.mixing.strategies.cutmix import CutMix
from timix_pl.mixing.strategies.mixgen import MixGen
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.models.caption_decoder import small_decoder
from timix_pl.models.caption_tokenizers import CaptionsToTokens
from timix_pl.models.captioner import Captioner
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.fusion import VqaModel
from timix_pl.training.step_cost import ItemWorkload, PairWorkload, count_flops, count_kept, flops_of


def flops_of_pairs(model, mixer, compute="extra"):
    return count_flops(PairWorkload(model, mixer, compute))


def transformer(num_blocks, num_tokens, width, mlp_width):
    """Forward FLOPs: four projections, two products of attention, two layers of the MLP, two per multiply-add."""
    return num_blocks * 2 * num_tokens * (4 * width * width + 2 * num_tokens * width + 2 * width * mlp_width)


def test_a_pair_costs_what_the_formulas_of_clip_say():
    """ViT-B-32: 12 blocks of 768 on 50 tokens and 12 of 512 on 77."""
    model = DualEncoder.create("ViT-B-32", with_pta=False, device="meta")
    image = 2 * 49 * 3 * 32 * 32 * 768 + transformer(12, 50, 768, 3072) + 2 * 768 * 512
    text = transformer(12, 77, 512, 2048) + 2 * 512 * 512
    pair = pytest.approx(3 * (image + text), rel=1e-6)
    assert flops_of_pairs(model, None) == {"pair": pair, "mixed_image": 0.0, "region_image": 0.0, "phrase": 0.0}


def pta_head(model, num_images, num_phrases):
    """Forward FLOPs: per patch of an image, per phrase, per patch of a phrase's image."""
    head, num_patches = model.pta, GRID[0] * GRID[1]
    weights = {name: p.numel() for name, p in head.named_parameters() if p.ndim == 2}
    per_patch = weights["input.1.weight"] + weights["local.weight"]
    per_patch_of_a_phrase = weights["output.1.weight"] + weights["output.3.weight"]
    return 2 * (num_images * num_patches * per_patch + num_phrases * (weights["context.weight"] + num_patches * per_patch_of_a_phrase))


@pytest.mark.parametrize("pta_grad", ["full", "trunk", "head"])
def test_what_carries_no_gradient_has_no_backward_pass(pta_grad):
    whole = flops_of_pairs(tiny_model(with_pta=False), CutMix(GRID))
    model = tiny_model(pta_grad=pta_grad)
    found = flops_of_pairs(model, TiMix(GRID))
    assert found["pair"] == whole["pair"]
    assert found["mixed_image"] - whole["mixed_image"] == pta_head(model, 1, 1)  # scored
    caption = flops_of_pairs(tiny_model(with_pta=False), MixGen(GRID))["mixed_image"] - whole["mixed_image"]
    one_phrase = pta_head(model, 1, 2) - pta_head(model, 1, 1)
    assert found["phrase"] == 3 * one_phrase + caption / (1 if pta_grad == "full" else 3)
    trunk = (found["region_image"] - 3 * (pta_head(model, 1, 1) - one_phrase)) / (1 if pta_grad == "head" else 3)
    assert 0.5 < trunk / (whole["mixed_image"] / 3) < 0.8  # two of three blocks


@pytest.mark.parametrize("compute", ["extra", "replace"])
def test_a_mixed_image_that_teaches_costs_the_head_on_three_texts(compute):
    model = tiny_model()
    taught = count_flops(PairWorkload(model, CutMix(GRID), compute, teaches=True))
    silent = flops_of_pairs(model, CutMix(GRID), compute)
    assert taught["mixed_image"] - silent["mixed_image"] == 3 * pta_head(model, 1, 3)
    assert taught["pair"] == silent["pair"]


def test_in_place_mixing_costs_its_scores_alone():
    model = tiny_model()
    extra, replace = flops_of_pairs(model, TiMix(GRID)), flops_of_pairs(model, TiMix(GRID), "replace")
    assert replace["mixed_image"] == pytest.approx(extra["region_image"] / 3, rel=0.1)
    assert flops_of_pairs(model, CutMix(GRID), "replace")["mixed_image"] == 0


def test_a_step_is_the_sum_of_what_it_holds():
    assert flops_of({"pair": 10.0, "mixed_image": 5.0, "phrase": 3.0}, {"pair": 8, "phrase": 2}) == 80 + 6


def really_kept(model, run):
    """Bytes that autograd holds on to in a real pass."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own), result


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("mixer", "num_mixed"), [(TiMix(GRID), 6), (None, 0)])
def test_activations_take_what_a_real_step_keeps(mixer, num_mixed, autocast):
    model = tiny_model()
    pairs, regions = random_pairs(model, 8, seed=0), random_regions(model, 3, 5, seed=0)
    rows = torch.arange(num_mixed)
    mix = mix_step(mixer, "extra", rows, rows.roll(-1), 0, 0, 0) if mixer else None
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        real, _ = really_kept(model, lambda: model(pairs.images, pairs.tokens, mix=mix, regions=regions))
    counts = {"pair": 8, "mixed_image": num_mixed, "region_image": 3, "phrase": 5}
    assert count_kept(PairWorkload(model, mixer), counts, autocast=autocast) == pytest.approx(real, rel=0.01)


def test_checkpointed_blocks_keep_their_inputs_alone_and_dropped_patches_nothing():
    plain, checkpointed, dropping = tiny_model(), tiny_model(), tiny_model(patch_dropout=0.5)
    checkpointed.checkpoint_gradients()
    kept, with_inputs, with_half = (
        count_kept(PairWorkload(model, None), {"pair": 8}, autocast=False) for model in (plain, checkpointed, dropping)
    )
    image_tokens, text_tokens = (GRID[0] * GRID[1] + 1) * 32, 12 * 24
    inputs = 8 * 4 * (3 * image_tokens + 2 * text_tokens)  # of three blocks and of two, in fp32
    assert inputs < with_inputs < inputs + 0.4 * (kept - inputs)
    assert with_half < 0.9 * kept


def task(kind, towers):
    """A model, and the tensors of items that are all alike."""
    tuning = {"towers": towers, "last_blocks": 1}
    if kind == "vqa":
        model = VqaModel(tiny_model(), answers=["red", "blue"], chooses=True, dim=32, heads=2, layers=1, dropout=0.0, **tuning)
        items = QuestionItems(model.tokenizer, ["multiple_choice", "open"], ["red", "blue"], soft_targets)
        return model, lambda count: items.collate([Question("what is it?", ("red",), ("green", "blue"))] * count)[0]
    decoder = small_decoder(32, vocab_size=600, dim=16, layers=2, heads=2, dropout=0.0, max_length=8)
    items = CaptionItems(CaptionsToTokens(decoder.tokenizer, 8))
    return Captioner(tiny_model(), decoder, label_smoothing=0.1, generation={}, **tuning), lambda count: items.collate(
        ["a red ring"] * count
    )[0]


@pytest.mark.parametrize("towers", ["frozen", "last", "all"])
@pytest.mark.parametrize("kind", ["vqa", "captioning"])
def test_a_step_of_a_task_costs_what_a_real_one_does(kind, towers):
    """Kept memory to 1%; FLOPs of a forward pass exactly, and with the backward pass, taken as twice the forward one, to 5%."""
    model, items = task(kind, towers)
    images, index = random_images(4, seed=0), torch.tensor([0, 0, 1, 2, 3, 3])
    batch = ItemBatch(images=images, image_index=index, items_per_image=[2, 1, 1, 2], items=items(6), items_of_term={}, keys=[], first=0)
    with FlopCounterMode(display=False) as forward:
        kept, terms = really_kept(model, lambda: model.sums(batch))
    with FlopCounterMode(display=False) as backward:
        sum(terms.values()).backward()
    workload, counts = ItemWorkload(model, items(1), "captions"), {"image": 4, "item": 6}
    assert count_kept(workload, counts, autocast=False) == pytest.approx(kept, rel=0.01)
    real = forward.get_total_flops() + backward.get_total_flops()
    assert flops_of(count_flops(workload), counts) == pytest.approx(real, rel=0.05)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch)
    model.requires_grad_(False)
    assert flops_of(count_flops(workload), counts) == counter.get_total_flops()
