import pytest

from timix_pl.reports.history import read_history


@pytest.fixture
def read(tmp_path):
    def _read(text):
        path = tmp_path / "metrics.csv"
        path.write_text(text)
        return read_history(path)

    return _read


def test_a_missing_or_empty_file_gives_no_curves(tmp_path, read):
    assert read_history(tmp_path / "absent.csv") == {}
    assert read("") == {}
    assert read("step,consumed,train/lr\n") == {}


def test_empty_cells_were_not_measured(read):
    assert read("step,a,b\n1,0.5,\n2,,7\n3,0.25,\n") == {"a": [(1, 0.5), (3, 0.25)], "b": [(2, 7)]}


def test_a_last_line_cut_off_by_a_kill_is_dropped(read):
    assert read("step,a\n10,1.5\n20,1.2") == {"a": [(10, 1.5)]}


def test_columns_may_grow_during_a_run(read):
    again = "step,a\n1,1\nstep,a,b\n2,2,20\n"
    widened = "step,a,b\n1,1\n2,2,20\n"
    assert read(again) == read(widened) == {"a": [(1, 1), (2, 2)], "b": [(2, 20)]}


def test_steps_done_again_after_a_resume_count_once(read):
    assert read("step,a\n1,1\n2,2\n3,3\n2,20\n3,30\n4,40\n") == {"a": [(1, 1), (2, 20), (3, 30), (4, 40)]}


def test_what_is_no_finite_number_is_left_out(read):
    assert read("step,a\n1,nan\n2,inf\n3,what\n4,1e-3\n?,9\n\0\0\n") == {"a": [(4, 0.001)]}
