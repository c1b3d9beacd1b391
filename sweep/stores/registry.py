"""The model registry: make a trial's network a version of the registered model, find versions and load them.

A version is an MLflow logged model: `serving_model.py`, `network.pt2` (of an ensemble one `network-N.pt2` a member),
`model.json`, `decode.py` and `heat_map.py`, and for people `model_card.md` with its figures. None is a pickle.
`model.json` holds the hashes of the files that are run, and the version's tag `sweep.model_sha256` that of
`model.json`: what is loaded is what was registered.

MLflow lists the tags of versions in a column, so a version has only the few of `ON_VERSION`; params, scores, and tags
that programs read are those of the logged model. A version of an earlier release has all tags itself: `Version.tags`
holds both.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

from data.faults import InputError
from models import ARCHITECTURES
from sweep.metrics.names import NOT_A_DEVICE
from sweep.stores import packaging
from sweep.stores import tags as tag
from sweep.stores.experiment_page import joined
from sweep.stores.locations import local_folder
from sweep.stores.packaging import ARTIFACTS, SERVING, Example, ModelDiffersError, ModelSpec, artifacts_of, sha256
from sweep.stores.shown_params import rounded
from sweep.stores.tracking import logged_model
from sweep.system.errors import disk_full
from sweep.system.redaction import first_line

CHAMPION = "champion"
OURS = {tag.KIND: "model"}  # a tag of the versions and logged models that are made here
# The tags that people see beside a version, with the value of its study's metric.
ON_VERSION = (
    *(tag.KIND, tag.ARCH, tag.TRIAL, tag.MEMBERS, tag.METRIC, tag.DATA, tag.THRESHOLD, tag.LEAKAGE, tag.MISSED_CLASSES),
    *(tag.MODEL_SHA256, tag.COMMIT),
)


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes:
        name: The registered model.
        version: Its number there.
        run_id: The run of the trial that made it; of an ensemble its own run.
        model_id: MLflow's logged model.
        tags: Its tags, and those of the logged model.
    """

    name: str
    version: str
    run_id: str
    model_id: str
    tags: Mapping[str, str]


def register(client: MlflowClient, spec: ModelSpec, network: torch.nn.Module, example: Example) -> Version:
    """Registers a network, once for each trial.

    Registering is not idempotent in MLflow. Both halves are looked up first: a version of this trial, and a logged
    model of this run that an earlier process made, or began to make, and did not get to register.

    Args:
        client: Of the store with the run.
        spec: What belongs to the network.
        network: Maps float32 [N, 1, image_size, image_size] to logits [N, classes]; left as it is. Of an ensemble a
            ModuleList of such networks, in the order of `spec.members`.
        example: What the model is tried with before it becomes a version.

    Raises:
        ModelDiffersError: The registered model gives other answers than the network.
    """
    if version := registered(client, spec.name, spec.run_id, spec.tags):
        return version
    _describe_model(client, spec)
    model = _logged_model(client, spec)
    if model.status != LoggedModelStatus.READY:
        packaging.fill(client, model, spec, network)
    try:
        digest = packaging.try_out(client, model, spec, example)
    except ModelDiffersError:
        client.delete_logged_model(model.model_id)  # so that the next attempt makes a new one
        raise
    tags = {key: value for key, value in {**spec.tags, **OURS, tag.MODEL_SHA256: digest}.items() if value}
    client.set_logged_model_tags(model.model_id, tags)
    shown = (*ON_VERSION, spec.tags.get(tag.METRIC))
    with packaging.global_store(client.tracking_uri):
        created = client.create_model_version(
            spec.name,
            model.model_uri,
            run_id=spec.run_id,
            tags={key: value for key, value in tags.items() if key in shown},
            description=spec.description,
            model_id=model.model_id,
        )
    # As MLflow's own `register_model` does: the page of the logged model finds its version by this tag.
    named = json.dumps([{"name": spec.name, "version": str(created.version)}])
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": named})
    return _version(client, created)


def registered(client: MlflowClient, name: str, run_id: str, tags: Mapping[str, str]) -> Version | None:
    """The version that a trial has become; None where it has not.

    Args:
        client: Of the registry.
        name: The registered model.
        run_id: The trial's run.
        tags: `sweep.study_id` and `sweep.trial` find it where its run was written again after it was registered.
    """
    wanted = {key: tags.get(key) for key in (tag.STUDY_ID, tag.TRIAL)}
    for entity in client.search_model_versions(f"name = '{name}'"):
        if entity.run_id == run_id:
            return _version(client, entity)
        if entity.tags.get(tag.TRIAL, "") == wanted[tag.TRIAL]:
            version = _version(client, entity)
            if version.tags.get(tag.STUDY_ID, "") == wanted[tag.STUDY_ID]:
                return version
    return None


