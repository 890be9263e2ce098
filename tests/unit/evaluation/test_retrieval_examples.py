import torch

from tests.unit.evaluation.test_retrieval import DATASET, run
from timix_pl.evaluation.retrieval_examples import chosen_queries


def number(picture):
    return int(picture[0, 0, 0])


def test_each_query_shows_the_five_best_and_a_right_answer_where_none_of_them_is():
    examples = run().examples["retrieval"]
    by_caption = {example["caption"]: example for example in examples if "caption" in example}
    by_image = {number(example["image"]): example for example in examples if "image" in example}
    assert len(examples) == len(by_caption) + len(by_image) == 8 + 7

    wrong = by_caption["a 5 on a table"]  # of image 2, but says what image 5 shows
    assert [number(one["image"]) for one in wrong["found"]] == [5, 0, 1, 2, 3]
    assert [one["right"] for one in wrong["found"]] == [False, False, False, True, False]
    assert wrong["rank"] == 7 and "answer" not in wrong  # ties count against the model, and four are as good

    assert by_image[1]["rank"] == 1 and [one["right"] for one in by_image[1]["found"]] == [True] * 3 + [False] * 2
    lost = by_image[6]
    assert not any(one["right"] for one in lost["found"]) and lost["answer"] == {"caption": "a 30"}
    nowhere = by_caption["a 30"]
    assert number(nowhere["answer"]["image"]) == 6
    assert len(DATASET) == 7


def test_queries_are_spread_over_right_and_wrong_ones():
    ranks = torch.ones(1000, dtype=torch.long)
    assert chosen_queries(ranks) == [0, 142, 285, 428, 570, 713, 856, 999]
    ranks[500:] = 9
    assert chosen_queries(ranks) == [0, 166, 332, 499, 500, 666, 832, 999]
    ranks[:999] = 2
    ranks[999] = 1
    assert chosen_queries(ranks)[0] == 999 and len(chosen_queries(ranks)) == 8
    assert chosen_queries(torch.tensor([1, 4, 1])) == [0, 2, 1]
