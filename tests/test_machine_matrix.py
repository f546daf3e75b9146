"""make test-matrix: a setting that changes nothing is found, and what has passed is not run
again."""

import pytest

import machine_matrix


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_matrix, "BUILD", tmp_path)
    monkeypatch.setattr(machine_matrix, "state", lambda: "commit")
    # The processes and the notebooks of a whole run take seconds to begin
    monkeypatch.setattr(machine_matrix, "OPTIONS", ("-p", "no:nbval"))
    return tmp_path


def ask(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["machine_matrix.py", *arguments])
    return machine_matrix.main()


def test_a_setting_that_changes_nothing_is_not_a_pass(monkeypatch, capsys):
    useless = {"NPY_DISABLE_CPU_FEATURES": ""}
    monkeypatch.setattr(
        machine_matrix, "CONFIGURATIONS", {"useless": (useless, machine_matrix.SORT, "")}
    )
    monkeypatch.setattr(machine_matrix, "USUALLY", ("useless",))
    assert ask(monkeypatch) == 1
    assert "BAD  useless" in (out := capsys.readouterr().out)
    assert "THE SETTING CHANGES NOTHING" in out


def test_a_setting_that_this_processor_lacks_is_said(monkeypatch, capsys):
    monkeypatch.setattr(machine_matrix, "processor", set)
    assert ask(monkeypatch, "skylakex") == 0
    assert "this processor has no avx512f" in capsys.readouterr().out


def test_threads_are_a_setting_that_works():
    assert machine_matrix.refusal("one-thread") == machine_matrix.refusal("two-threads") == ""


def test_machines_have_all_settings(monkeypatch):
    parts = [part for machine in machine_matrix.MACHINES.values() for part in machine]
    usual = {"skylakex", "one-thread", "two-threads"}  # a name of its own, and what is usual
    assert set(parts) | usual == set(machine_matrix.CONFIGURATIONS)
    settings = machine_matrix.settings_of("old-processor")
    assert settings["OPENBLAS_CORETYPE"] == "Nehalem"
    assert "X86_V3" in settings["NPY_DISABLE_CPU_FEATURES"]
    assert {"GLIBC_TUNABLES", "ATEN_CPU_CAPABILITY"} < set(settings)
    reasons = {"nehalem": "", "glibc-without-fma": "THE SETTING CHANGES NOTHING"}
    one_by_one = machine_matrix.refusal

    def refusal(name):
        return one_by_one(name) if name in machine_matrix.MACHINES else reasons.get(name, "")

    monkeypatch.setattr(machine_matrix, "refusal", refusal)
    assert machine_matrix.refusal("old-processor") == "THE SETTING CHANGES NOTHING"
    assert machine_matrix.refusal("haswell-processor") == ""


def test_what_has_passed_is_not_run_again_and_what_failed_is(build, monkeypatch, capsys):
    runs = []

    def run(name, paths, data):
        runs.append(name)
        return {"passed": name == "one-thread", "result": "1 passed", "minutes": 1.0}

    monkeypatch.setattr(machine_matrix, "refusal", lambda name: "")
    monkeypatch.setattr(machine_matrix, "run", run)
    assert [ask(monkeypatch, "one-thread", "two-threads") for _ in range(2)] == [1, 1]
    assert runs == ["one-thread", "two-threads", "two-threads"]
    assert "BAD  two-threads" in capsys.readouterr().out
    monkeypatch.setattr(machine_matrix, "state", lambda: "another")
    ask(monkeypatch, "one-thread")
    assert len(runs) == 4


def test_a_run_is_pytest_on_a_fresh_folder(build, tmp_path):
    (tmp_path / "test_x.py").write_text(
        "import os\ndef test_x():\n    assert os.environ['OPENBLAS_NUM_THREADS'] == '1'\n"
    )
    row = machine_matrix.run("one-thread", [str(tmp_path / "test_x.py")])
    assert row["passed"], (build / "one-thread" / "log.txt").read_text()
    assert row["result"] == "1 passed"
    assert not machine_matrix.run("two-threads", [str(tmp_path / "test_x.py")])["passed"]


def test_data_of_another_machine_can_be_given_and_stay(build, tmp_path):
    (tmp_path / "test_x.py").write_text(
        f"import os\ndef test_x():\n    assert os.environ['LAB_DATA'] == {str(tmp_path)!r}\n"
    )
    assert machine_matrix.run("one-thread", [str(tmp_path / "test_x.py")], tmp_path)["passed"]
    assert (tmp_path / "test_x.py").exists()


def test_unknown_names_are_refused(monkeypatch):
    with pytest.raises(SystemExit):
        ask(monkeypatch, "pentium")
