"""``task=captioning``: a decoder that describes images, on a pre-trained image tower."""

from timix_pl.building.checkpoints import Facts
from timix_pl.building.keys import DECODER, FINE_TUNED
from timix_pl.building.task import FineTuning
from timix_pl.config.schema import RootConfig
from timix_pl.core.choices import TASKS
from timix_pl.core.errors import RunError, in_keys
from timix_pl.core.words import as_typed, counted
from timix_pl.data.sets.caption_items import CaptionItems, captions_of
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.models.caption_decoder import CaptionDecoder, pretrained_decoder, small_decoder
from timix_pl.models.caption_tokenizers import CaptionsToTokens
from timix_pl.models.captioner import Captioner
from timix_pl.models.dual_encoder import DualEncoder

_SIZES = ("vocab_size", "dim", "layers", "heads", "max_length")
"""Options that decide the shapes of the weights of a decoder that is trained from scratch."""


@TASKS.register("captioning")
class Captioning(FineTuning):
    """A decoder that describes images."""

    def learn_facts(self, samples: SampleStream) -> Facts:
        """The options that the decoder is built from.

        Raises:
            DataError: the shards have no captions.
        """
        samples.check(captions_of)
        return {key: getattr(self.cfg.captioning, key) for key in ("decoder", *_SIZES)}

    @in_keys(FINE_TUNED | DECODER)
    def model(self, encoder: DualEncoder, facts: Facts | None) -> Captioner:
        """The model with its decoder.

        Raises:
            ModelError: the decoder cannot be loaded, or cannot attend to an image.
            RunError: the facts, from a checkpoint, describe a decoder of another kind or size.
        """
        captioning, tune = self.cfg.captioning, self.cfg.tune
        if facts is not None:
            _check_fits(self.cfg, facts)
        return Captioner(
            encoder,
            _build_decoder(self.cfg, encoder),
            label_smoothing=captioning.label_smoothing,
            generation={
                "num_beams": captioning.num_beams,
                "length_penalty": captioning.length_penalty,
                "no_repeat_ngram_size": captioning.no_repeat_ngram_size,
            },
            towers=tune.towers,
            last_blocks=tune.last_blocks,
            block=tune.block,
        )

    def items(self, model: Captioner, facts: Facts | None) -> CaptionItems:
        """See :class:`FineTuning`."""
        return CaptionItems(CaptionsToTokens(model.head.tokenizer, self.cfg.captioning.max_length))

    def assumed(self) -> tuple[str, str]:
        """Captions of the maximum length."""
        length = self.cfg.captioning.max_length
        return f"at most {counted(self.cfg.tune.items_per_image, 'caption')} of {length} tokens", " ".join(["a"] * length)


def _build_decoder(cfg: RootConfig, encoder: DualEncoder) -> CaptionDecoder:
    captioning, patch_dim, device = cfg.captioning, encoder.image.patch_dim, encoder.weights_like.device.type
    if captioning.decoder is not None:
        return pretrained_decoder(patch_dim, captioning.decoder, max_length=captioning.max_length, device=device)
    sizes = {key: getattr(captioning, key) for key in _SIZES}
    return small_decoder(patch_dim, **sizes, dropout=captioning.dropout, device=device)


def _check_fits(cfg: RootConfig, facts: Facts) -> None:
    own = {key: getattr(cfg.captioning, key) for key in facts}
    if own["decoder"] is not None and facts["decoder"] is not None:  # a local folder may have moved, so the names need not agree
        return
    if other := [key for key in facts if own[key] != facts[key]]:
        asked, made = (", ".join(f"captioning.{key}={as_typed(values[key])}" for key in other) for values in (own, facts))
        raise RunError(f"{asked}: the checkpoint was made with {made}; remove the options, or choose another checkpoint")
