"""The PTA head against one that joins everything first."""

import pytest
import torch
import torch.nn.functional as F

from timix_pl.models.patch_text_alignment import PatchTextAlignment


def naive(head, patch_features, text, image_index):
    """For each text and patch: LayerNorm, Linear, GELU; local half, mean of the other half, text; joined; MLP."""
    norm, linear, _ = head.input
    first_weight, first_bias = torch.cat((head.local.weight, head.context.weight), 1), head.context.bias
    _, second, _, third = head.output
    num_local = head.local.in_features
    rows = []
    for number, image in enumerate(image_index):
        h = F.gelu(F.linear(F.layer_norm(patch_features[image], norm.normalized_shape, norm.weight, norm.bias), linear.weight, linear.bias))
        mean = h[:, num_local:].mean(0)
        joined = torch.stack([torch.cat((h[patch, :num_local], mean, text[number])) for patch in range(len(h))])
        hidden = F.gelu(F.linear(joined, first_weight, first_bias))
        hidden = F.gelu(F.linear(hidden, second.weight, second.bias))
        rows.append(F.linear(hidden, third.weight, third.bias)[:, 0])
    return torch.stack(rows)


@pytest.mark.parametrize("hidden_dim", [8, 7])
@pytest.mark.parametrize("image_index", [None, [0, 2, 2, 1, 0]])
def test_equals_joining_first_in_value_and_gradient(hidden_dim, image_index):
    torch.manual_seed(0)
    head = PatchTextAlignment(10, 6, hidden_dim).double()
    patch_features = torch.randn(3, 12, 10, dtype=torch.float64, requires_grad=True)
    text = torch.randn(3 if image_index is None else 5, 6, dtype=torch.float64, requires_grad=True)
    ours = head(patch_features, text, None if image_index is None else torch.tensor(image_index))
    reference = naive(head, patch_features, text, range(3) if image_index is None else image_index)
    torch.testing.assert_close(ours, reference)
    weights = torch.randn_like(ours)
    for mine, wanted in zip(
        torch.autograd.grad((ours * weights).sum(), (patch_features, text, *head.parameters())),
        torch.autograd.grad((reference * weights).sum(), (patch_features, text, *head.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(mine, wanted)


def test_half_of_the_channels_stay_local():
    head = PatchTextAlignment(10, 6, 8)
    assert head.local.in_features == 4 and head.context.in_features == 4 + 6
