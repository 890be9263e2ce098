"""Retrieval with several captions and zero-shot classification beside clip-benchmark, on the same features.

Its own accuracies do not run on NumPy 2.4; scikit-learn's are taken of its classifier's logits.
"""

import pytest
import torch
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from torch import nn
from torch.utils.data import DataLoader

from tests.unit.evaluation.fakes import Items, item
from timix_pl.evaluation.evaluators.retrieval import Retrieval
from timix_pl.evaluation.evaluators.zero_shot import ZeroShot

CPU = torch.device("cpu")


class NumberedFeatures(nn.Module):
    """Row n of two random tables, for the picture filled with n and for the text that says n; related, so that some are found.

    A text of three words says the number after its first word.
    """

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.images = torch.randn(64, 8, generator=draw)
        self.texts = self.images.repeat_interleave(8, dim=0)[:512] + 1.2 * torch.randn(512, 8, generator=draw)

    def tokenizer(self, texts):
        return torch.tensor([[int(text.split()[0]) + len(text.split()) - 2] for text in texts])

    def encode_image(self, images):
        return nn.functional.normalize(self.images[images[:, 0, 0, 0].long()], dim=1)

    def encode_text(self, tokens):
        return nn.functional.normalize(self.texts[tokens[:, 0]], dim=1)

    def patch_scores(self, images, tokens):
        raise NotImplementedError


def test_retrieval_with_several_captions():
    items = [item(n, [f"{8 * n + c} caption" for c in range(1 + n % 7)]) for n in range(50)]
    model = NumberedFeatures()
    batches = [items[start : start + 8] for start in range(0, 50, 8)]
    loader = [(torch.stack([one.image for one in batch]), [list(one.captions) for one in batch]) for batch in batches]
    theirs = zeroshot_retrieval.evaluate(model, loader, model.tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])

    ours = Retrieval(Items(items), batch_size=8).run(model, CPU).metrics
    for k in (1, 5, 10):
        assert ours[f"retrieval/text_to_image/recall_at_{k}"] == pytest.approx(theirs[f"image_retrieval_recall@{k}"])
        assert ours[f"retrieval/image_to_text/recall_at_{k}"] == pytest.approx(theirs[f"text_retrieval_recall@{k}"])
    assert 0 < ours["retrieval/image_to_text/recall_at_1"] < 1


def test_zero_shot_with_several_templates():
    classes, templates = [str(8 * n) for n in range(9)], ["{c} here", "{c} or so"]
    items = [item(n, label=n % 9) for n in range(45)]
    model = NumberedFeatures()
    loader = DataLoader([(one.image, one.extra["label"]) for one in items], batch_size=8)
    classifier = zeroshot_classification.zero_shot_classifier(model, model.tokenizer, classes, templates, "cpu", amp=False)
    logits, labels = zeroshot_classification.run_classification(model, classifier, loader, "cpu", amp=False)

    ours = ZeroShot(Items(items), classes, [template.replace("{c}", "{}") for template in templates], batch_size=8).run(model, CPU).metrics
    assert ours["zero_shot/top_1"] == pytest.approx(top_k_accuracy_score(labels, logits, k=1))
    assert ours["zero_shot/top_5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5))
    assert ours["zero_shot/mean_per_class"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(dim=1)))
    assert 0 < ours["zero_shot/top_1"] < ours["zero_shot/top_5"] < 1
