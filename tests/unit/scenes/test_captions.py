"""Captions and phrases, parsed by a grammar of the test's own, against what each sample records."""

import math
import re

import pytest

from tests.unit.scenes.shards import FEW, SPLITS, make, read_split

ATTRIBUTES = {
    "size": "small large",
    "texture": "plain striped dotted",
    "colour": "red green blue yellow purple cyan white black",
    "shape": "circle square triangle ring cross star",
}
WORDS = {name: words.replace(" ", "|") for name, words in ATTRIBUTES.items()}
PHRASE = rf"a (?:(?:{WORDS['size']}) )?(?:(?:{WORDS['texture']}) )?(?:{WORDS['colour']}) (?:{WORDS['shape']})"
RELATION = r"left of|right of|above|below"
CLAUSE = rf"{PHRASE}(?: (?:{RELATION}) {PHRASE})?"
CAPTION = re.compile(rf"(?:a photo of |a picture of |a scene with |there is |we see )?{CLAUSE}(?:, {CLAUSE})*(?:,? and {CLAUSE})?")


def described(phrase, objects):
    """The objects that a phrase is true of."""
    words = phrase.split()[1:]
    return [o for o in objects if set(words) <= {o[name] for name in ATTRIBUTES}]


def holds(relation, a, b):
    """Whether the whole of box a lies so to box b."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a, b
    return {"left of": ax1 <= bx0, "right of": bx1 <= ax0, "above": ay1 <= by0, "below": by1 <= ay0}[relation]


def every_sample(scenes, *splits):
    return [sample for split in splits for sample in scenes[split]]


def test_every_caption_is_a_sentence_of_the_grammar(scenes):
    for sample in every_sample(scenes, *SPLITS):
        assert sample["captions"] == [sample["text"]]
        assert CAPTION.fullmatch(sample["text"]), sample["text"]


def test_relations_are_true(scenes):
    seen = set()
    for sample in every_sample(scenes, *SPLITS):
        objects = sample["scene"]["objects"]
        for a, relation, b in re.findall(rf"({PHRASE}) ({RELATION}) ({PHRASE})", sample["text"]):
            (first,), (second,) = described(a, objects), described(b, objects)
            assert holds(relation, first["bbox_xyxy_norm"], second["bbox_xyxy_norm"]), sample["text"]
            seen.add(relation)
    assert seen == {"left of", "right of", "above", "below"}


def test_clean_captions_name_every_object_once_and_nothing_else(scenes):
    for sample in every_sample(scenes, "regions", "val", "zero_shot"):
        objects = sample["scene"]["objects"]
        phrases = re.findall(PHRASE, sample["text"])
        assert sorted(phrases) == sorted(o["phrase"] for o in objects)
        assert sample["misalignment"] == {"kind": "none", "omitted": [], "absent": []}


def test_training_captions_err_as_recorded(scenes):
    kinds = set()
    for sample in scenes["train"]:
        objects, misalignment = sample["scene"]["objects"], sample["misalignment"]
        phrases = re.findall(PHRASE, sample["text"])
        absent = [phrase for phrase in phrases if not described(phrase, objects)]
        omitted = {o["phrase"] for o in objects} - set(phrases)
        assert absent == misalignment["absent"]
        assert omitted == set(misalignment["omitted"])
        assert misalignment["kind"] == ("absent" if absent else "omitted" if omitted else "none")
        assert len(phrases) > len(absent), "a caption must keep something true"
        kinds.add(misalignment["kind"])
    assert kinds == {"none", "omitted", "absent"}


def test_share_of_misaligned_captions_is_as_asked(scenes):
    num, asked = len(scenes["train"]), 0.4
    share = sum(sample["misalignment"]["kind"] != "none" for sample in scenes["train"]) / num
    assert abs(share - asked) < 4 * math.sqrt(asked * (1 - asked) / num)


@pytest.mark.parametrize(("asked", "kinds"), [(0.0, {"none"}), (1.0, {"omitted", "absent"})])
def test_none_or_all_misaligned(tmp_path, asked, kinds):
    folder = make(tmp_path / "scenes", **FEW | {"num_train": 40}, misaligned_frac=asked)
    assert {sample["misalignment"]["kind"] for sample in read_split(folder, "train")} == kinds


def test_phrases_are_true_of_one_object_alone(scenes):
    for sample in every_sample(scenes, *SPLITS):
        objects = sample["scene"]["objects"]
        for scene_object in objects:
            assert described(scene_object["phrase"], objects) == [scene_object]


def test_regions_are_the_objects_and_training_pairs_have_none(scenes):
    for sample in every_sample(scenes, "regions", "val", "zero_shot"):
        objects = sample["scene"]["objects"]
        assert sample["regions"] == [{name: o[name] for name in ("phrase", "bbox_xyxy_norm")} for o in objects]
    assert not any(sample["regions"] for sample in scenes["train"])


def test_captions_vary(scenes):
    texts = [sample["text"] for sample in scenes["train"]]
    assert len(set(texts)) > 0.95 * len(texts)
    forms = {re.sub(PHRASE, "X", text) for text in texts}
    assert len(forms) > 50


def test_captions_fit_32_tokens(scenes):
    """Words and commas; a begin and an end token on top."""
    assert max(len(re.findall(r"\w+|,", sample["text"])) for sample in every_sample(scenes, *SPLITS)) <= 30
