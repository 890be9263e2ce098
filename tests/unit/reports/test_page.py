import csv
import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from tests.fake_run import make_fake_run, write_examples
from timix_pl.building.evaluators import built_in_metric
from timix_pl.core.errors import RunError
from timix_pl.reports.charts import _NOT_DRAWN
from timix_pl.reports.page import write_report


class _Page(HTMLParser):
    """Tags with their attributes, and the text outside of <style>."""

    def __init__(self, html):
        super().__init__()
        self.tags, self._texts, self._inside = [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_data(self, data):
        if self._inside[-1:] != ["style"]:
            self._texts.append(data)

    def count(self, tag, **wanted):
        return sum(name == tag and wanted.items() <= attributes.items() for name, attributes in self.tags)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    return make_fake_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture
def run_dir(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "demo")


def _report(run_dir):
    path = write_report(run_dir, built_in_metric)
    assert path == run_dir / "report.html"
    return _Page(path.read_text(encoding="utf-8"))


def test_a_finished_run_has_every_section(run_dir):
    page = _report(run_dir)
    for title in ("Final figures", "What it learned", "How it ran", "Mixed pairs", "Patch-text alignment", "Configuration"):
        assert title in page.text
    assert "demo finished" in page.text
    for text in (
        "76,800 (3.8 passes over 20,000)",
        "6 min 12 s",
        "206 samples/s",
        "1.5 M (image 812 k, text 634 k, PTA 51 k)",
        "kind: timix",
    ):
        assert text in page.text
    assert "41.2% 0.2% 211 ×" in page.text
    assert "still going" not in page.text and "left out" not in page.text


def test_every_logged_column_is_drawn_and_chance_is_on_the_plots_of_shares(run_dir):
    page = _report(run_dir)
    titles = {attributes["aria-label"] for tag, attributes in page.tags if tag == "svg" and "over steps" in attributes["aria-label"]}
    assert {
        "Loss over steps",
        "Retrieval, image to text over steps",
        "PTA on training batches over steps",
        "Gradient norm over steps",
    } <= titles
    with (run_dir / "metrics.csv").open() as file:
        columns = set(next(csv.reader(file)))
    assert page.count("polyline") == len(columns - {"step", *_NOT_DRAWN})
    assert page.count("line", **{"class": "chance"}) == 7


def test_pictures_are_inside_the_page_with_their_windows(run_dir):
    page = _report(run_dir)
    assert page.count("image") == 4 * 3 + 4 * 3
    assert all(attributes["href"].startswith("data:image/png;base64,") for tag, attributes in page.tags if tag == "image")
    window = {"class": "outline over own", "x": "32.0", "y": "0.0", "width": "32.0", "height": "32.0"}
    assert page.count("rect", **window) == 4
    assert page.text.count("✓ hit") == 3 and page.text.count("✗ miss") == 1
    assert "lam 0.75 a small red ring left of a striped green square" in page.text


def test_nothing_comes_from_outside(run_dir):
    page = _report(run_dir)
    addresses = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("href", "src")]
    assert addresses and all(address.startswith("data:") for address in addresses)
    assert page.count("script") == page.count("link") == 0
    assert not re.search(r"url\(|@import|https?:", (run_dir / "report.html").read_text())


def test_captions_cannot_break_the_page(tmp_path):
    caption = """<script>alert(1)</script> "a" & 'b' </figcaption><img src=x onerror=alert(1)>"""
    page = _report(make_fake_run(tmp_path / "demo", num_steps=400, caption=caption))
    assert page.count("script") == page.count("img") == 0
    assert caption in page.text


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("evaluation.json", "No evaluation yet"),
        ("metrics.csv", "No curves yet"),
        ("pictures", "No pictures of mixed pairs"),
        ("pictures/heat_maps.json", "No heat maps"),
        ("config.yaml", "No config.yaml"),
        ("summary.json", "still going"),
        ("pictures/mixed-0-source.png", "pictures/mixed.json, entry 0 is left out"),
    ],
)
def test_what_is_missing_is_said_in_words(run_dir, missing, says):
    path = run_dir / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert says in _report(run_dir).text


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "config.yaml").write_text("name: fresh\n")
    (tmp_path / "metrics.csv").write_text("")
    text = _report(tmp_path).text
    assert "fresh running" in text and "No curves yet" in text and "No evaluation yet" in text


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "evaluation.json", "pictures/mixed.json", "pictures/heat_maps.json"])
def test_a_broken_file_is_named_and_the_rest_is_shown(run_dir, name):
    (run_dir / name).write_text('{"half": [')
    text = _report(run_dir).text
    assert f"{name} could not be read" in text
    assert "Gradient norm" in text


