"""Build the loss from the configuration."""

from timix_pl.building.entries import create
from timix_pl.config.schema import RootConfig
from timix_pl.core.choices import LOSS_TERMS, LOSSES
from timix_pl.core.errors import ConfigError
from timix_pl.losses.term import BatchTerm, ChunkTerm
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.training.objective import Contrastive, Objective


def build_objective(cfg: RootConfig, encoder: DualEncoder) -> Objective:
    """The loss of pre-training. Further terms are added to the encoder, which runs them in its forward pass.

    Raises:
        ConfigError: the loss or a term rejects its options, or a term has a name that the loss uses itself.
    """
    if taken := {cfg.loss.kind, "mixed", "patch_text", "patch_text_mixed", "total"} & set(cfg.loss.terms):
        raise ConfigError(
            [f"loss.terms: '{name}' is also the name of a part of the loss; register the term under another name" for name in sorted(taken)]
        )
    terms = {name: create(cfg, LOSS_TERMS, name, encoder) for name in cfg.loss.terms}
    encoder.add_terms(terms)
    contrastive = Contrastive(
        create(cfg, LOSSES, cfg.loss.kind),
        negatives=cfg.loss.negatives,
        targets=cfg.mixing.targets,
        tile_rows=cfg.loss.tile_rows,
        terms={name: term for name, term in terms.items() if isinstance(term, BatchTerm)},
    )
    chunk_terms = {name: term for name, term in terms.items() if isinstance(term, ChunkTerm)}
    return Objective(contrastive, terms=chunk_terms, weights=dict.fromkeys(("patch_text", "patch_text_mixed"), cfg.pta.weight))
