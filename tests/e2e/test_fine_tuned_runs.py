"""``timix-train task=vqa`` from a pre-trained run: what it leaves, a kill in between, a text-only answerer, and what is refused."""

import json
import shutil

import pytest
import torch

from tests.e2e.test_killed import killed_after, rows
from tests.questions import write_question_shards
from tests.tiny import write_shards
from timix_pl.cli.evaluate import main as evaluate
from timix_pl.cli.train import main as train

FAST = ["trainer=cpu", "trainer.progress_bar=false", "trainer.log_every_n_steps=1", "trainer.num_threads=1", "data.num_workers=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pre-trained run, and shards with questions."""
    folder = tmp_path_factory.mktemp("tasks")
    write_shards(folder / "pairs", 16)
    words = ["model=tiny", "mixing=none", "pta.enabled=true", "pta.batch_size=4", "trainer.max_steps=1", "data.global_batch_size=8"]
    write_shards(folder / "regions", 8, seed=1, num_regions=2)
    shards = [f"data.train_shards={folder / 'pairs'}", f"data.region_shards={folder / 'regions'}", "evaluation.tasks=[]"]
    train([*FAST, *words, *shards, f"run_dir={folder / 'pretrained'}"])
    write_question_shards(folder / "train", 24)
    write_question_shards(folder / "val", 11)
    return folder


def words(folder, *more):
    shards = [f"data.train_shards={folder / 'train'}", f"data.val_shards={folder / 'val'}", "data.global_batch_size=8"]
    return [*FAST, "task=vqa", f"init={folder / 'pretrained'}", *shards, "vqa.dim=32", "vqa.heads=2", "vqa.layers=1", *more]


def weights(run, name="last.ckpt"):
    return torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]


def test_a_killed_run_ends_where_an_unbroken_one_does_and_is_evaluated_without_init(folder, tmp_path, capsys):
    """Dropout, partly tuned towers, chunks, an evaluation on the way; the run that it started from is gone when it goes on."""
    of_both = ["vqa.kind=both", "tune.towers=last", "tune.last_blocks=1", "trainer.micro_batch_size=4", "trainer.max_steps=6"]
    of_both += ["trainer.gradient_checkpointing=true"]
    of_both += ["checkpoint.every_n_steps=2", "evaluation.every_n_steps=3"]
    train(words(folder, *of_both, f"run_dir={tmp_path / 'whole'}"))
    shutil.copytree(folder / "pretrained", tmp_path / "pretrained")
    broken = words(folder, *of_both, f"init={tmp_path / 'pretrained'}", f"run_dir={tmp_path / 'broken'}")
    killed_after(5, broken)
    shutil.rmtree(tmp_path / "pretrained")
    train(broken)
    one, two = weights(tmp_path / "broken"), weights(tmp_path / "whole")
    assert one.keys() == two.keys() and all(one[name].equal(two[name]) for name in one)
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")

    before = {f"model.encoder.{name.removeprefix('model.')}": tensor for name, tensor in weights(folder / "pretrained").items()}
    moved = {name for name in before if not before[name].equal(two[name])}
    assert moved and all(".resblocks." in name for name in moved) and any(name.startswith("model.encoder.pta.") for name in before)
    answers = json.loads((tmp_path / "whole" / "answers.json").read_text())["answers"]
    assert sorted(answers) == ["blue", "green", "nowhere", "red", "yellow"] and answers[0] == "nowhere"
    evaluation = json.loads((tmp_path / "whole" / "evaluation.json").read_text())
    assert {"vqa/accuracy", "vqa/multiple_choice/accuracy/what", "vqa/open/accuracy/where"} <= evaluation["metrics"].keys()
    assert evaluation["step"] == 6 and "vqa/multiple_choice/accuracy" in evaluation["chance"]
    assert len(json.loads((tmp_path / "whole" / "examples" / "vqa.json").read_text())) > 8
    assert "VQA, multiple choice" in (tmp_path / "whole" / "report.html").read_text()

    capsys.readouterr()
    evaluate([f"checkpoint={tmp_path / 'broken'}"])
    printed = capsys.readouterr().out
    assert f"{100 * evaluation['metrics']['vqa/accuracy']:.1f}%" in printed and "vqa/open/reachable" in printed
    with pytest.raises(SystemExit):
        evaluate([f"checkpoint={tmp_path / 'broken'}", "data.val_shards=" + str(folder / "pairs")])
    assert "images has questions" in capsys.readouterr().err


