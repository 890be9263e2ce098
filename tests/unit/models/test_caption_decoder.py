import pytest
import torch

from tests.tiny import random_captions
from tests.tiny_decoder import WORD_TOKENS, tiny_bert, tiny_gpt2, tiny_llama, write_decoder
from timix_pl.core.errors import ModelError
from timix_pl.models.caption_decoder import pretrained_decoder, small_decoder
from timix_pl.models.caption_tokenizers import CaptionsToTokens

CAPTIONS = ["a red ring", "a dotted square over the large blue circle", "a green circle"]
PATCH_DIM, NUM_PATCHES = 10, 6


def small(**options):
    torch.manual_seed(0)
    sizes = {"vocab_size": 600, "dim": 32, "layers": 2, "heads": 4, "dropout": 0.0, "max_length": 30}
    return small_decoder(PATCH_DIM, **(sizes | options))


def patches(num_images, seed=0):
    return torch.randn(num_images, NUM_PATCHES, PATCH_DIM, generator=torch.Generator().manual_seed(seed))


def losses(decoder, patch_features, captions):
    """Cross-entropy of each token of each caption, 0 behind its end; image n has caption n."""
    tokens, lengths = CaptionsToTokens(decoder.tokenizer, decoder.max_length)(captions)
    said = torch.arange(1, tokens.shape[1]) < lengths[:, None]
    logits = decoder(patch_features, torch.arange(len(captions)), tokens[:, :-1], said)
    own = torch.nn.functional.cross_entropy(logits, tokens[:, 1:][said], reduction="none")
    return torch.zeros(said.shape).masked_scatter(said, own)


def learn(decoder, patch_features, captions, num_steps):
    """Each image its caption."""
    optimizer = torch.optim.AdamW(decoder.parameters(), 5e-3)
    for _ in range(num_steps):
        losses(decoder, patch_features, captions).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return decoder.eval()


@pytest.fixture(scope="module")
def taught():
    return learn(small(), patches(3), CAPTIONS, 120)


@pytest.mark.parametrize(
    "options", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 4, "length_penalty": 2.0, "no_repeat_ngram_size": 3}]
)
@torch.no_grad()
def test_an_image_gets_its_own_caption_whatever_its_place_in_the_batch(taught, options):
    assert taught.generate(patches(3), **options) == CAPTIONS
    assert taught.generate(patches(3)[[2, 0, 0, 1]], **options) == [CAPTIONS[image] for image in (2, 0, 0, 1)]


@torch.no_grad()
def test_beams_find_captions_that_are_at_least_as_likely(taught):
    """Of images that were never seen, with captions of different lengths judged by their whole probability."""
    unseen = patches(12, seed=5)
    greedy, beams = taught.generate(unseen, num_beams=1), taught.generate(unseen, num_beams=6, length_penalty=0.0)
    gain = (losses(taught, unseen, greedy) - losses(taught, unseen, beams)).sum(1)
    assert gain.min() > -1e-4 and gain.max() > 0.01


@torch.no_grad()
def test_a_caption_that_does_not_end_is_cut():
    captions = small(max_length=5).eval().generate(patches(4), num_beams=2)
    assert len(captions) == 4
    assert all(len(small().tokenizer.encode(caption)) <= 6 for caption in captions)


@torch.no_grad()
def test_a_token_sees_the_tokens_before_it_and_its_own_image_alone():
    decoder, features = small().eval(), patches(3)
    tokens, _ = CaptionsToTokens(decoder.tokenizer, 30)(random_captions(4, 0))
    index, everywhere = torch.tensor([0, 1, 1, 2]), torch.ones_like(tokens, dtype=torch.bool)
    before = decoder(features, index, tokens, everywhere)

    def difference(features, tokens):
        return (decoder(features, index, tokens, everywhere) - before).abs().amax(1).view(tokens.shape)

    changed = tokens.clone()
    changed[2, 4] = 70
    of_token = difference(features, changed)
    assert (of_token[2, 4:] > 1e-5).all() and of_token[2, :4].max() < 1e-5 and of_token[[0, 1, 3]].max() < 1e-5
    features[1] = patches(3, seed=1)[1]
    of_image = difference(features, tokens)
    assert (of_image[1:3] > 1e-5).all() and of_image[[0, 3]].max() < 1e-5


@torch.no_grad()
def test_logits_are_those_of_the_tokens_asked_for():
    decoder = small().eval()
    tokens, _ = CaptionsToTokens(decoder.tokenizer, 30)(CAPTIONS)
    asked = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    everywhere = decoder(patches(3), torch.arange(3), tokens, torch.ones_like(asked)).view(*tokens.shape, 600)
    assert torch.allclose(decoder(patches(3), torch.arange(3), tokens, asked), everywhere[asked], atol=1e-5)
    assert decoder.decoder(tokens).logits.shape == (*tokens.shape, 600)


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_bert])
def test_a_folder_gives_its_weights_and_learns_to_look(tmp_path, make):
    folder = write_decoder(tmp_path, make)
    decoder = pretrained_decoder(PATCH_DIM, folder, max_length=12)
    saved = make(len(WORD_TOKENS)).from_pretrained(folder).state_dict()
    own = decoder.decoder.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in saved.items())
    assert any("crossattention" in name for name in own.keys() - saved.keys())
    learn(decoder, patches(3), CAPTIONS, 150)
    with torch.no_grad():
        assert decoder.generate(patches(3)[[1, 0, 2]], num_beams=3) == [CAPTIONS[image] for image in (1, 0, 2)]


def test_sampling_that_a_folder_asks_for_is_not_done(tmp_path):
    folder = write_decoder(tmp_path / "plain")
    sampled = tiny_gpt2(len(WORD_TOKENS))
    sampled.generation_config.do_sample, sampled.generation_config.temperature = True, 5.0
    sampled.generation_config.save_pretrained(folder)
    decoder = pretrained_decoder(PATCH_DIM, folder, max_length=12).eval()
    with torch.no_grad():
        assert len({tuple(decoder.generate(patches(2), num_beams=2)) for _ in range(5)}) == 1


def test_a_meta_decoder_has_no_weights(tmp_path):
    folder = write_decoder(tmp_path)
    for decoder in (small(device="meta"), pretrained_decoder(PATCH_DIM, folder, max_length=12, device="meta")):
        assert {parameter.device.type for parameter in decoder.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("written", "max_length", "message"),
    [
        ({"make": tiny_llama}, 12, r"LlamaForCausalLM cannot attend to an image"),
        ({}, 13, r"^`max_length=13`: .* has 12 positions"),
        ({"vocab_size": len(WORD_TOKENS) - 1}, 12, rf"knows {len(WORD_TOKENS)} tokens, but GPT2LMHeadModel has {len(WORD_TOKENS) - 1}"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused(tmp_path, written, max_length, message):
    folder = write_decoder(tmp_path, **written)
    with pytest.raises(ModelError, match=message):
        pretrained_decoder(PATCH_DIM, folder, max_length=max_length)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"^`name=.*nowhere`: cannot be loaded: "):
        pretrained_decoder(PATCH_DIM, str(tmp_path / "nowhere"), max_length=12)
