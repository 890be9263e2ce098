"""What is tuned of the towers, and the features that heads read."""

import pytest
import torch
from open_clip.transformer import TextTransformer

from tests.tiny import GRID, random_captions, random_images, tiny_model
from tests.tiny_task import Lengths
from timix_pl.core.errors import ModelError
from timix_pl.models.fine_tuned import token_dim
from timix_pl.models.text_tower import TextTower


def trained(model):
    return {name.removeprefix("encoder.") for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_frozen_towers_carry_no_gradient_and_stay_in_evaluation_mode():
    model = Lengths(towers="frozen")
    assert trained(model) == {f"head.{name}.{part}" for name in ("long", "short") for part in ("weight", "bias")}
    model.train()
    assert not any(module.training for module in model.encoder.modules()) and model.head.training
    assert not model.patch_features(random_images(2, 0)).requires_grad


def test_the_last_blocks_are_those_before_the_features():
    model = Lengths(towers="last", last_blocks=1)
    blocks = {name.split("resblocks.")[0] + name.split("resblocks.")[1].split(".")[0] for name in trained(model) if "resblocks" in name}
    assert blocks == {"image.tower.transformer.2", "text.tower.transformer.1"}
    assert all("resblocks" in name or name.startswith("head.") for name in trained(model))
    assert model.encoder.image.walk.blocks[2].training and not model.encoder.image.walk.blocks[1].training
    earlier = Lengths(towers="last", last_blocks=1, block=2)
    assert any("image.tower.transformer.resblocks.1." in name for name in trained(earlier))
    assert not any("image.tower.transformer.resblocks.2." in name for name in trained(earlier))


def test_of_whole_towers_everything_learns_that_a_feature_depends_on_and_nothing_else():
    """DDP would wait for the gradient of a projection, or of the PTA head, for ever."""
    model = Lengths(towers="all")
    names = trained(model)
    assert {"image.tower.conv1.weight", "image.tower.positional_embedding", "text.tower.token_embedding.weight"} <= names
    assert not names & {"image.tower.proj", "text.projection", "logit_scale", "image.tower.ln_post.weight"}
    assert not any(name.startswith("pta.") for name in names)
    loss = model.patch_features(random_images(2, 0)).square().sum()
    loss = loss + model.token_features(model.tokenizer(random_captions(2, 0)))[0].square().sum()
    loss.backward()
    with_gradient = {name for name, parameter in model.encoder.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name in names if not name.startswith("head.")}


def test_a_tower_that_is_not_read_stays_frozen():
    model = Lengths(towers="all", reads=("text",))
    assert any(name.startswith("text.") for name in trained(model)) and not any(name.startswith("image.") for name in trained(model))


@pytest.mark.parametrize("block", [2, 3])
def test_patch_features_are_those_of_the_tower_after_the_block(block):
    encoder = tiny_model()
    model, images = Lengths(encoder, block=block), random_images(3, 1)
    expected = encoder.image.tower.forward_intermediates(encoder.normalise(images), indices=[block - 1])["image_intermediates"][0]
    assert model.patch_features(images).shape[1] == GRID[0] * GRID[1]
    torch.testing.assert_close(model.patch_features(images), expected.flatten(2).mT)


@pytest.mark.parametrize("block", [4, 9])
def test_a_block_that_the_tower_lacks_is_refused(block):
    with pytest.raises(ModelError, match=f"`block={block}`: the image tower has 3 blocks"):
        Lengths(block=block)


def test_more_last_blocks_than_a_tower_has_are_refused():
    """Of three blocks of the image tower two are used with ``block=2``; the text tower has two."""
    for options, said in (
        ({"last_blocks": 99}, "`last_blocks=99`: of the image tower 3 blocks are used; choose from 1 to 3, or `towers=all`"),
        ({"last_blocks": 3, "block": 2}, "`last_blocks=3`: of the image tower 2 blocks are used"),
        ({"last_blocks": 99, "reads": ("text",)}, "`last_blocks=99`: of the text tower"),
    ):
        with pytest.raises(ModelError, match=said):
            Lengths(towers="last", **options)


def test_token_features_are_what_the_pooled_feature_is_one_of():
    """The text tower pools the token of the caption's end; padding follows it."""
    encoder = tiny_model()
    tokens = encoder.tokenizer(["a red ring", "who is it", "!"])
    features, padding = encoder.text(tokens, each_token=True)
    ends = (~padding).sum(1) - 1
    assert ends.tolist() == [4, 4, 2] and padding.shape == tokens.shape and features.shape[2] == token_dim(encoder)
    torch.testing.assert_close(features[torch.arange(3), ends], encoder.text(tokens)[1])


def test_tokens_without_their_padding_have_the_same_features():
    encoder = tiny_model()
    tokens = encoder.tokenizer(["a red ring", "who is it"])
    whole, _ = encoder.text(tokens, each_token=True)
    short, padding = encoder.text(tokens[:, :6], each_token=True)
    assert short.equal(whole[:, :6]) and padding.shape == (2, 6)


def test_evaluations_of_the_encoder_run_on_it():
    encoder = tiny_model().eval()
    model, images, tokens = Lengths(encoder), random_images(2, 0), encoder.tokenizer(random_captions(2, 0))
    assert model.encode_image(images).equal(encoder.encode_image(images)) and model.encode_text(tokens).equal(encoder.encode_text(tokens))
    assert model.patch_scores(images, tokens).equal(encoder.patch_scores(images, tokens))
    assert list(model.parts()) == ["image", "text", "pta", "head"]


def test_of_a_tower_that_looks_ahead_padding_is_what_it_was_trained_with():
    torch.manual_seed(0)
    text = TextTower(
        TextTransformer(context_length=8, vocab_size=50, width=16, heads=2, layers=1, output_dim=16, no_causal_mask=True, pad_id=3)
    )
    tokens = torch.tensor([[1, 9, 8, 2, 3, 3, 3, 3], [1, 7, 2, 3, 3, 3, 3, 3]])
    whole, padding = text(tokens, each_token=True)
    assert text(tokens[:, :4], each_token=True)[0].equal(whole[:, :4])
    assert (~padding).sum(1).tolist() == [4, 3]


def test_a_token_with_the_number_of_padding_counts_inside_a_text():
    """CLIP's 0 is padding, and a part of words too."""
    _, padding = tiny_model().text(torch.tensor([[49406, 0, 320, 49407, 0, 0]]), each_token=True)
    assert padding.tolist() == [[False] * 4 + [True] * 2]