def test_blended_images_have_no_windows(run_dir):
    path = run_dir / "pictures/mixed.json"
    pairs = [pair | {"target_xyxy_norm": None, "source_xyxy_norm": None} for pair in json.loads(path.read_text())]
    path.write_text(json.dumps(pairs))
    page = _report(run_dir)
    assert page.count("image") == 24
    assert page.count("rect", **{"class": "outline over own"}) == 0


@pytest.mark.parametrize("scores", [[], [[]], [0.5, 0.1], [[0.5], [0.5, 0.1]], None], ids=str)
def test_a_heat_map_without_a_grid_of_scores_is_left_out(run_dir, scores):
    path = run_dir / "pictures/heat_maps.json"
    first, *others = json.loads(path.read_text())
    path.write_text(json.dumps([first | {"scores": scores}, *others]))
    page = _report(run_dir)
    assert "pictures/heat_maps.json, entry 0 is left out" in page.text
    assert page.count("image") == 4 * 3 + 3 * 3


def test_the_circle_marks_the_most_relevant_patch(run_dir):
    path = run_dir / "pictures/heat_maps.json"
    heat = json.loads(path.read_text())[0] | {"scores": [[0.1, 0.2, 0.1, 0.1], [0.1, 0.1, 0.1, 0.9]]}
    path.write_text(json.dumps([heat]))
    assert _report(run_dir).count("circle", **{"class": "outline over partner", "cx": "56.0", "cy": "48.0"}) == 1


def test_an_unknown_metric_gets_a_row_and_a_chart(run_dir):
    (run_dir / "metrics.csv").write_text("step,mine/accuracy\n5,0.5\n")
    (run_dir / "evaluation.json").write_text(json.dumps({"step": 5, "metrics": {"mine/accuracy": 0.5}, "chance": {}}))
    page = _report(run_dir)
    assert "Mine accuracy 0.500 -" in page.text
    assert page.count("svg", **{"aria-label": "Mine, accuracy over steps"}) == 1


def test_an_earlier_better_evaluation_is_named(run_dir):
    assert "No earlier evaluation of this run was better" in _report(run_dir).text
    with (run_dir / "metrics.csv").open("a") as file:
        file.write("step,retrieval/mean_recall,retrieval/image_to_text/median_rank\n700,0.9,1\n")
    page = _report(run_dir)
    assert "90.0% at step 700" in page.text and "1 at step 700" in page.text
    assert page.count("td", **{"class": "num best"}) == 9  # all but these two


def test_a_folder_without_a_run_is_refused_with_the_runs_below_it(tmp_path):
    make_fake_run(tmp_path / "runs/a", num_steps=200, num_pictures=0)
    with pytest.raises(RunError, match=r"holds no run.*runs/a"):
        write_report(tmp_path / "runs")
    with pytest.raises(RunError, match="is no folder"):
        write_report(tmp_path / "absent")
    assert not list(tmp_path.glob("**/report.html"))


def test_a_report_is_replaced_and_leaves_nothing_beside_it(run_dir):
    before = {path.name for path in run_dir.iterdir()}
    write_report(run_dir)
    write_report(run_dir)
    assert {path.name for path in run_dir.iterdir()} == before | {"report.html"}


def test_examples_of_every_kind_are_shown_with_small_pictures(run_dir):
    write_examples(run_dir)
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    evaluation["metrics"] |= {"vqa/accuracy": 0.5, "captioning/cider_d": 1.2}
    (run_dir / "evaluation.json").write_text(json.dumps(evaluation))
    page = _report(run_dir)
    for text in ("Retrieval, examples", "Zero-shot, confusions", "VQA, examples", "Captioning, examples", "at step 1,200 of training"):
        assert text in page.text
    assert page.count("img") == 4 + 2 + 2 + 1
    assert page.count("img", **{"class": "thumb right"}) == 1 and page.count("img", width="128") == 9
    assert all(attributes["src"].startswith("data:image/jpeg;base64,") for tag, attributes in page.tags if tag == "img")
    assert "✗ rank 17" in page.text and "right: the answer to a small red ring" in page.text
    assert page.count("td", title="a small red ring 0, called a small red ring 1: 10%") == 1
    assert "1 of these 2 answers are right" in page.text and "people said: yes (2), no (1)" in page.text
    assert "we see a small red ring there is a small red ring a ring CIDEr-D 123.4" in page.text
    assert "left out" not in page.text
    assert (run_dir / "report.html").stat().st_size < 300_000