def test_the_text_alone_does_not_tell_the_colour(folder, tmp_path):
    """The image's answerer learns it; the text-only one cannot, and keeps to what is asked of all pictures alike."""
    found = {}
    for name, more in (("seeing", []), ("blind", ["vqa.use_image=false"])):
        run = tmp_path / name
        train(
            words(
                folder,
                "trainer.max_steps=40",
                "data.num_workers=0",
                "optim.lr=3e-3",
                "vqa.dropout=0",
                "vqa.dim=64",
                "evaluation.every_n_steps=null",
                f"run_dir={run}",
                *more,
            )
        )
        found[name] = json.loads((run / "evaluation.json").read_text())["metrics"]
    assert found["seeing"]["vqa/multiple_choice/accuracy/what"] > 0.8
    assert found["blind"]["vqa/multiple_choice/accuracy/what"] < 0.6 and found["blind"]["vqa/multiple_choice/accuracy/where"] == 1


def test_a_dry_run_tells_what_would_be_trained(folder, capsys, tmp_path):
    train(words(folder, "dry_run=true", "trainer.max_steps=3", f"run_dir={tmp_path / 'run'}"))
    printed = capsys.readouterr().out
    assert (
        "the task's head" in printed
        and "trained among them" in printed
        and "GFLOP" in printed
        and "3 steps of 8 images, 1 epochs of 24 images" in printed
    )
    assert "architecture: timix-tiny" in printed and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["model.architecture=ViT-B-32"], "model.architecture=ViT-B-32: of the model of init="),
        (["model=small"], "it is timix-tiny; leave it out"),
        (["pta.block=3"], "pta.block=3: of the model of init="),
        (["init=nowhere"], "init=nowhere: there is no such run directory"),
        (["init=tests"], "init=tests: there is no tests/config.yaml"),
        (["mixing=timix"], "task=vqa, mixing.kind=timix: images are mixed only in pre-training"),
        (["data=stream"], "task=vqa, data.kind=stream: a task needs shards that can be indexed"),
        (["trainer.strategy=fsdp"], "choose trainer=ddp"),
        (["vqa.dim=31"], "vqa.dim=31, vqa.heads=2"),
        (["task=pretrain", "mixing=none"], "a task starts from another run"),
        (["tune.block=9"], "tune.block=9: the image tower has 4 blocks"),
        (["tune.towers=last", "tune.last_blocks=99"], "tune.last_blocks=99: of the image tower 4 blocks are used"),
        (["data.train_shards=PAIRS"], "none of the 16 samples looked at can be used; the last reason: the sample has no questions"),
        (["data.val_shards=PAIRS"], "data.val_shards: none of the 16 images has questions"),
    ],
)
def test_what_makes_no_sense_is_refused(folder, tmp_path, more, said, capsys, monkeypatch):
    more = [word.replace("PAIRS", str(folder / "pairs")) for word in more]
    with pytest.raises(SystemExit) as ended:
        train(words(folder, "trainer.max_steps=1", f"run_dir={tmp_path / 'run'}", *more))
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_kind_is_refused(folder, tmp_path, capsys):
    train(words(folder, "trainer.max_steps=1", "evaluation.tasks=[]", f"run_dir={tmp_path / 'choices'}"))
    for typed, said in (
        ([f"checkpoint={tmp_path / 'choices'}", "vqa.kind=open"], "this checkpoint was trained for multiple_choice, and not for open"),
        ([f"checkpoint={folder / 'pretrained'}", "task=vqa"], "task=vqa: has no effect in an evaluation; remove it"),
    ):
        with pytest.raises(SystemExit):
            evaluate(typed)
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train(words(folder, "trainer.max_steps=1", f"init={tmp_path / 'choices'}", f"run_dir={tmp_path / 'next'}"))
    assert "a run with task=vqa; a task starts from a pre-training run" in capsys.readouterr().err
