"""The grid of benchmarks: one run a combination, once; failures are lines of the table."""

import importlib
import json
import subprocess
import sys

import pytest
import torch

import benchmark_grid

MACHINE = {"machine": "a GPU", "versions": {"torch": "2"}}


def numbers(flops, seconds, memory):
    ratios = {"flops": flops, "time": seconds, "time_range": [seconds, seconds], "memory": memory}
    return {"flops": flops, "times": [seconds], "memory": memory * 2**20, "ratios": ratios}


@pytest.fixture
def grid(tmp_path, monkeypatch, capsys):
    """Runs the grid with benchmarks that only write a report, or fail for length 512."""
    commands = []

    def run(command, log):
        commands.append(command)
        log.write_text("")
        if "512" in command:
            log.write_text("...\nbenchmark.py: error: too long\n")
            return False
        methods = {"plain": numbers(1, 1.0, 1.0), "rat": numbers(3, 2.5, 2.1)}
        report = {**MACHINE, "lengths": {"128": methods}}
        (tmp_path / command[command.index("--json") + 1]).write_text(json.dumps(report))
        return True

    def call(*arguments):
        commands.clear()
        line = ["benchmark_grid.py", str(tmp_path / "out"), "--archs", "roberta_base", *arguments]
        monkeypatch.setattr("sys.argv", line)
        failure = None
        try:
            benchmark_grid.main()
        except SystemExit as error:
            failure = str(error)
        return capsys.readouterr().out, list(commands), failure

    monkeypatch.setattr(benchmark_grid, "run", run)
    monkeypatch.setattr(benchmark_grid.torch.cuda, "is_available", lambda: False)
    return call


def test_each_combination_is_run_once_and_failures_are_lines(grid, tmp_path):
    table, commands, failure = grid("--repeats", "3")
    assert len(commands) == 4
    assert failure.startswith(
        "benchmark_grid.py: error: 2 of the runs failed; --arch roberta_base --batch-size 16 "
        "--length 512 --precision fp32: benchmark.py: error: too long ("
    )
    assert all(command[-2:] == ["--repeats", "3"] for command in commands)
    assert "| **roberta_base, 16 x 128, fp32: plain** | 1.000e+00 | 1000 ms | 1 MiB |" in table
    assert "| rat | 3.000 | 2.50 (2.50 - 2.50) | 2.10 |" in table
    assert "| **roberta_base, 32 x 512, fp32: plain** | failed: see its .log | | |" in table
    assert "a GPU" in table and (tmp_path / "out" / "table.md").read_text() in table
    again, commands, _ = grid("--repeats", "3")
    assert again == table and all("512" in command for command in commands)


def test_results_with_other_options_are_not_mixed(grid):
    grid("--repeats", "3")
    _, commands, failure = grid("--repeats", "4")
    assert not commands and "give another folder" in failure


def test_a_mistyped_option_ends_it_with_the_benchmarks_message(tmp_path):
    grid = [sys.executable, benchmark_grid.__file__, str(tmp_path / "out"), "--repeat-s", "3"]
    ended = subprocess.run(grid, capture_output=True, text=True)
    assert ended.returncode == 1 and "unrecognized arguments: --repeat-s 3" in ended.stderr
    assert "table.md" not in [path.name for path in (tmp_path / "out").iterdir()]
    benchmark_grid.check_folder(tmp_path / "out", ["--repeats", "3"])  # the folder can still be used


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_precision_of_gpus_is_refused_without_one():
    command = [sys.executable, str(benchmark_grid.SCRIPTS / "benchmark.py"), "--precision", "fp16"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2 and "--precision fp16 needs a GPU" in ended.stderr
    assert "give fp32 or bf16 or amp-bf16" in ended.stderr


def test_a_damaged_report_is_named(grid, tmp_path):
    grid("--lengths", "128")
    report = tmp_path / "out" / "roberta_base-16x128-fp32.json"
    for content, message in (("{", "not JSON"), ("[]", "holds a JSON list"), ("{}", "no report of")):
        report.write_text(content)
        _, _, failure = grid("--lengths", "128")
        assert report.name in failure and message in failure
    (tmp_path / "out" / "options.json").write_bytes(b"\xff")
    _, _, failure = grid("--lengths", "128")
    assert "options.json:1: not UTF-8" in failure


@pytest.mark.parametrize(
    "script,options,message",
    [
        ("benchmark", ["--arch", "transformer"], "transformer: no architecture of the RoBERTa family"),
        ("benchmark", ["--length", "9999"], "--length 9999: the models have 512 positions"),
        ("benchmark", ["--vocabulary", "3"], "--vocabulary 3: at least"),
        ("benchmark", ["--batch-size", "-1"], "--batch-size: -1: give a whole number of at least 1"),
        ("benchmark", ["--repeats", "0"], "--repeats: 0: give"),
        ("benchmark", ["--layers", "0"], "--layers: 0: give"),
        ("benchmark_grid", ["/dev/null/x"], "/dev/null/x"),
        ("benchmark_grid", ["out", "--lengths", "x"], "--lengths: x: give"),
        ("measure_dead_weights", ["nothing"], "nothing: no architecture of the RoBERTa family"),
        ("measure_dead_weights", ["--length", "513"], "--length 513"),
        ("measure_dead_weights", ["--updates", "-3"], "--updates: -3: give"),
    ],
)
def test_bad_options_are_one_line(script, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *options])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(script).main()
    code = ended.value.code
    last = capsys.readouterr().err.splitlines()[-1] if code == 2 else str(code)
    assert code not in (0, None) and message in last and "\n" not in last