def test_text_of_examples_cannot_break_the_page(run_dir):
    text = """<script>alert(1)</script> "a" & 'b' </td><img src=x onerror=alert(1)>"""
    write_examples(run_dir, text=text)
    page = _report(run_dir)
    assert page.count("script") == 0 and page.count("img") == 9 and f"is this {text}?" in page.text


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("retrieval.json", "[{", "examples/retrieval.json could not be read"),
        (
            "retrieval.json",
            '[{"caption": "a", "rank": 1, "found": [{"image": "gone.png", "right": true}]}]',
            "entry 0 is left out: FileNotFound",
        ),
        ("zero_shot.json", '[{"confusion": [[1]], "classes": ["a", "b"]}]', "2 classes, but the matrix is not 2 by 2"),
        (
            "vqa.json",
            '[{"image": "mixed_0_0.png", "question": "a?", "right": true, "given": "b", "answers": ["b"]}]',
            "'accuracy' is missing, as in files of earlier versions; run timix-evaluate again.",
        ),
        ("vqa.json", '[{"what": 1}]', "examples/vqa.json, entry 0 is left out"),
    ],
)
def test_examples_that_cannot_be_shown_are_named_and_the_rest_is_shown(run_dir, name, content, says):
    write_examples(run_dir)
    (run_dir / "examples" / name).write_text(content)
    text = _report(run_dir).text
    assert says in text and "Captioning, examples" in text


def write_afterwards(run_dir, **figures):
    (run_dir / "evaluate").mkdir(exist_ok=True)
    about = {"retrieval": {"num_samples": 1234, "overrides": ["data.val_shards=other"], "data": {}}}
    about["knn"] = {"num_samples": {"train": 1500, "test": 9}, "overrides": [], "data": {}}
    content = {"step": 1200, "checkpoint": "best.ckpt", "evaluations": about, "metrics": figures, "chance": {}}
    (run_dir / "evaluate/evaluation.json").write_text(json.dumps(content))


def test_what_was_evaluated_afterwards_stands_beside_the_training(run_dir):
    write_afterwards(run_dir, **{"retrieval/mean_recall": 0.777, "mutual_information/train": 2.5, "knn/top_1": 0.5})
    page = _report(run_dir)
    assert (
        "checkpoint best.ckpt, step 1,200; retrieval: 1,234 samples data.val_shards=other; kNN: 1,500 train + 9 test samples" in page.text
    )
    assert "mean recall 77.7% - 56.1%" in page.text and "train 2.500 nats -" in page.text


def test_examples_of_both_are_shown_and_the_same_ones_once(run_dir):
    write_afterwards(run_dir, **{"retrieval/mean_recall": 0.777})
    write_examples(run_dir)
    write_examples(run_dir / "evaluate")
    assert _report(run_dir).text.count("Retrieval, examples") == 1
    shutil.rmtree(run_dir / "evaluate/examples")
    write_examples(run_dir / "evaluate", text="a blue square")
    page = _report(run_dir)
    assert page.text.count("Retrieval, examples") == 2
    assert "Evaluated afterwards, best.ckpt" in page.text and "we see a blue square" in page.text


def test_a_broken_file_of_what_was_evaluated_afterwards_is_named(run_dir):
    (run_dir / "evaluate").mkdir()
    (run_dir / "evaluate/evaluation.json").write_text('{"step": 3}')
    assert "evaluate/evaluation.json is left out: KeyError" in _report(run_dir).text