def alias_holder(client: MlflowClient, name: str, alias: str) -> Version | None:
    """The version that holds an alias; None if there is none."""
    number = client.get_registered_model(name).aliases.get(alias)
    return None if number is None else _version(client, client.get_model_version(name, number))


def architectures_of(client: MlflowClient, name: str) -> list[str]:
    """The architectures of which a registered model has a best version, by their short names.

    Returns:
        The project's own in their usual order, then others by name: an alias is of an architecture where the version
        that holds it is tagged with the same name.
    """
    holders = client.get_registered_model(name).aliases
    usual = [arch for arch in ARCHITECTURES if arch in holders]
    others = sorted(
        alias
        for alias in holders.keys() - {*usual, CHAMPION}
        if (version := alias_holder(client, name, alias)) is not None
        and version.tags.get(tag.ARCH) == alias
        and tag.MEMBERS not in version.tags
    )
    return [*usual, *others]


def models_of_architectures(client: MlflowClient) -> list[str]:
    """The registered models with a best version of at least one architecture, by name."""
    names = sorted(model.name for model in client.search_registered_models() if model.aliases)
    return [name for name in names if architectures_of(client, name)]


def set_alias(client: MlflowClient, name: str, alias: str, version: str) -> None:
    """Points an alias to a version."""
    client.set_registered_model_alias(name, alias, version)


def tag_version(client: MlflowClient, version: Version, tags: Mapping[str, str]) -> None:
    """Sets tags of a version: of its logged model, where that is still there. An empty one is removed."""
    model, own = logged_model(client, version.model_id), client.get_model_version(version.name, version.version).tags
    kept = {key: value for key, value in tags.items() if value}
    if model is not None and kept:
        client.set_logged_model_tags(version.model_id, kept)
    for key in tags if model is None else tags.keys() - kept.keys():
        if key in kept:
            client.set_model_version_tag(version.name, version.version, key, kept[key])
            continue
        if key in own:
            client.delete_model_version_tag(version.name, version.version, key)
        if model is not None and key in model.tags:
            client.delete_logged_model_tag(version.model_id, key)


def find_version(client: MlflowClient, model: str) -> Version:
    """Finds a version of a registered model.

    Args:
        client: Of the registry.
        model: `NAME@ALIAS` or `NAME/VERSION`, with or without `models:/` before it; a `NAME` alone means its champion.

    Raises:
        InputError: There is no such model, alias or version, or it was not registered by this project.
    """
    path = model.removeprefix("models:/")
    name, at, alias = path.partition("@")
    name, slash, number = (name, "", "") if at else path.partition("/")
    try:
        registered_model = client.get_registered_model(name)
        if not slash:
            number = registered_model.aliases.get(alias or CHAMPION)
        version = None if number is None else client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        names = ", ".join(entry.name for entry in client.search_registered_models()) or "none"
        wrong = f"{name} has no version {number}" if slash and f"name={name}" in str(error) else None
        raise InputError(
            wrong or f"model {model}: there is no such one; the registered models here are: {names}"
        ) from error
    if version is None:
        aliases = ", ".join(f"{name}@{other}" for other in sorted(registered_model.aliases)) or "none"
        raise InputError(f"model {model}: {name} has no alias {alias or CHAMPION}; there are: {aliases}")
    if tag.MODEL_SHA256 not in version.tags:
        raise InputError(f"model {model}: version {version.version} was not registered by sweep, and is not loaded")
    return _version(client, version)


