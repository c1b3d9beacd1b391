"""The command line in this process: bad input, dry runs and the data commands. Whole studies are in test_sweep.py."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sweep import __version__
from sweep.cli import app as cli
from sweep.cli.options import settings_from
from sweep.cli.search import search
from sweep.settings import Settings
from sweep.settings_file import NAMES


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty directory and returns exit code, stdout and stderr."""
    folder = tmp_path / "work"
    folder.mkdir()

    def run(*arguments):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["sweep", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    run.folder = folder
    return run


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


BAD = {
    "no architecture": (["search"], "name one or more of cnn1, cnn2, cnn3, resnet50"),
    "unknown architecture": (["--arch", "vgg"], "--arch vgg: there is no such architecture"),
    "no trials": (["--arch", "cnn1", "--trials", "0"], "--trials 0: give 1 or more"),
    "reversed range": (["--arch", "cnn1", "--search", "learning_rate=2..1"], "the lower end 2 is not below"),
    "unknown parameter": (["--arch", "cnn1", "--fix", "colour=red"], "there is no hyperparameter 'colour'"),
    "missing folder": (["--arch", "cnn1", "--data", "nowhere"], "--data nowhere: no such file or folder"),
    "no number": (["--arch", "cnn1", "--trials", "many"], "--trials"),
    "unknown option": (["--arch", "cnn1", "--trails", "3"], "--trails"),
    "missing weights": (["--arch", "resnet50", "--weights", "w.pth"], "--weights w.pth: no such file"),
    "no GPU": (["--arch", "cnn1", "--device", "cuda"], "--device cuda: torch finds no GPU"),
    "no GPU of Apple's": (["--arch", "cnn1", "--device", "mps"], "--device mps: torch finds no GPU of Apple's here"),
    "no cluster": (
        ["--arch", "cnn1", "--engine", "ray", "--address", "127.0.0.1:1"],
        "--address 127.0.0.1:1: there is no Ray cluster at 127.0.0.1:1 (ConnectionRefusedError",
    ),
    "no address": (
        ["--arch", "cnn1", "--engine", "ray", "--address", "http://head:8265"],
        "--address http://head:8265: give auto, HOST:PORT or ray://HOST:PORT",
    ),
    "a cluster's option": (["--arch", "cnn1", "--gpus-per-trial", "1"], "--gpus-per-trial: is for trials on a cluster"),
    "parts of GPUs": (
        ["--arch", "cnn1", "--engine", "ray", "--gpus-per-trial", "1.5"],
        "--gpus-per-trial 1.5: give a part of a GPU (0 to 1) or whole ones",
    ),
    "no shared folder": (["--arch", "cnn1", "--work-dir", "nowhere"], "'nowhere' does not exist"),
    "a password that Ray would show": (
        ["--arch", "cnn1", "--engine", "ray", "--storage", "postgresql://ann:hunter2@db/sweep"],
        "there is a password in it; put it into OPTUNA_STORAGE",
    ),
    "image too small": (["--arch", "cnn3", "--image-size", "4"], "--image-size 4: cnn3 takes 8 to 1024"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_message_and_exit_2_and_changes_nothing(run, home, name):
    import torch

    there = {"no GPU": torch.cuda.is_available, "no GPU of Apple's": torch.backends.mps.is_available}
    if name in there and there[name]():
        pytest.skip("this machine has a GPU")
    before = files(home)
    arguments, said = BAD[name]
    code, out, err = run(*arguments)
    assert code == 2
    assert said in err.replace("\n", " ")
    assert "Traceback" not in err
    assert "hunter2" not in err
    assert out == ""
    assert not list(run.folder.iterdir())
    assert files(home) == before


def damaged(root):
    path = next((root / "test" / "PNEUMONIA").iterdir())
    path.write_bytes(path.read_bytes()[:200])
    return path.name


def emptied(root):
    for split in ("train", "test"):
        shutil.rmtree(root / split)


def one_class(root):
    shutil.rmtree(root / "train" / "NORMAL")


@pytest.mark.parametrize(
    ("change", "said"),
    [(emptied, "has no folder train/"), (one_class, "holds only the class PNEUMONIA"), (damaged, "{name}: ")],
)
def test_bad_data_gets_a_message_and_exit_2_and_changes_nothing(run, home, pictures, tmp_path, change, said):
    root = tmp_path / "bad"
    shutil.copytree(pictures, root)
    name = change(root)
    before = files(home)
    code, _, err = run("--arch", "cnn1", "--data", root, "--image-size", "16", "--fix", "batch_size=32")
    assert code == 2
    assert said.format(name=name) in err
    assert not list(run.folder.iterdir())
    assert files(home) == before


def test_a_batch_larger_than_the_training_set_is_refused(run, pictures):
    code, _, err = run("--arch", "cnn1", "--data", pictures)
    assert code == 2
    assert "batch_size 256 is larger than the training set of 136 images" in err
    code, _, err = run("--arch", "cnn1", "--data", pictures, "--fix", "batch_size=500")
    assert code == 2
    assert "batch_size 500" in err


def test_a_read_only_directory_is_refused(run, monkeypatch, pictures):
    run.folder = "/proc"
    monkeypatch.setattr(run, "folder", "/proc")
    import os

    monkeypatch.setattr(os, "getcwd", lambda: "/proc")
    monkeypatch.setattr(Path, "cwd", classmethod(lambda cls: cls("/proc")))
    code, _, err = run("--arch", "cnn1", "--data", pictures, "--fix", "batch_size=16")
    assert code == 2
    assert "/proc: the working directory cannot be written" in err


def test_a_store_of_trials_that_cannot_be_opened_is_refused_before_mlflows_is_made(run, pictures):
    arguments = ("--data", pictures, "--fix", "batch_size=16", "--image-size", 16)
    code, _, err = run("--arch", "cnn1", *arguments, "--storage", "bogus://x")
    assert code == 2
    assert "--storage bogus://x: cannot be opened" in err
    assert not list(run.folder.iterdir())


@pytest.mark.parametrize("name", ["synthetic", "phantom"])
def test_x_rays_cannot_take_the_synthetic_images_name(run, pictures, name):
    code, _, err = run("--arch", "cnn1", "--data", pictures, "--fix", "batch_size=16", "--experiment", name)
    assert code == 2
    assert "belongs to the built-in synthetic images" in err


def test_all_faults_come_at_once_and_as_json_too(run):
    code, out, err = run("--arch", "vgg", "--trials", "0", "--json")
    assert code == 2
    answer = json.loads(out)
    assert answer["exit_code"] == 2
    assert len(answer["errors"]) == 2
    assert err.count("error: ") == 2


def test_a_dry_run_tells_the_plan_and_touches_nothing(run, home, pictures):
    before = files(home)
    options = ("--data", pictures, "--image-size", "32", "--search", "batch_size=16,32", "--trials", "7", "--dry-run")
    code, out, _ = run("--arch", "cnn1", "--arch", "cnn3", *options)
    assert code == 0
    text = " ".join(out.split())
    for part in (
        "136 train, 24 validation, 60 test",
        "blob-pictures/cnn3: space basic",
        "changed by --fix and --search: batch_size",
        "16, 32",
        "7 trials of up to 12 epochs",
    ):
        assert part in text
    assert "nothing was written" in text
    assert not list(run.folder.iterdir())
    assert files(home) == before
    code, out, _ = run("--arch", "cnn1", "--space", "finetune", *options, "--json")
    plan = json.loads(out)["studies"][0]
    assert (plan["study"], plan["space_name"]) == ("blob-pictures/cnn1", "finetune")
    assert plan["space"]["optimizer"] == "adamw"
    assert plan["space"]["batch_size"] == "16, 32"
    assert plan["parameters"] == 12 * 9 + 24 + 20 * 12 * 9 + 40 + 32 * 20 * 9 + 64 + 2 * 32 * 16 * 16 + 2
    assert plan["seconds"] > 0
    assert plan["disk_bytes"] > 7 * 4 * plan["parameters"]


def test_without_data_it_says_that_these_are_no_x_rays(run):
    code, out, _ = run("--arch", "cnn1", "--dry-run")
    assert code == 0
    assert "the built-in synthetic images (drawn by a program, not X-rays" in " ".join(out.split())


def test_data_info_counts_images_and_patients(run, pictures):
    code, out, _ = run("data", "info", "--data", pictures, "--json")
    assert code == 0
    answer = json.loads(out)
    assert answer["images"]["train"] == {"NORMAL": 80, "PNEUMONIA": 80}
    assert answer["patients"]["train"] == 40
    code, out, _ = run("data", "info", "--data", pictures)
    assert "blob-pictures" in out


def test_data_verify_finds_what_is_wrong(run, pictures, tmp_path):
    code, out, _ = run("data", "verify", "--data", pictures)
    assert code == 0
    assert "220 images, 0 things wrong" in out
    root = tmp_path / "wrong"
    shutil.copytree(pictures, root)
    name = damaged(root)
    normal = sorted((root / "train" / "NORMAL").iterdir())
    shutil.copy(normal[0], root / "train" / "PNEUMONIA" / "copy.jpeg")
    shutil.copy(normal[1], root / "test" / "NORMAL" / "copy.jpeg")
    code, out, err = run("data", "verify", "--data", root, "--json")
    assert code == 1
    answer = json.loads(out)
    assert [path.endswith(name) for path in answer["unreadable"]] == [True]
    assert len(answer["two_labels"]) == 1
    assert len(answer["two_splits"]) == 1
    assert answer["identical_groups"] == 2
    assert "the same picture has two labels" in err


def test_help_names_every_option_once(run):
    code, out, _ = run("--help")
    assert code == 0
    for option in (
        "--arch",
        "--trials",
        "--data",
        "--fix",
        "--search",
        "--dry-run",
        "--json",
        "--weights",
        "--patience",
    ):
        assert out.count(f"{option} ") >= 1
    assert np.all(np.array([len(line) for line in out.splitlines()]) <= 120)


def test_nothing_typed_shows_what_can_be_done_and_search_is_a_command_too(run):
    code, out, err = run()
    assert (code, err) == (0, "")
    assert {"search", "studies", "compare", "data"} <= {line.split()[0] for line in out.splitlines() if line.strip()}
    assert max(map(len, out.splitlines())) <= 80
    assert "sweep search --arch cnn1" in out
    code, out, _ = run("--version")
    assert (code, out) == (0, f"sweep {__version__}\n")
    both = [run(*name, "--arch", "cnn1", "--trials", "0") for name in ((), ("search",))]
    assert both[0] == both[1]
    assert both[0][0] == 2


def test_options_before_a_command_are_refused(run):
    code, _, err = run("--trials", "3", "--data", "x", "compare")
    assert code == 2
    assert err == "error: --trials, --data: options come after the command: sweep compare --trials ...\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("--metric", "auroc"), "did you mean val/auroc?"),
        (("--fix", "lr=0.1"), "did you mean learning_rate?"),
        (("--fix", "optimizer=adamW"), "did you mean adamw?"),
        (("--pruner", "medain"), "did you mean median?"),
        (("--space", "fine"), "did you mean finetune?"),
        (("--arch", "cnn1,cnn2"), "for several repeat the option: --arch cnn1 --arch cnn2"),
        (("--arch", "resnet"), "did you mean resnet50?"),
    ],
)
def test_what_was_meant_is_guessed_for_people(run, typed, meant):
    code, _, err = run(*(() if "--arch" in typed else ("--arch", "cnn1")), *typed)
    assert code == 2
    assert meant in " ".join(err.split())


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--trails", "--trails: there is no such option; did you mean --trials?"),
        ("--learning-rate", "a hyperparameter is given as --fix learning_rate=VALUE or --search learning_rate=DOMAIN"),
        ("--lr", "a hyperparameter is given as --fix learning_rate=VALUE or --search learning_rate=DOMAIN"),
        ("--weight", "--weight: there is no such option; did you mean --weights?"),
        ("--banana", "--banana: there is no such option\n"),
    ],
)
def test_an_option_that_there_is_not_is_said_with_what_was_meant(run, option, said):
    code, out, err = run("search", "--arch", "cnn1", option, "3")
    assert (code, out) == (2, "")
    assert said in err


