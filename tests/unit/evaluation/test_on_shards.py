"""All evaluators on a real model and real shards, against the model asked about one sample at a time."""

import json

import numpy as np
import pytest
import torch

from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.evaluation.evaluator import run_tasks
from timix_pl.evaluation.evaluators.grounding import Grounding
from timix_pl.evaluation.evaluators.retrieval import Retrieval
from timix_pl.evaluation.evaluators.zero_shot import ZeroShot
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.scenes.make import make_scenes


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DualEncoder.create("timix-tiny", pta_block=2)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation") / "scenes"
    make_scenes(folder, num_train=1, num_regions=1, num_val=21, num_zero_shot=13, image_size_px=64, misaligned_frac=0, seed=0)
    return folder


@torch.no_grad()
def one_by_one(model, dataset, texts):
    model.eval()
    images = torch.cat([model.encode_image(item.image[None]) for item in dataset])
    return images.numpy(), torch.cat([model.encode_text(model.tokenizer([text])) for text in texts]).numpy()


def test_figures_equal_the_model_asked_one_sample_at_a_time(model, scenes):
    val, zero_shot = (EvaluationSet(str(scenes / split), model.image_size_px) for split in ("val", "zero_shot"))
    words = json.loads((scenes / "zero_shot" / "classes.json").read_text())
    classes, templates = words["classes"], words["templates"]
    evaluators = [
        Retrieval(val, batch_size=8, num_workers=1),
        ZeroShot(zero_shot, classes, templates, batch_size=8),
        Grounding(val, batch_size=8, num_workers=1),
    ]
    metrics, chance, *_ = run_tasks(evaluators, model.train(), torch.device("cpu"))
    assert model.training and metrics.keys() - chance.keys() == {"grounding/patch_calibration_error"}

    captions = [caption for item in val for caption in item.captions]
    owner = [number for number, item in enumerate(val) for _ in item.captions]
    images, texts = one_by_one(model, val, captions)
    found_images = np.argsort(-(texts @ images.T), axis=1)[:, :5]
    assert metrics["retrieval/text_to_image/recall_at_5"] == pytest.approx(
        np.mean([own in found for own, found in zip(owner, found_images, strict=True)])
    )

    images, texts = one_by_one(model, zero_shot, [template.format(name) for name in classes for template in templates])
    of_class = texts.reshape(len(classes), len(templates), -1).sum(axis=1)
    of_class /= np.linalg.norm(of_class, axis=1, keepdims=True)
    found_classes = np.argsort(-(images @ of_class.T), axis=1)[:, :5]
    assert metrics["zero_shot/top_5"] == pytest.approx(
        np.mean([item.extra["label"] in found for item, found in zip(zero_shot, found_classes, strict=True)])
    )

    hits = []
    with torch.no_grad():
        for item in val:
            for region in item.regions:
                scores = model.patch_scores(item.image[None], model.tokenizer([region.phrase]))[0].numpy()
                row, column = np.unravel_index(scores.argmax(), scores.shape)
                x, y = (column + 0.5) / scores.shape[1], (row + 0.5) / scores.shape[0]
                x0, y0, x1, y1 = region.bbox_xyxy_norm
                hits.append(x0 <= x <= x1 and y0 <= y <= y1)
    assert metrics["grounding/pointing"] == pytest.approx(np.mean(hits))
