import pytest
import torch

from tests.unit.evaluation.fakes import Items, OracleModel, item
from timix_pl.evaluation.evaluators.retrieval import Retrieval
from timix_pl.evaluation.model import encode_texts, evaluating

CPU = torch.device("cpu")


def test_every_module_is_back_in_its_mode_even_after_an_error():
    model = OracleModel().train()
    model.frozen.eval()
    with pytest.raises(KeyError), evaluating(model):
        assert not model.training and not model.active.training
        raise KeyError
    assert model.training and model.active.training and not model.frozen.training
    assert torch.is_grad_enabled()


def test_evaluation_leaves_the_random_numbers_of_training_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Retrieval(Items([item(0, ["a 0"])]), batch_size=1, num_workers=1).run(OracleModel(), CPU)
    assert torch.equal(torch.rand(3), expected)


def test_texts_come_back_in_their_order_from_batches_of_the_given_size():
    model = OracleModel().eval()
    batches = []
    tokenizer = model.tokenizer
    model.tokenizer = lambda texts: batches.append(len(texts)) or tokenizer(texts)
    with evaluating(model):
        features = encode_texts(model, ["7", "3", "7", "1", "0"], batch_size=3, device=CPU)
    assert features.argmax(dim=1).tolist() == [7, 3, 7, 1, 0]
    assert batches == [3, 1]
