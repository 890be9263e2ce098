"""The loss of pre-training, as tests need it."""

import torch

from timix_pl.losses.term import BatchTerm, ChunkTerm
from timix_pl.training.objective import Contrastive, Objective


def pair_objective(loss=None, *, pta_weight=1.0, terms=None, **options):
    batch_terms, chunk_terms = (
        {name: term for name, term in (terms or {}).items() if isinstance(term, kind)} for kind in (BatchTerm, ChunkTerm)
    )
    return Objective(
        Contrastive(loss, terms=batch_terms, **options),
        terms=chunk_terms,
        weights=dict.fromkeys(("patch_text", "patch_text_mixed"), pta_weight),
    )


def add_terms(model, *kinds):
    """Further terms of the loss, by name, which the model runs from here on."""
    torch.manual_seed(7)
    terms = {kind.choice: kind(model) for kind in kinds}
    model.add_terms(terms)
    return terms


def loss_of(objective, encoded, batch, *, gamma=1.0, more=None):
    """Of one forward pass of this rank's whole batch."""
    return objective(encoded, batch, objective.count_items(batch, batch.images.device, more), gamma=gamma)
