"""`sweep compare` and `sweep replicate`, as people type them, on small studies of pictures."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sweep.comparisons.architectures.analysis import SHOWN
from sweep.metrics.predictions import read_predictions
from sweep.stores.packaging import sha256
from sweep.stores.shown_params import exact_params
from sweep.stores.tags import MODEL_SHA256
from tests.helpers.studies import client_of, runs_of, scores_of, states, sweep, trials_of

TINY = ("--image-size", 24, "--epochs", 2)


@pytest.fixture(scope="module")
def studies(pictures, tmp_path_factory):
    """A working directory with studies of cnn1 and cnn3."""
    folder = tmp_path_factory.mktemp("studies")
    arguments = ("--arch", "cnn1", "--arch", "cnn3", "--trials", 3, "--data", pictures, *TINY)
    done = sweep(folder, *arguments, "--search", "batch_size=16,32")
    assert done.returncode == 0, done.stderr
    (folder / "log").write_text(done.stdout)
    return folder


def test_the_search_of_both_ends_with_one_table_as_served_and_the_champion(studies):
    client, printed = client_of(studies), (studies / "log").read_text()
    champion = client.get_model_version_by_alias("blob-pictures", "champion")
    table = printed[printed.index("2 architectures on ") :]
    for arch in ("cnn1", "cnn3"):
        version = client.get_model_version_by_alias("blob-pictures", arch)
        metrics, scores = client.get_run(version.run_id).data.metrics, scores_of(client, version)
        accuracy = scores.get("test_at_threshold/accuracy", scores["test/accuracy"])
        star = " *" if version.version == champion.version else ""
        (row,) = [line for line in table.splitlines() if line.startswith(f"{arch} v")]
        assert row.split("  ")[0] == f"{arch} v{version.version}{star}"
        assert f" {metrics['objective']:.4f} " in row
        assert f" {accuracy:.3f} (" in row
        assert len(row) <= 80
    arch = champion.tags["sweep.arch"]
    assert f"* @champion: blob-pictures version {champion.version} ({arch})\n" in table
    assert "mlflow models serve -m models:/blob-pictures@champion " in table
    assert "sweep compare blob-pictures\n" in table


@pytest.fixture(scope="module")
def compared(studies):
    """The same after a comparison with two other seeds: the folder, and the object that --json printed."""
    done = sweep(studies, "compare", "--seeds", 2, "--json")
    assert done.returncode == 0, done.stderr
    return studies, json.loads(done.stdout), done


def test_it_says_who_is_best_and_who_is_missing(compared):
    _, answer, done = compared
    assert answer["model"] == "blob-pictures"
    assert answer["champion"] in ("cnn1", "cnn3")
    assert answer["reference"] == answer["champion"]  # resnet50 was not searched
    assert answer["missing"] == ["cnn2", "resnet50"]
    assert not any("resnet50" in note for note in answer["notes"])  # nobody asked for it
    (paired_test,) = answer["paired_tests"]
    assert paired_test["sentence"] in answer["headline"]
    assert 0 <= paired_test["accuracy"]["p"] <= paired_test["accuracy"]["p_corrected"] <= 1
    assert "Traceback" not in done.stderr
    assert paired_test["sentence"] in done.stderr.replace("\n", " ")


def test_its_scores_are_those_of_the_chosen_trials(compared):
    folder, answer, _ = compared
    client, (parents, _) = client_of(folder), runs_of(folder)
    for arch in ("cnn1", "cnn3"):
        version = client.get_model_version_by_alias("blob-pictures", arch)
        run, study = client.get_run(version.run_id), parents[arch]
        shown = {row["score"]: row for row in answer["scores"] if row["arch"] == arch}
        for score, name in (("accuracy", "accuracy"), ("AUROC", "auroc")):
            assert shown[score]["served"] == pytest.approx(run.data.metrics[f"served_test_{name}"])
            assert shown[score]["value"] == pytest.approx(study.data.metrics[f"test/{name}"])
        assert shown["AUROC"]["validation"] == pytest.approx(run.data.metrics["objective"])
        (cost,) = (row for row in answer["costs"] if row["arch"] == arch)
        assert cost["images_per_second"] > 0
        assert cost["search_seconds"] >= cost["train_seconds"] > 0
        assert cost["bytes"] > 4 * cost["parameters"]


def test_the_winners_were_trained_with_other_seeds(compared):
    folder, answer, _ = compared
    for arch in ("cnn1", "cnn3"):
        version = client_of(folder).get_model_version_by_alias("blob-pictures", arch)
        winner = client_of(folder).get_run(version.run_id)
        trials = trials_of(folder, f"blob-pictures/{winner.info.run_name}-seeds")
        assert states(trials) == {"COMPLETE": 2}
        exact = exact_params(winner.data.params, winner.data.tags)
        seeds = {trial.user_attrs["seed"] for trial in trials}
        assert len(seeds) == 2
        assert int(winner.data.params["seed"]) not in seeds
        for trial in trials:
            assert {key: str(value) for key, value in trial.params.items()} == {key: exact[key] for key in trial.params}
        (row,) = (row for row in answer["scores"] if (row["arch"], row["score"]) == (arch, "accuracy"))
        assert row["seeds"] == 2
        _, children = runs_of(folder)
        accuracies = [children[f"{winner.info.run_name}-seeds-{n:03d}"].data.metrics["audit/accuracy"] for n in (0, 1)]
        assert row["seeds_mean"] == pytest.approx(sum(accuracies) / 2)
    versions = client_of(folder).search_model_versions("name = 'blob-pictures'")
    assert len(versions) == 2  # nothing was registered by it


def test_trials_that_were_not_chosen_are_audited_and_the_choice_stays(compared):
    folder, _, _ = compared
    client = client_of(folder)
    parents, children = runs_of(folder)
    chosen = client.get_model_version_by_alias("blob-pictures", "cnn1").run_id
    for number, trial in enumerate(trials_of(folder)):
        run = children[f"cnn1-{number:03d}"]
        if run.info.run_id == chosen:
            assert "audit/auroc" not in run.data.metrics
            assert "served_test_auroc" in run.data.metrics
        elif trial.state.name == "COMPLETE":
            assert 0 <= run.data.metrics["audit/auroc"] <= 1
            assert not any("test" in name for name in run.data.metrics)
            path = client.download_artifacts(run.info.run_id, "predictions/audit.csv", str(folder))
            assert len(read_predictions(Path(path)).labels) == 60
    assert "after the choice" in parents["cnn1"].data.tags["sweep.audited"]


def test_the_comparison_is_a_run_with_its_report(compared):
    folder, answer, _ = compared
    client = client_of(folder)
    run = client.get_run(answer["run_id"])
    assert run.data.tags["sweep.kind"] == "comparison"
    assert run.info.status == "FINISHED"
    for sentence in [answer["headline"].split(". ")[0], answer["paired_tests"][0]["sentence"]]:
        assert sentence in run.data.tags["mlflow.note.content"]
    names = {entry.path for entry in client.list_artifacts(answer["run_id"])}
    assert {"report.html", "checklist.html", "comparison.md", "scores.json", "figures"} <= names
    linked = {model.model_id for model in run.inputs.model_inputs}
    assert len(linked) == 2
    written = (folder / "reports" / "blob-pictures-comparison.html").read_text()
    logged = Path(client.download_artifacts(answer["run_id"], "report.html", str(folder))).read_text()
    assert written.replace("blob-pictures-checklist.html", "checklist.html") == logged
    assert "data:image/jpeg" not in written
    assert re.search(r"Made \d{4}-\d\d-\d\d \d\d:\d\d UTC. Studies: cnn1, cnn3 \d{4}-\d\d-\d\d", written)


def test_the_checklist_beside_the_report_is_filled_from_the_stores(compared):
    folder, answer, _ = compared
    client = client_of(folder)
    path = Path(answer["checklist"])
    assert path == folder / "reports" / "blob-pictures-checklist.html"
    written = path.read_text()
    logged = Path(client.download_artifacts(answer["run_id"], "checklist.html", str(folder))).read_text()
    assert written.replace("blob-pictures-comparison.html", "report.html") == logged
    page = Path(answer["report"]).read_text()
    anchors = set(re.findall(r'href="blob-pictures-comparison.html#([^"]+)"', written))
    assert {"data", "provenance", "seeds", "search"} <= anchors
    assert all(f'<section id="{anchor}">' in page for anchor in anchors)
    run = client.get_run(client.get_model_version_by_alias("blob-pictures", answer["champion"]).run_id)
    assert f"digest {run.data.tags['sweep.data_digest']}" in written
    assert f"torch {run.data.tags['sweep.version.torch']}" in written
    assert "60 test images of " in written
    assert "Validation: whole patients taken from the training images" in written
    assert "Trained again with other seeds: 2." in written
    assert "It knows its classes and nothing else" in written  # from the model card


def test_again_it_trains_nothing_and_finds_the_seeds(compared, typed):
    folder, before, _ = compared
    code, out, err = typed(folder, "compare", "blob-pictures", "--against", "cnn1", "--prevalence", 0.05, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["scores"] == before["scores"]
    assert answer["reference"] == "cnn1"
    assert [row["arch"] for row in answer["clinical"]] == ["cnn1", "cnn3"]
    for row in answer["clinical"]:
        scores = {score["score"]: score["value"] for score in row["scores"]}
        true, false = 0.05 * scores["sensitivity"], 0.95 * (1 - scores["specificity"])
        assert row["stated_prevalence"] == 0.05
        assert scores["ppv_at_prevalence"] == (pytest.approx(true / (true + false)) if true + false else None)
    assert all("ppv_at_prevalence" not in str(row) for row in before["clinical"])
    assert "Predictive values at a prevalence of 5 %" in Path(answer["report"]).read_text()
    assert [paired_test["arch"] for paired_test in answer["paired_tests"]] == ["cnn3"]


def test_what_is_shown_is_what_evaluate_says_of_the_served_model(compared, tmp_path, typed):
    """To the last bit, at a threshold and a temperature of its own."""
    folder, _, _ = compared
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    own = serve_otherwise(tmp_path, "cnn1", threshold=0.731, temperature=1.7)

    code, out, err = typed(tmp_path, "compare", "--json")
    assert code == 0, err
    compared_answer = json.loads(out)

    assert compared_answer["served"]["cnn1"] == {"version": own, "threshold": 0.731, "temperature": 1.7}
    for arch in ("cnn1", "cnn3"):
        code, out, err = typed(tmp_path, "evaluate", f"blob-pictures@{arch}", "--json")
        assert code == 0, err
        evaluated = {row["score"]: row for row in json.loads(out)["scores"]}
        shown = {row["score"]: row for row in compared_answer["scores"] if row["arch"] == arch}
        for name, label in SHOWN.items():
            for end in ("served", "served_low", "served_high", "value", "low", "high"):
                assert shown[label][end] == evaluated[name][end], (arch, name, end)
        assert evaluated["accuracy"]["served"] == evaluated["accuracy"].get(
            "at_threshold", evaluated["accuracy"]["value"]
        )
    logged = client_of(tmp_path).get_run(compared_answer["run_id"]).data.metrics
    shown = {row["score"]: row for row in compared_answer["scores"] if row["arch"] == "cnn1"}
    assert logged["cnn1_at_threshold/accuracy"] == shown["accuracy"]["served"]
    assert logged["cnn1/accuracy"] == shown["accuracy"]["value"]
    written = Path(compared_answer["report"]).read_text()
    assert f"<td>{shown['accuracy']['served']:.3f}<small>" in written
    assert "cnn1 at 0.5" in written


def serve_otherwise(folder, arch, **changes):
    """Gives the version that holds an alias another threshold and temperature, as if they had been registered."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    version = client.get_model_version_by_alias("blob-pictures", arch)
    (path,) = (path for path in folder.rglob("model.json") if json.loads(path.read_text())["architecture"] == arch)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    client.set_model_version_tag("blob-pictures", version.version, MODEL_SHA256, sha256(path))
    return str(version.version)


