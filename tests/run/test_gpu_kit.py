"""The kit for a GPU, run end to end on a CPU with tiny shapes: so that it works on the day there is a GPU."""

import math
import os
import re
from dataclasses import fields

import pytest

from pipelines import bench
from pipelines.benchmarks.gpu import command, marked_tests, running
from pipelines.benchmarks.gpu.findings import Finding, Report, Result, read_report, readable, table
from pipelines.benchmarks.gpu.measure import covered
from pipelines.benchmarks.gpu.parts import PARTS, Part
from pipelines.benchmarks.gpu.sizes import FULL, TINY
from pipelines.planning.rates import Rates, read_rates
from support.commands import called
from support.launch import REPO, assert_user_error, checked, python, run

KIT = REPO / "pipelines/benchmarks/gpu"

# Modules of parts that end in every way a part can.
MODULES = {
    "good": "yield Finding('one', 1.0, 's', rate='linear')\n    yield Finding('two', 2.0, 'bytes')",
    "broken": "yield Finding('before', 1.0, 's')\n    raise ValueError('it is broken')",
    "hanging": "yield Finding('before', 1.0, 's')\n    time.sleep(600)",
    "dying": "yield Finding('before', 1.0, 's')\n    time.sleep(0.2)\n    os._exit(9)",
    "lacking": "import no_such_library\n    yield",
    "last": "yield Finding('one', 3.0, 's')",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of those parts."""
    folder = tmp_path / "pretended"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for name, body in MODULES.items():
        head = "import os, time\nfrom pipelines.benchmarks.gpu.findings import Finding\n"
        (folder / f"{name}.py").write_text(f"{head}def findings(sizes, device):\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def results_of(parts, package, seconds=60.0, sizes=FULL):
    """The last that is told of each part."""
    told = {}
    running.run_parts(parts, sizes, running.time.monotonic() + seconds, told.__setitem__, package)
    return told


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The kit's, and its folder."""
    folder = tmp_path_factory.mktemp("kit")
    command = ("pipelines/bench.py", "gpu", "--tiny", "--minutes", "14", "--output", folder)
    printed = checked(python(*command, timeout=900)).stdout
    return read_report(folder / "cpu.json"), folder, printed


@pytest.mark.long
def test_every_part_gives_figures_on_a_cpu(report):
    found, _, _ = report
    assert {name: result.state for name, result in found.results.items()} == {part.name: "done" for part in PARTS}
    for name, result in found.results.items():
        assert result.findings and result.reason == "" and result.seconds > 0, name
        names = [finding.name for finding in result.findings]
        assert len(set(names)) == len(names), name
        for finding in result.findings:
            if finding.value is None:
                assert finding.note, finding
            else:
                assert math.isfinite(finding.value), finding
                positive = finding.unit in ("s", "bytes", "FLOP/s", "bytes/s") and " more" not in finding.name
                assert finding.value > 0 or not positive, finding
    skipped = found.results["marked_tests"].value("tests skipped")
    assert skipped >= 9 and found.results["marked_tests"].value("tests passed") == 0
    assert found.card == "CPU" and found.tiny and set(found.versions) >= {"Python", "torch", "diffusers"}


@pytest.mark.long
def test_memory_on_a_cpu_is_what_the_plan_counts(report):
    """The plan counts on the meta device what the CPU's tensors take: a block more, an encode."""
    results = report[0].results
    for part, name in (
        ("transformer", "a double block more, peak"), ("transformer", "a single block more, peak"),
        ("autoencoder", "encode 5 x 32 x 48, peak"), ("autoencoder", "encode 5 x 32 x 32, peak"),
    ):  # fmt: skip
        finding = next(finding for finding in results[part].findings if finding.name == name)
        assert finding.value == finding.planned > 0, finding


@pytest.mark.long
def test_the_rates_are_what_a_plan_reads(report):
    found, folder, _ = report
    names = {field.name for field in fields(Rates)} - {"card"}
    assert names <= set(found.rates) and all(rate > 0 for rate in found.rates.values())
    read = read_rates(folder / "cpu.json")
    assert read.card == "CPU" and {name: getattr(read, name) for name in names} == {
        name: found.rates[name] for name in names
    }


@pytest.mark.long
def test_the_table_is_printed_last_and_again_from_the_file(report):
    found, folder, printed = report
    assert printed.endswith((folder / "cpu.md").read_text())
    assert (folder / "cpu.md").read_text() == table(found) + "\n"
    again = checked(called(bench.main, "gpu", "--table", folder / "cpu.json")).stdout
    assert again == table(found) + "\n"
    assert all(f"| {part.title} | " in again for part in PARTS) and "the figures mean nothing" in again
    assert sorted(path.name for path in folder.iterdir()) == ["cpu.json", "cpu.md"]


def test_parts_that_fail_hang_or_die_do_not_stop_the_others(package):
    """Each keeps what it had found, and the reason says what happened."""
    parts = [Part(name, name, 0, 1 if name == "hanging" else 60) for name in MODULES]
    results = results_of(parts, package)
    assert list(results) == list(MODULES)
    assert {name: result.state for name, result in results.items()} == dict(
        good="done", broken="failed", hanging="cut short", dying="failed", lacking="skipped", last="done"
    )
    assert "it is broken" in results["broken"].reason and "findings" in results["broken"].reason
    assert results["hanging"].reason == "it was given 1 s" and "exit code 9" in results["dying"].reason
    assert "no_such_library" in results["lacking"].reason
    assert results["good"].value("two") == 2.0 and results["last"].value("one") == 3.0
    assert all(results[name].value("before") == 1.0 for name in ("broken", "hanging", "dying"))
    assert command.rates(results) == {"linear": 1.0}


def test_each_test_is_told_as_it_ends(tmp_path):
    (tmp_path / "test_pretended.py").write_text(
        "import pytest\ndef test_good(): pass\ndef test_bad(): assert 1 == 2, 'not so'\n"
        "@pytest.mark.skip\ndef test_skipped(): pass\n"
    )
    arguments = [str(tmp_path), "--rootdir", str(tmp_path), "-c", os.devnull, "-n", "0"]
    ended = {name: (outcome, reason) for name, outcome, _, reason in marked_tests.outcomes(arguments, "fork")}
    assert [outcome for outcome, _ in ended.values()] == ["passed", "failed", "skipped"]
    assert "not so" in ended["test_bad"][1] and ended["test_good"][1] == ""


def test_what_does_not_fit_into_the_time_is_skipped_and_what_does_is_cut(package):
    parts = [Part("hanging", "", 1, 60), Part("good", "", 30, 60), Part("last", "", 0, 60)]
    results = results_of(parts, package, seconds=3.0)
    assert [result.state for result in results.values()] == ["cut short", "skipped", "skipped"]
    assert re.fullmatch("0 s were left, it takes 30", results["good"].reason)
    assert results["hanging"].value("before") == 1.0 and results["good"].findings == []
    later = results_of([Part("good", "", 30, 60), Part("last", "", 0, 60)], package, seconds=20.0)
    assert [result.state for result in later.values()] == ["skipped", "done"]


def test_the_files_tell_at_every_moment_what_is_known(package, tmp_path, monkeypatch):
    """After the first figure of the second part: the first part is done, the second is running, the third waits."""
    seen = []
    write = Report.write

    def noted(report, folder):
        write(report, folder)
        seen.append(read_report(folder / "cpu.json"))

    monkeypatch.setattr(Report, "write", noted)
    monkeypatch.setattr(command.parts, "PARTS", [Part(name, name, 0, 60) for name in ("good", "broken", "last")])
    monkeypatch.setattr(running.run_parts, "__defaults__", (package,))
    with pytest.raises(SystemExit) as ended:
        bench.main(["gpu", "--tiny", "--output", str(tmp_path / "out")])
    assert ended.value.code == 1
    states = [[result.state for result in report.results.values()] for report in seen]
    assert states[0] == ["waiting"] * 3 and states[-1] == ["done", "failed", "done"]
    assert ["done", "waiting", "waiting"] in states and seen[-1].rates == {"linear": 1.0}


def test_what_cannot_be_measured_is_refused(tmp_path):
    assert_user_error(called(bench.main, "gpu", "--output", tmp_path), "there is no GPU here", "--tiny")
    assert_user_error(called(bench.main, "gpu", "--tiny", "--keep"), "--keep", "mean nothing")
    assert_user_error(called(bench.main, "gpu", "--tiny", "--minutes", "0"), "--minutes must be positive")
    assert_user_error(called(bench.main, "gpu", "--table", tmp_path / "none.json"), "no such file")
    assert list(tmp_path.iterdir()) == []


def test_the_usual_seconds_of_all_parts_fit_into_eight_minutes():
    assert sum(part.usual for part in PARTS) <= 8 * 60 and all(part.usual < part.most for part in PARTS)
    assert TINY.tiny and not FULL.tiny


def test_a_table_reads_well():
    result = Result("block", "failed", reason="line\nout | of memory", findings=[Finding("forward", 0.0123, "s", 0.01)])
    lines = table(Report("NVIDIA H200", False, 8, {"torch": "2.11.0"}, {"block": result})).splitlines()
    assert lines[0] == "Measured on NVIDIA H200 (torch 2.11.0)"
    assert lines[4:6] == ["| block | failed: out / of memory | | |", "| block | forward | 12.3 ms | 10 ms |"]
    assert readable(5.12e14, "FLOP/s") == "512 TFLOP/s" and readable(7, "calls") == "7 calls"


def test_overlapping_kernels_are_busy_once():
    assert covered([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4 and covered([]) == 0


def test_every_dependency_is_carried_to_the_gpu_or_is_there():
    """What the lent machine's image holds was read on such a machine, but for torch's own needs, filelock and jinja2.

    decord, the second decoder, and scipy, which only evaluation needs, stay behind.
    """
    there = {
        "torch", "transformers", "accelerate", "safetensors", "tokenizers", "fsspec", "numpy", "pillow", "pyyaml",
        "tensorboard", "tqdm", "psutil", "ninja", "filelock", "jinja2",
    }  # fmt: skip
    script = (KIT / "wheels.sh").read_text()
    block = re.search(r"missing=\((.*?)\n\)", script, re.DOTALL)[1]
    carried = set(re.findall(r"[a-z][a-z-]+", re.sub(r"#.*", "", block))) | {"deepspeed"}
    project = re.search(r"^dependencies = \[(.*?)^]", (REPO / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)[
        1
    ]
    wanted = set(re.findall(r'^    "([a-z0-9-]+)', project, re.MULTILINE))
    assert wanted - there - carried == {"decord", "scipy"}
    for name in ("wheels.sh", "on_device.sh"):
        checked(run("bash", "-n", KIT / name))