def test_a_shell_completes_options(tmp_path):
    asked = {"_SWEEP_COMPLETE": "complete_bash", "COMP_WORDS": "sweep search --samp", "COMP_CWORD": "2"}
    program = Path(sys.executable).with_name("sweep")
    done = subprocess.run([program], env={**os.environ, **asked}, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["--sampler"], "")


def test_every_setting_has_an_option_of_the_search_with_the_same_default():
    defaults = {name: parameter.default for name, parameter in inspect.signature(search).parameters.items()}
    for field in dataclasses.fields(Settings):
        if field.name != "archs":
            default = defaults[NAMES.get(field.name, field.name)]
            assert (tuple(default) if isinstance(default, list) else default) == field.default, field.name
    given = {"archs": ["cnn1"], "metrics": defaults["metric"], "budget": 60.0}
    settings = settings_from({**defaults, "fix": ["dropout=0.2"]}, **given)
    assert settings == Settings(archs=("cnn1",), fix=("dropout=0.2",), budget=60.0)


def test_a_second_sweep_in_the_same_directory_is_refused(run, pictures):
    from filelock import FileLock

    with FileLock(run.folder / ".sweep.lock"):
        code, _, err = run("--arch", "cnn1", "--data", pictures, "--fix", "batch_size=16")
    assert code == 2
    assert "another process runs a sweep in this directory" in err
    assert [path.name for path in run.folder.iterdir()] == [".sweep.lock"]
