"""Captioning from the command line: killed and resumed, evaluated again, and what is told to those who ask for the impossible."""

import json

import pytest
import torch

from tests.e2e.test_killed import killed_after, rows
from tests.tiny import encoded_image, random_captions, random_pixels, write_shards
from tests.tiny_decoder import write_decoder
from timix_pl.cli.evaluate import main as evaluate
from timix_pl.cli.train import main as train
from timix_pl.data.shards.writer import ShardWriter

QUIET = ["trainer=cpu", "trainer.progress_bar=false", "trainer.log_every_n_steps=1", "trainer.num_threads=1", "data.num_workers=1"]
SMALL = ["captioning.vocab_size=600", "captioning.dim=16", "captioning.layers=1", "captioning.heads=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards, two steps of plain CLIP on them, and a language model of their words."""
    folder = tmp_path_factory.mktemp("captioning")
    write_decoder(folder / "decoder")
    write_shards(folder / "train", 20)
    write_shards(folder / "val", 11, seed=1)
    words = [*QUIET, "model=tiny", "mixing=none", "trainer.max_steps=2", "data.global_batch_size=8", "evaluation.tasks=[]"]
    train([*words, f"data.train_shards={folder / 'train'}", f"run_dir={folder / 'pretrained'}"])
    return folder


def words_for(folder, run_dir, *words):
    shards = [f"data.train_shards={folder / 'train'}", f"data.val_shards={folder / 'val'}"]
    steps = ["trainer.max_steps=6", "data.global_batch_size=8", "tune.items_per_image=1", "tune.towers=last", "tune.last_blocks=1"]
    steps += ["evaluation.every_n_steps=3", "evaluation.batch_size=4", "checkpoint.every_n_steps=2"]
    decoder = ["captioning.max_length=12", *([] if any(word.startswith("captioning.decoder=") for word in words) else SMALL)]
    return [*QUIET, "task=captioning", f"init={folder / 'pretrained'}", *shards, *steps, *decoder, f"run_dir={run_dir}", *words]


@pytest.fixture(scope="module")
def unbroken(folder):
    train(words_for(folder, folder / "unbroken", f"captioning.decoder={folder / 'decoder'}"))
    return folder / "unbroken"


def test_a_killed_run_ends_where_an_unbroken_one_does(folder, unbroken):
    broken = words_for(folder, folder / "broken", f"captioning.decoder={folder / 'decoder'}")
    killed_after(5, broken)
    train(broken)
    one, two = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (folder / "broken", unbroken))
    assert one["global_step"] == two["global_step"] == 6
    assert all(torch.equal(one["state_dict"][name], two["state_dict"][name]) for name in two["state_dict"])
    for number, state in two["optimizer_states"][0]["state"].items():
        assert all(torch.equal(one["optimizer_states"][0]["state"][number][name], state[name]) for name in state)
    assert rows(folder / "broken") == rows(unbroken)
    assert (folder / "broken" / "evaluation.json").read_text() == (unbroken / "evaluation.json").read_text()


def test_metrics_chance_and_examples_are_left_in_the_run(unbroken):
    result = json.loads((unbroken / "evaluation.json").read_text())
    names = {f"captioning/{name}" for name in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d")}
    assert result["step"] == 6 and result["metrics"].keys() == result["chance"].keys() == names
    assert 0 < result["metrics"]["captioning/bleu_1"] < 1 and 0 < result["metrics"]["captioning/cider_d"] < 10
    examples = json.loads((unbroken / "examples" / "captioning.json").read_text())
    assert len(examples) == 11 and all((unbroken / "examples" / example["image"]).is_file() for example in examples)
    assert all(len(example["references"]) == 2 and isinstance(example["caption"], str) for example in examples)
    assert (unbroken / "checkpoints" / "best.ckpt").exists()


def test_a_checkpoint_gives_its_figures_again_without_the_run_it_started_from(folder, unbroken, capsys):
    (folder / "pretrained").rename(folder / "elsewhere")
    try:
        evaluate([f"checkpoint={unbroken}"])
    finally:
        (folder / "elsewhere").rename(folder / "pretrained")
    shown = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("captioning/")}
    result = json.loads((unbroken / "evaluation.json").read_text())
    assert shown == {name: f"{100 * value:.1f}" for name, value in result["metrics"].items()}


def message(command, words, capsys):
    """What is said when a command refuses; it is one message, and no stack trace."""
    with pytest.raises(SystemExit) as stopped:
        command(words)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_sizes_that_are_not_the_checkpoints(folder, tmp_path, capsys):
    train(words_for(folder, tmp_path / "run", "trainer.max_steps=1"))
    said = message(evaluate, [f"checkpoint={tmp_path / 'run'}", "captioning.vocab_size=700", "captioning.dim=32"], capsys)
    assert "captioning.vocab_size=700, captioning.dim=32: the checkpoint was made with captioning.vocab_size=600, captioning.dim=16" in said


def test_a_folder_with_another_vocabulary_than_the_checkpoints(unbroken, tmp_path, capsys):
    other = write_decoder(tmp_path / "other", vocab_size=50)
    said = message(evaluate, [f"checkpoint={unbroken}", f"captioning.decoder={other}"], capsys)
    assert "not a checkpoint of this model" in said and "decoder.transformer.wte.weight" in said


def test_a_decoder_that_is_not_there(folder, tmp_path, capsys):
    said = message(train, words_for(folder, tmp_path / "run", f"captioning.decoder={tmp_path / 'nowhere'}"), capsys)
    assert f"captioning.decoder={tmp_path / 'nowhere'}: cannot be loaded" in said


def test_numbers_that_cannot_be(folder, tmp_path, capsys):
    said = message(
        train, words_for(folder, tmp_path / "run", "captioning.heads=3", "captioning.vocab_size=100", "captioning.num_beams=0"), capsys
    )
    assert "captioning.dim=16, captioning.heads=3: the channels must be a multiple of the heads" in said
    assert "captioning.vocab_size=100: must be from 514 to 49408" in said and "captioning.num_beams=0: must be at least 1" in said


def test_an_image_without_captions_in_evaluation(folder, unbroken, tmp_path, capsys):
    with ShardWriter(tmp_path / "val") as writer:
        for number in range(5):
            captions = random_captions(1, number) if number != 3 else []
            writer.write(f"v{number}", encoded_image(random_pixels(40, 60, number), "PNG"), "png", captions=captions)
    said = message(evaluate, [f"checkpoint={unbroken}", f"data.val_shards={tmp_path / 'val'}"], capsys)
    assert "v3 has no captions, and captioning needs at least one" in said


def test_a_model_that_writes_nothing_is_left_out_with_the_reason(folder, capsys, caplog):
    evaluate([f"checkpoint={folder / 'pretrained'}", f"data.val_shards={folder / 'val'}", "evaluation=[captioning,retrieval]"])
    assert "captioning is left out, because the model writes no captions" in caplog.text + capsys.readouterr().err