def test_bounds_are_drawn_below_their_ceiling(run_dir):
    names = ("held_out", "train", "ceiling", "held_out_mixed", "train_mixed", "ceiling_mixed", "gap", "gap_mixed")
    header, values = ",".join(f"mutual_information/{name}" for name in names), "0.4,0.5,4.852,0.2,0.3,4.3,0.1,0.1"
    (run_dir / "metrics.csv").write_text(f"step,{header}\n5,{values}\n10,{values}\n")
    page = _report(run_dir)
    assert page.count("polyline") == 6
    assert "lower bound on held-out pairs, nats, at most 4.852 held-out 0.4 train 0.5" in page.text
    assert "lower bound on held-out pairs, nats, at most 4.300" in page.text


def test_a_curve_that_is_the_whole_of_the_others_is_named_too(run_dir):
    (run_dir / "metrics.csv").write_text("step,vqa/multiple_choice/accuracy,vqa/multiple_choice/accuracy/when\n5,0.5,0.25\n")
    assert "accuracy 50% when 25%" in _report(run_dir).text


def test_shares_of_a_confusion_matrix_count_the_images_called_classes_that_are_not_shown(run_dir):
    (run_dir / "examples").mkdir(exist_ok=True)
    entry = {"confusion": [[5, 2], [0, 4]], "num_images": [50, 4], "classes": ["cat", "dog"]}
    (run_dir / "examples/zero_shot.json").write_text(json.dumps([entry]))
    page = _report(run_dir)
    assert page.count("td", title="cat, called cat: 10%") == 1 and page.count("td", title="cat, called dog: 4%") == 1


def make_task_run(run_dir, task="captioning"):
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(f"name: run\ntask: {task}\ninit: runs/demo\ntrainer:\n  max_steps: 10\n")
    metrics = {"captioning": {"captioning/bleu_4": 0.321, "captioning/cider_d": 1.234}, "vqa": {"vqa/accuracy": 0.654}}[task]
    (run_dir / "evaluation.json").write_text(json.dumps({"step": 10, "metrics": metrics, "chance": dict.fromkeys(metrics, 0.1)}))
    (run_dir / "metrics.csv").write_text(f"step,{','.join(metrics)}\n10,{','.join(map(str, metrics.values()))}\n")
    return run_dir


def test_scores_of_captions_have_one_unit_in_tables_curves_and_examples(tmp_path):
    """As papers have them, times 100."""
    page = _report(make_task_run(tmp_path / "captions"))
    assert "BLEU-4 32.1 10.0" in page.text and "CIDEr-D 123.4 10.0" in page.text
    assert "latest 123" in page.text and "latest 32.1" in page.text
    assert "Captioning, CIDEr-D 123.4" in page.text and "mark on each bar" not in page.text
    ticks = re.findall(r"[\d.]+(?=</text>)", (tmp_path / "captions/report.html").read_text())
    assert "100" in ticks and "0.5" not in ticks


@pytest.mark.parametrize("task", ["captioning", "vqa"])
def test_a_task_has_no_sections_of_pre_training(tmp_path, task):
    page = _report(make_task_run(tmp_path / "learnt", task))
    assert "Mixed pairs" not in page.text and "Patch-text alignment" not in page.text and "Configuration" in page.text


def test_a_run_without_a_name_is_called_after_its_folder_where_that_lies_now(tmp_path):
    run_dir = make_task_run(tmp_path / "captions")
    assert "captions running" in _report(run_dir).text
    (run_dir / "summary.json").write_text(json.dumps({"name": "as-it-was", "status": "finished"}))
    assert "moved finished" in _report(run_dir.rename(tmp_path / "moved")).text
    (tmp_path / "moved/config.yaml").unlink()
    assert "as-it-was finished" in _report(tmp_path / "moved").text


def test_open_answers_are_drawn_below_what_the_known_ones_allow(run_dir):
    names = "vqa/open/accuracy,vqa/open/accuracy/when,vqa/open/reachable"
    (run_dir / "metrics.csv").write_text(f"step,{names}\n5,0.1,0.2,0.64\n")
    page = _report(run_dir)
    assert "by the known answers, at most 64.0% accuracy 10% when 20%" in page.text and page.count("polyline") == 2


def test_stars_are_explained_where_there_are_some(run_dir):
    run_dir.joinpath("evaluation.json").write_text(json.dumps({"step": 1200, "metrics": {"zero_shot/top_1": 0.5}, "chance": {}}))
    with (run_dir / "metrics.csv").open("a") as file:
        file.write("step,zero_shot/top_1\n700,0.9\n")
    assert "★" not in _report(run_dir).text
