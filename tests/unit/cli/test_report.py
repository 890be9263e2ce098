import json
import subprocess
import sys

import pytest

from tests.fake_run import make_fake_run
from timix_pl.cli.report import main
from timix_pl.reports import page


@pytest.fixture
def run_dir(tmp_path):
    return make_fake_run(tmp_path / "demo", num_steps=200, num_pictures=1)


def test_it_names_the_pages_that_it_wrote(run_dir, tmp_path, capsys):
    comparison = tmp_path / "comparison.html"
    main([str(run_dir), str(run_dir), "--out", str(comparison)])
    assert capsys.readouterr().out.splitlines() == [str(run_dir / "report.html")] * 2 + [str(comparison)]
    assert comparison.stat().st_size > 1000


def test_pytorch_is_imported_only_for_runs_of_earlier_versions(run_dir):
    """It takes seconds. Their metrics are shown as those of newer runs all the same."""
    script = f"import sys; from timix_pl.cli.report import main; main([{str(run_dir)!r}]); print('torch' in sys.modules)"

    def said() -> str:
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    def figures() -> str:
        return (run_dir / "report.html").read_text().partition('id="figures"')[2].partition("</section>")[0]

    assert said().endswith("False\n")
    newer = figures()
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    del evaluation["descriptions"]
    (run_dir / "evaluation.json").write_text(json.dumps(evaluation))
    assert said().endswith("True\n")
    assert figures() == newer and "56.1%" in newer


def status_of(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    return ended.value.code


def test_ctrl_c_shows_no_stack_trace(run_dir, monkeypatch, capsys):
    def interrupted(run_dir, known):
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "write_report", interrupted)
    assert status_of(run_dir) == 130
    assert capsys.readouterr().err == "\ntimix-report: interrupted\n"


@pytest.mark.parametrize("out", ["nowhere/x.html", "."])
def test_a_page_that_cannot_be_written_there_is_told_before_anything_is(run_dir, tmp_path, out, capsys):
    assert status_of(run_dir, run_dir, "--out", tmp_path / out) == 2
    assert f"--out {tmp_path / out}: must be a file in a folder that exists" in capsys.readouterr().err
    assert not (run_dir / "report.html").exists()


def test_a_folder_that_is_no_run_ends_with_one_clear_message(tmp_path, capsys):
    assert status_of(tmp_path) == 2
    message = capsys.readouterr().err
    assert message.startswith("timix-report: ") and "holds no run" in message and message.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--unknown"], ["run", "--out", "a.html"]], ids=str)
def test_wrong_arguments_exit_with_2(arguments):
    assert status_of(*arguments) == 2


def test_a_comparison_takes_the_place_of_no_other_file(run_dir, tmp_path, capsys):
    config = (run_dir / "config.yaml").read_bytes()
    assert status_of(run_dir, run_dir, "--out", run_dir / "config.yaml") == 2
    assert f"--out {run_dir / 'config.yaml'}: exists, and was not written by timix-report" in capsys.readouterr().err
    assert (run_dir / "config.yaml").read_bytes() == config
    for _ in range(2):
        main([str(run_dir), str(run_dir), "--out", str(tmp_path / "comparison.html")])