def test_images_are_shown_on_this_disk_alone(compared, tmp_path, typed):
    folder, _, _ = compared
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    code, out, err = typed(tmp_path, "compare", "--with-images", "--json")
    assert code == 0, err
    answer = json.loads(out)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    logged = Path(client.download_artifacts(answer["run_id"], "report.html", str(tmp_path))).read_text()
    assert "data:image/jpeg" not in logged
    wrong = sum(
        row["served"] < 1
        for row in answer["scores"]
        if row["score"] == "accuracy" and row["arch"] == answer["champion"]
    )
    assert ("data:image/jpeg" in Path(answer["report"]).read_text()) == bool(wrong)


def test_without_the_images_it_says_so_and_compares(compared, tmp_path, typed):
    folder, before, _ = compared
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    code, out, _ = typed(tmp_path, "compare", "--no-audit", "--json")
    assert code == 0
    # From what was stored at the end of each study: by the network itself, and not by its exported program.
    for now, then in zip(json.loads(out)["scores"], before["scores"], strict=True):
        assert now == {name: pytest.approx(value, abs=1e-5) for name, value in then.items()}
    code, _, err = typed(tmp_path, "compare", "--data", tmp_path)
    assert code == 2
    assert "train/" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compare", "--against", "vgg"), "has no version of this architecture; it has cnn1"),
        (("compare", "--seeds", -1), "--seeds -1"),
        (("compare", "--prevalence", 1), "--prevalence 1: give a share of positives above 0 and below 1"),
        (("compare", "other"), "there is no such registered model"),
        (("replicate", "--arch", "resnet50"), "the report has no table of it"),
        (("replicate", "--protocol", "none"), "there are ours, report"),
        (("replicate", "--seeds", 0), "--seeds 0"),
        (("replicate", "--study", "a/b"), "--study 'a/b'"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(arguments, said, compared, typed):
    folder, _, _ = compared
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    code, _, err = typed(folder, *arguments)
    assert code == 2
    assert said in err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_there_is_nothing_to_compare(tmp_path, typed):
    code, _, err = typed(tmp_path, "compare")
    assert code == 2
    assert "no such file" in err
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_rows_of_the_report_are_trained_and_set_beside_it(pictures, tmp_path):
    arguments = ("replicate", "--arch", "cnn3", "--seeds", 2, "--data", pictures, *TINY, "--workers", 2)
    done = sweep(tmp_path, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [row["row"] for row in answer["rows"]] == [f"cnn3 row {number}" for number in range(1, 6)]
    assert all(row["seeds"] == 2 for row in answer["rows"])
    assert answer["selection_bias"][0]["arch"] == "cnn3"
    trials = trials_of(tmp_path, "blob-pictures/cnn3-replicate-ours")
    assert states(trials) == {"COMPLETE": 10}
    assert len({trial.user_attrs["seed"] for trial in trials}) == 10
    parents, children = runs_of(tmp_path)
    assert children["cnn3-replicate-ours-000"].data.tags["sweep.label"] == "cnn3 row 1"
    assert parents["replication-ours"].data.tags["sweep.kind"] == "replication"
    assert "cnn3 row 5" in Path(answer["report"]).read_text()
    assert not MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_registered_models()

    again = sweep(tmp_path, *arguments, "--json")
    assert "nothing is left to train" in again.stderr
    assert json.loads(again.stdout)["rows"] == answer["rows"]
