"""What decays and what does not, on the towers themselves."""

from tests.tiny import tiny_model
from timix_pl.optim.groups import parameter_groups


def test_matrices_decay_and_nothing_else():
    model = tiny_model(init_logit_bias=-10.0)
    decayed, plain = parameter_groups(model, 0.2)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.2, 0.0)
    name_of = {id(p): name for name, p in model.named_parameters()}
    names = [{name_of[id(p)] for p in group["params"]} for group in (decayed, plain)]
    assert names[0] | names[1] == set(name_of.values()) and not names[0] & names[1]
    assert {"image.tower.conv1.weight", "image.tower.proj", "text.projection", "text.tower.token_embedding.weight"} <= names[0]
    assert {"logit_scale", "logit_bias", "image.tower.class_embedding", "image.tower.positional_embedding"} <= names[1]
    assert "text.tower.positional_embedding" in names[1] and "image.tower.ln_post.weight" in names[1]
    assert all(not name.endswith("bias") for name in names[0])


def test_frozen_parameters_are_left_out():
    model = tiny_model()
    model.text.requires_grad_(False)
    found = {id(p) for group in parameter_groups(model, 0.1) for p in group["params"]}
    assert found == {id(p) for p in model.parameters() if p.requires_grad}
