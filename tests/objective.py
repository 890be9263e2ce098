"""The loss of pre-training, as tests need it."""

from timix_pl.training.objective import Contrastive, Objective


def pair_objective(loss=None, *, pta_weight=1.0, terms=None, batch_terms=None, **options):
    return Objective(Contrastive(loss, terms=batch_terms, **options), terms=terms, weights={"patch_text": pta_weight})


def loss_of(objective, encoded, batch, *, gamma=1.0):
    """Of one forward pass of this rank's whole batch."""
    return objective(encoded, batch, objective.count_items(batch, batch.images.device), gamma=gamma)