def load(client: MlflowClient, version: Version) -> Any:
    """Loads a registered model without MLflow's loader: files whose hashes are not the registered ones are not run.

    Args:
        client: Of the registry.
        version: A version.

    Returns:
        The `ImageClassifier` of its `serving_model.py`, with `bytes`, the size of its networks' files.

    Raises:
        InputError: A file is missing, or is not the one that was registered.
    """
    uri = f"models:/{version.name}/{version.version}"
    place = local_folder(client.get_model_version_download_uri(version.name, version.version), str(client.tracking_uri))
    if place is not None and not place.is_dir():  # MLflow makes an empty copy of a folder that is not there
        raise InputError(f"{uri}: its files are not in {place}; the store seems to have been moved without them")
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(packaging.local_copy(client, uri))
        except (MlflowException, OSError) as error:
            if disk_full(error) or (isinstance(error, MlflowException) and "No space left" in str(error)):
                full = f"{tempfile.gettempdir()}, where temporary files go, is full"
                raise InputError(f"{uri}: {full}; name a folder with room in TMPDIR") from error
            why = first_line(error, client.tracking_uri)
            raise InputError(f"{uri}: its files are not where the registry says ({why})") from error
        serving, about = folder / SERVING, folder / "artifacts" / ARTIFACTS["about"]
        if about.is_file() and sha256(about) != version.tags[tag.MODEL_SHA256]:
            raise InputError(f"{uri}: {about.name} is not the file that was registered; its hash differs")
        described = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
        hashes, names = described.get("sha256", {}), artifacts_of(len(described.get("members", ())))
        files = {name: folder / "artifacts" / file for name, file in names.items()}
        if hashes and files["heat_map"].name not in hashes:
            del files["heat_map"]  # registered before there was such a file
        missing = [path.name for path in (*files.values(), serving) if not path.is_file()]
        if missing:
            raise InputError(*(f"{uri}: {name} is missing" for name in missing))
        for path in (*files.values(), serving):
            if path != about and sha256(path) != hashes[path.name]:
                raise InputError(f"{uri}: {path.name} is not the file that was registered; its hash differs")
        module = ModuleType("_sweep_serving_model")
        module.__file__ = str(serving)
        # The source itself, not bytecode that may lie beside it: its hash is what was checked.
        exec(compile(serving.read_bytes(), module.__file__, "exec"), module.__dict__)  # noqa: S102
        classifier = module.ImageClassifier()
        classifier.load_context(SimpleNamespace(artifacts={name: str(path) for name, path in files.items()}))
        if not hasattr(classifier, "prepare"):
            _as_version_0_1_0(classifier)
        classifier.bytes = sum(path.stat().st_size for name, path in files.items() if name.startswith("network"))
    classifier.version = version.version
    return classifier


def _as_version_0_1_0(classifier: Any) -> None:
    """Lets a model of version 0.1.0 read images as it did: its decoder knows neither a depth nor a native size."""

    def read(source: Any, depth: int | None = None) -> Any:
        if depth is not None:
            raise InputError(f"--depth {depth}: this model reads 16-bit images as version 0.1.0 did; train it again")
        return classifier.decoder.open_gray(source)

    classifier.read = read
    classifier.prepare = lambda picture: classifier.decoder.resize(picture, classifier.about["image_size"])


def _logged_model(client: MlflowClient, spec: ModelSpec) -> LoggedModel:
    """The logged model of the run: finished, begun by a process that died, or new."""
    run = client.get_run(spec.run_id)
    experiment = run.info.experiment_id
    models = client.search_logged_models([experiment], f"source_run_id = '{spec.run_id}'")
    ours = [model for model in models if model.tags.items() >= OURS.items()]  # others may log models to the run
    params = {key: str(rounded(value)) for key, value in spec.params.items()}
    model = ours[0] if ours else client.create_logged_model(experiment, spec.architecture, spec.run_id, OURS, params)
    # The run's page lists its models by this; MLflow refuses it a second time.
    if run.outputs is None or not run.outputs.model_outputs:
        client.log_outputs(spec.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model


def _describe_model(client: MlflowClient, spec: ModelSpec) -> None:
    """Makes the registered model where it is missing, with a description, unless somebody has given it one."""
    try:
        model = client.create_registered_model(spec.name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        model = client.get_registered_model(spec.name)
    if model.description:
        return
    client.update_registered_model(
        spec.name,
        f"Networks that tell {joined(spec.classes)} apart in the images of {spec.name}.\n\n"
        "Each version is the trial that a study chose on validation images, or an ensemble of several; its description "
        "is its model card. An alias with the name of an architecture is held by the best version of it, `champion` by "
        "the best of all: another takes an alias where it is better on the same validation images and the 95 % "
        "interval of the difference excludes 0.\n\n"
        f"{NOT_A_DEVICE}",
    )


def _version(client: MlflowClient, entity: ModelVersion) -> Version:
    model_id = entity.model_id or str(entity.source).removeprefix("models:/")
    model = logged_model(client, model_id)
    # Of an earlier release's version the logged model has what was decided later.
    # The hash is the registry's: whoever may write to a logged model cannot change what a version loads.
    hashes = {key: value for key, value in entity.tags.items() if key == tag.MODEL_SHA256}
    tags = {**entity.tags, **(model.tags if model else {}), **hashes}
    return Version(entity.name, str(entity.version), str(entity.run_id), model_id, tags)
