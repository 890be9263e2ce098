"""Every optimizer of the registry, and the average of the weights, on two ranks: copies against one process, shards against copies."""

import functools
from contextlib import contextmanager

import pytest
import timm.optim.muon
import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.distributed.spawn import run_on_ranks
from tests.distributed.test_training import train
from tests.optim import optim_settings
from tests.tiny import random_images, random_pairs, random_regions, tiny_model, write_shards
from tests.unit.training.running import same, weights_of
from timix_pl.core.choices import OPTIMIZERS
from timix_pl.core.types import EvaluationResult
from timix_pl.evaluation.model import evaluating
from timix_pl.optim.average import averaged_weights
from timix_pl.training.callbacks.evaluation import EvaluationCallback
from timix_pl.training.sharding import ShardedStrategy

KINDS = OPTIMIZERS.names()
SHARDED = [kind for kind in KINDS if OPTIMIZERS[kind].shards]
HALFWAY = "step-00000002.ckpt"
EVALUATED = "sgd"  # after every step, which the average needs of one optimizer only
# so large an eps that AdamW moves by the gradient, not by its sign: rounding stays rounding
SETTINGS = {"adamw": {"eps": 1.0, "lr": 0.1}, "muon": {"eps": 1.0, "lr": 0.02}, "sgd": {"lr": 0.1}}


@contextmanager
def muon_in_full_precision():
    """Its matrix products run in bf16, where another order of the same sum is another sum."""
    own = timm.optim.muon.zeropower_via_newtonschulz
    timm.optim.muon.zeropower_via_newtonschulz = functools.partial(own, dtype=torch.float32)
    try:
        yield
    finally:
        timm.optim.muon.zeropower_via_newtonschulz = own


def features_of(model):
    with evaluating(model):
        return model.encode_image(random_images(2, 0))[:, 0].sum().item()


class Features:
    """An evaluator that tells of the weights that it meets."""

    name = "features"

    def run(self, model, device):
        return EvaluationResult({"features/sum": features_of(model)}, {})


def trained(folder, kind, *, saved_as=None, resume_from=None, sharded=False):
    """A run whose checkpoints, if it is to have any, other runs find by a name."""
    evaluation = EvaluationCallback([Features()], every_n_steps=1, folder=folder, averaged=True)
    return train(
        folder,
        saved_as and folder / kind / saved_as,
        resume_from=resume_from and folder / kind / resume_from / HALFWAY,
        strategy=ShardedStrategy(2, sharded_checkpoints=True) if sharded else None,
        optim=optim_settings(
            **({"kind": kind, "lr": 1e-3, "weight_decay": 0.01, "warmup_frac": 0.25, "ema": 0.75} | SETTINGS.get(kind, {}))
        ),
        callbacks=[evaluation] if kind == EVALUATED else [],
    )


def runs_on_two(folder):
    found = {}
    with muon_in_full_precision():
        for kind in KINDS:
            found[kind, "copies"] = trained(folder, kind, saved_as="copies")
            found[kind, "copies, resumed"] = trained(folder, kind, resume_from="copies")
        for kind in SHARDED:
            found[kind, "shards"] = trained(folder, kind, saved_as="shards", sharded=True)
            found[kind, "shards, resumed"] = trained(folder, kind, resume_from="shards", sharded=True)
            found[kind, "shards from copies"] = trained(folder, kind, resume_from="copies", sharded=True)
            found[kind, "copies from shards"] = trained(folder, kind, resume_from="shards")
            found[kind, "state"] = stated_and_kept(kind)
    return found


