import pytest

from tests.fake_run import make_fake_run
from timix_pl.cli.report import main


@pytest.fixture
def run_dir(tmp_path):
    return make_fake_run(tmp_path / "demo", num_steps=200, num_pictures=1)


def test_it_names_the_pages_that_it_wrote(run_dir, tmp_path, capsys):
    comparison = tmp_path / "comparison.html"
    assert main([str(run_dir), str(run_dir), "--out", str(comparison)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(run_dir / "report.html")] * 2 + [str(comparison)]
    assert comparison.stat().st_size > 1000


def test_a_folder_that_is_no_run_ends_with_one_clear_message(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("timix-report: ") and "holds no run" in message and message.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--unknown"], ["run", "--out", "a.html"]], ids=str)
def test_wrong_arguments_exit_with_2(arguments):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