def stated_and_kept(kind):
    """Of each parameter of a sharded model: what the entry states, and what an optimizer keeps that made its state in its first step."""
    model, settings = tiny_model(), optim_settings(kind=kind)
    for part in (*model.blocks(), model.image, model.text, model.pta, model):
        fully_shard(part)
    optimizer = settings.optimizer.build(settings.parameter_groups(model, model.parts()), 1e-3)
    pairs = random_pairs(model, 2, seed=0)
    encoded = model(pairs.images, pairs.tokens, regions=random_regions(model, 2, 2, seed=0))
    features = encoded.image_features @ encoded.text_features.T * encoded.logit_scale
    (features.square().sum() + encoded.region_logits.square().mean()).backward()
    optimizer.step()
    kept = optimizer.state_dict()["state"]
    members = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    return [
        (shapes(settings.optimizer.state(parameter, group)), shapes(kept[number]))
        for number, (parameter, group) in enumerate(members)
        if parameter.grad is not None
    ]


def shapes(state):
    return {
        key: (value.shape, value.dtype, str(value.placements), value.to_local().shape)
        if isinstance(value, DTensor)
        else (value.shape, value.dtype)
        for key, value in state.items()
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Those of one process, and of each of two ranks."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder / "train", 20)
    write_shards(folder / "regions", 10, seed=1, num_regions=2)
    with muon_in_full_precision():
        one = {kind: trained(folder, kind) for kind in KINDS}
    return one, run_on_ranks(runs_on_two, 2, folder)


def close(found, wanted):
    """Up to rounding, as a share of the farthest move. The gradient of a key's bias is nothing but rounding: attention does not see it."""
    start = weights_of(tiny_model())
    moved = max((wanted[name] - start[name]).abs().max().item() for name in start)
    assert moved > 1e-4 and found.keys() == wanted.keys()
    for name in wanted:
        pair = [weights[name] for weights in (found, wanted)]
        if name.endswith("in_proj_bias"):
            pair = [torch.cat((bias.tensor_split(3)[0], bias.tensor_split(3)[2])) for bias in pair]
        torch.testing.assert_close(*pair, rtol=0, atol=1e-3 * moved, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_train_the_model_of_one(results, kind):
    one, ranks = results
    for of_rank in ranks:
        close(of_rank[kind, "copies"][0], one[kind][0])
    assert same(*(of_rank[kind, "copies"][0] for of_rank in ranks))


@pytest.mark.parametrize("kind", SHARDED)
@pytest.mark.parametrize("name", ["shards", "shards from copies", "copies from shards"])
def test_shards_train_the_model_of_copies_and_go_on_from_each_others_checkpoints(results, kind, name):
    _, ranks = results
    for of_rank in ranks:
        close(of_rank[kind, name][0], of_rank[kind, "copies"][0])


@pytest.mark.parametrize(("kind", "name"), [*((kind, "copies") for kind in KINDS), *((kind, "shards") for kind in SHARDED)], ids="-".join)
def test_a_resumed_run_ends_with_the_same_bits(results, kind, name):
    _, ranks = results
    for of_rank in ranks:
        assert same(of_rank[kind, f"{name}, resumed"][0], of_rank[kind, name][0])
    assert ranks[0][kind, f"{name}, resumed"][1] == ranks[0][kind, name][1][2:]


@pytest.mark.parametrize("kind", SHARDED)
def test_an_entry_states_the_shards_that_its_optimizer_keeps(results, kind):
    _, ranks = results
    for of_rank in ranks:
        pairs = of_rank[kind, "state"]
        assert len(pairs) > 60
        for stated, kept in pairs:
            assert stated == kept
            assert any("Shard" in str(of) for of in kept.values())


def test_the_average_is_evaluated_whether_it_is_sharded_or_not(results):
    one, ranks = results
    weights, rows = one[EVALUATED]
    last, averaged = tiny_model(), tiny_model()
    last.load_state_dict({name: value for name, value in weights.items() if not name.startswith("average.")})
    averaged.load_state_dict(last.state_dict() | averaged_weights(weights, "average."))
    assert rows[-1]["features/sum"] == pytest.approx(features_of(averaged), rel=1e-5)
    assert abs(features_of(last) - features_of(averaged)) > 1e-3
    for name in ("copies", "shards"):
        of_two = [row["features/sum"] for row in ranks[0][EVALUATED, name][1]]
        assert of_two == pytest.approx([row["features/sum"] for row in rows], rel=1e-4)
