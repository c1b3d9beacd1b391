"""The model as MLflow serves it: base64 images in, label and probabilities out.

This file travels with every registered model, beside `network.pt2` (the exported network; an ensemble has one
`network-N.pt2` for each of its members), `model.json` (how images are prepared and answers read, and the hashes of the
other files), `decode.py` (how an image file becomes pixels) and `heat_map.py` (what in an image speaks for a class). It
needs mlflow, torch, pillow, numpy and pandas, and nothing of the project that made it.
"""

import base64
import hashlib
import io
import json
import logging
import os
import sys
import traceback
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image

BATCH = 32  # images that are in memory at once, whatever a request holds
FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")  # a request in JSON has one of them
PARTS = 1_000_000  # a probability that is shown has six digits


class InvalidInputError(MlflowException):
    """Something is wrong with what was sent: MLflow answers 400 with this one sentence."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The sentence."""
        return self.sentence

    @message.setter
    def message(self, text: str) -> None:
        # MLflow puts the whole input before it on its way out: a patient's image has no place in an error.
        pass


class ImageClassifier(PythonModel):
    """Answers label and probabilities for a column `image` of base64 JPEGs, PNGs and other pictures."""

    def load_context(self, context: PythonModelContext) -> None:
        """Reads the model's files.

        Raises:
            MlflowException: A file is not the one that was registered.
        """
        files = {name: Path(path) for name, path in context.artifacts.items()}
        self.about: dict[str, Any] = json.loads(files["about"].read_text(encoding="utf-8"))
        networks = [files[member["artifact"]] for member in self.about.get("members", [{"artifact": "network"}])]
        for path in (*networks, files["decode"], files["heat_map"], Path(__file__)):
            if hashlib.sha256(path.read_bytes()).hexdigest() != self.about["sha256"][path.name]:
                raise MlflowException(f"{path} is not the file that was registered: its hash differs from model.json's")
        for path in networks:
            _refuse_pickles(path)
        loaded = [torch.export.load(path).module() for path in networks]
        self.network: Any = torch.nn.ModuleList(loaded) if "members" in self.about else loaded[0]
        self.network.requires_grad_(False)
        self.decoder, self.heat_map = _load(files["decode"]), _load(files["heat_map"])
        self.version = _version(files["about"].parents[1] / "registered_model_meta")
        _keep_images_out_of_errors()

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride] - MLflow's own is empty
        self, context: PythonModelContext | None, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answers a row for each image, with the index of the input.

        Args:
            context: MLflow's; unused.
            model_input: The column `image`, one image file in base64 a row. A single row may hold a list of them.
            params: `threshold`, from 0 to 1, answers with another threshold than the model's own; `heatmap` adds a
                picture of the image beside what in it speaks for the positive class, with a legend and the answer.

        Returns:
            The columns of `classify`, and with `heatmap` a PNG in base64.

        Raises:
            InvalidInputError: One sentence that names the row.
        """
        asked = params or {}
        threshold, heatmap = self._threshold(asked.get("threshold")), bool(asked.get("heatmap"))
        images = _images(model_input)
        answers = []
        for start in range(0, len(images), BATCH):
            rows = list(enumerate(images.iloc[start : start + BATCH], start))
            pixels = np.stack([self.prepare(self._picture(row, image)) for row, image in rows])
            answer = self.classify(pixels, threshold)
            if heatmap:  # films are read a second time, one by one: all of a batch in their own size fill the memory
                maps = self._heat(pixels)
                answer["heatmap"] = [
                    _base64_png(self.heat_map.picture(self._picture(*row), heat, self.about, shown))
                    for row, heat, shown in zip(rows, maps, answer.to_dict("records"), strict=True)
                ]
            answers.append(answer)
        return pd.concat(answers, ignore_index=True).set_axis(images.index)

    def _heat(self, pixels: np.ndarray) -> np.ndarray:
        try:
            return self.heat_map.heat_maps(self.network, self.about, pixels)[0]
        except self.heat_map.NoHeatMapError as error:
            raise InvalidInputError(f"heatmap: {error}") from error

    def read(self, source: Path | bytes, depth: int | None = None) -> Image.Image:
        """Reads an image file as 8-bit gray, in its own size.

        Args:
            source: A file's path, or a file's bytes.
            depth: Bits per pixel of images of more than 8 bits that state no depth; None for what the model keeps.

        Raises:
            UnreadableImageError: Of the decoder; says why in one sentence.
        """
        return self.decoder.open_gray(source, self.about.get("depth") if depth is None else depth)

    def prepare(self, picture: Image.Image) -> np.ndarray:
        """Makes of an 8-bit gray image what the network takes, as in training: uint8 [image_size, image_size]."""
        return self.decoder.resize(picture, self.about["image_size"], self.about.get("native"))

    def classify(self, pixels: np.ndarray, threshold: float | None = None) -> pd.DataFrame:
        """Classifies decoded images.

        Args:
            pixels: uint8 [N, image_size, image_size].
            threshold: From which probability on an image is positive; None for the model's own.

        Returns:
            label, probability (of the positive class where there are two classes, else of the label),
            probability_<class> for each class, threshold (None where the likeliest class is the label) and
            model_version (None where it was not loaded from a registry). Probabilities are as `rounded` makes them;
            labels are decided before that. An ensemble adds disagreement, from 0 to 0.5: the standard deviation of its
            members' probabilities of the positive class, or of the label, before the temperature.
        """
        threshold = self.about["threshold"] if threshold is None else threshold
        members = self.member_probabilities(pixels) if "members" in self.about else None
        logits = self.logits(pixels) if members is None else _log_mean(members)
        logits = logits / self.about["temperature"]
        likely = torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()
        classes = self.about["classes"]
        # With two classes the second is the positive one.
        two = self.about["positive"] is not None
        decided = (likely[:, 1] >= threshold).astype(int) if two else likely.argmax(axis=1)
        shown = rounded(likely, decided, threshold)
        probability = shown[:, 1] if two else shown[np.arange(len(shown)), decided]
        answer = {"label": [classes[index] for index in decided], "probability": probability}
        answer |= {f"probability_{name}": shown[:, index] for index, name in enumerate(classes)}
        answer |= {"threshold": threshold, "model_version": self.version}
        if members is not None:
            of_each = members[:, :, 1] if two else members[:, np.arange(len(shown)), decided]
            answer["disagreement"] = of_each.std(axis=0).round(6)
        return pd.DataFrame(answer)

    @torch.inference_mode()
    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """The model's answer before temperature: uint8 [N, size, size] to float32 [N, classes].

        A network's own logits; of an ensemble the logarithm of the mean of its members' probabilities, since deep
        ensembles average these (Lakshminarayanan et al. 2017, arXiv:1612.01474).
        """
        if "members" in self.about:
            return _log_mean(self.member_probabilities(pixels))
        return self.network(self._prepare(pixels)).numpy()

    @torch.inference_mode()
    def member_probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """What each member of an ensemble answers, before temperature: uint8 [N, size, size] to [members, N, classes].

        With `flip` a member answers the mean of the image and of its mirror image.
        """
        images = self._prepare(pixels)
        views = (images, images.flip(3)) if self.about["flip"] else (images,)
        answers = [
            torch.stack([torch.softmax(member(view).double(), dim=1) for view in views]).mean(dim=0)
            for member in self.network
        ]
        return torch.stack(answers).numpy()

    def _prepare(self, pixels: np.ndarray) -> torch.Tensor:
        """Float32 of shape [N, 1, size, size], as in training."""
        return (torch.from_numpy(pixels).unsqueeze(1).float() / 255 - self.about["mean"]) / self.about["std"]

    def _threshold(self, asked: float | None) -> float | None:
        if asked is None:
            return None
        if self.about["positive"] is None:
            raise InvalidInputError("this model has more than two classes; it takes no threshold")
        if not 0 <= asked <= 1:
            raise InvalidInputError(f"threshold {asked} is not from 0 to 1")
        return asked

    def _picture(self, row: int, image: Any) -> Image.Image:
        if not isinstance(image, str):
            raise InvalidInputError(f"row {row}: the image is not a string")
        text = image.partition(",")[2] if image.startswith("data:") else image
        try:
            content = base64.b64decode("".join(text.split()), validate=True)
        except ValueError:
            raise InvalidInputError(f"row {row}: the image is not base64") from None
        try:
            return self.read(content)
        except self.decoder.UnreadableImageError as error:
            raise InvalidInputError(f"row {row}: {error}") from None


def _log_mean(members: np.ndarray) -> np.ndarray:
    """Logits, float32 [N, classes], of the mean of probabilities, float64 [members, N, classes]."""
    return np.log(np.maximum(members.mean(axis=0), np.finfo(np.float64).tiny)).astype(np.float32)


def rounded(likely: np.ndarray, decided: np.ndarray, threshold: float | None) -> np.ndarray:
    """Rounds probabilities, float64 [N, classes], for people: six digits, none is 0 or 1, and each row adds up to 1.

    They agree with the labels, whose classes are `decided`, int [N]: next to the threshold they are rounded away from
    it, and with more than two classes the label's stays the largest. Only where a threshold is within a millionth of 0
    or 1 may clipping put what is shown on its other side.
    """
    if threshold is not None:
        positive, yes = np.rint(likely[:, 1] * PARTS), decided == 1
        positive += np.where((positive / PARTS >= threshold) == yes, 0, np.where(yes, 1, -1))
        positive = positive.clip(1, PARTS - 1)
        return np.stack([PARTS - positive, positive], axis=1) / PARTS
    whole = np.floor(likely * (PARTS - likely.shape[1]) + 1)  # each class has its millionth, and none loses its rank
    whole[np.arange(len(whole)), decided] += PARTS - whole.sum(axis=1)
    return whole / PARTS


def _images(rows: pd.DataFrame) -> pd.Series:
    """The column `image`, with the rows' own index: an answer is joined to its image by that.

    MLflow makes one row of `{"image": [...]}`, which has no index of its own, and rows of lists of `[[...], [...]]`.
    """
    if "image" not in rows.columns:
        raise InvalidInputError("there is no column image; send base64 images in a column of that name")
    images = rows["image"]
    if isinstance(images, pd.DataFrame):
        raise InvalidInputError(f"there are {images.shape[1]} columns image; send one")
    lists = [isinstance(image, list | tuple | np.ndarray) for image in images]
    if len(images) == 1 and lists[0]:
        unnamed = images.index.equals(pd.RangeIndex(1))
        images = images.explode(ignore_index=unnamed) if len(images.iloc[0]) else images.iloc[:0]
    elif any(lists):
        for row, image in enumerate(images):
            if lists[row] and len(image) != 1:
                raise InvalidInputError(f"row {row}: {len(image)} images; send one a row")
        images = images.map(lambda image: image[0] if isinstance(image, list | tuple | np.ndarray) else image)
    if images.empty:
        raise InvalidInputError("there are no rows")
    return images


def _keep_images_out_of_errors() -> None:
    """Has MLflow refuse a request without repeating it: a patient's image has no place in an answer or a log.

    MLflow checks input and params before it asks the model, and its errors and warnings quote what they refuse. For a
    model that is loaded it has a setting. Its server has none, so where this process is one, what answers a request
    is wrapped.
    """
    os.environ.setdefault("MLFLOW_DISABLE_SCHEMA_DETAILS", "true")
    server: Any = sys.modules.get("mlflow.pyfunc.scoring_server")
    if server is None or hasattr(server, "without_images"):
        return
    invocations = server.invocations  # where MLflow has none, do not serve: errors would hold images

    def answer(data: Any, content_type: str | None, *more: Any, **named: Any) -> Any:
        try:
            return invocations(data, content_type, *more, **named)
        except Exception as error:
            if hasattr(error, "sentence"):  # an InvalidInputError, maybe of another version in this process
                raise
            refusal = _refusal(data, content_type, error)
        raise refusal  # outside, so that what MLflow said does not go along

    server.invocations, server.without_images = answer, True
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # warnings quote names of columns: a CSV's may be an image


def _refusal(body: bytes, content_type: str | None, error: Exception) -> MlflowException:
    """What a client is told in the place of an error of MLflow or of this model; the log gets its type and place."""
    cause = error.__context__ or error
    frames = traceback.extract_tb(cause.__traceback__)
    logging.getLogger("mlflow.serving_model").error(
        "a request was not answered: %s in %s, line %d",
        type(cause).__name__,
        frames[-1].filename,
        frames[-1].lineno or 0,
    )
    if any((Path(frame.filename).name, frame.name) == (Path(__file__).name, "predict") for frame in frames):
        name = type(cause).__name__
        return MlflowException(f"the model failed ({name}); the server's log says where", INTERNAL_ERROR)
    return InvalidInputError(_fault(body, (content_type or "").partition(";")[0].strip()))


def _fault(body: bytes, kind: str) -> str:
    """Says what is wrong with a request that MLflow refuses; repeats nothing of it."""
    if kind != "application/json":
        return f"the body is not {kind} with a column image" if kind else "the request has no content type"
    try:
        request = json.loads(body)
    except json.JSONDecodeError as error:
        return f"the body is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
    except (ValueError, RecursionError):  # not UTF-8, numbers or nesting without end
        return "the body is not JSON that can be read"
    keys = [key for key in FORMATS if key in request] if isinstance(request, dict) else []
    if len(keys) != 1:
        return f"the body is not a JSON object with one of {', '.join(FORMATS)}"
    params = request.get("params") or {}
    if not isinstance(params, dict):
        return 'params are not an object, such as {"threshold": 0.2}'
    faults = []
    if not isinstance(params.get("threshold", 0), int | float | None) or isinstance(params.get("threshold"), bool):
        faults.append("threshold is not a number from 0 to 1")
    if not isinstance(params.get("heatmap", False), bool):
        faults.append("heatmap is not true or false")
    return "; ".join(faults) or f"{keys[0]} is not a table with a column image, one base64 text a row"


def _base64_png(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def _version(path: Path) -> str | None:
    """The version that MLflow says it took the model from; it writes a file into the model's folder."""
    version = yaml.safe_load(path.read_text(encoding="utf-8")).get("model_version") if path.is_file() else None
    return None if version is None else str(version)


def _load(path: Path) -> ModuleType:
    """Runs a file as a module of its own, never in `sys.modules`: two versions live in one process without meeting.

    The source itself is run, not bytecode that may lie beside it: its hash is what was checked.
    """
    module = ModuleType(f"_sweep_{path.stem}")
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102
    return module


def _refuse_pickles(path: Path) -> None:
    """Refuses an exported program with anything in it that torch would read as a pickle.

    What torch writes for us is JSON and raw tensors; a file that asks for more is not what was registered.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename
            if name.endswith((".pkl", ".pt", ".pth")) and entry.file_size:  # torch leaves an empty place for examples
                raise MlflowException(f"{path.name} holds a pickle: {name}")
            if name.endswith("_config.json") and b'"use_pickle":true' in archive.read(name).replace(b" ", b""):
                raise MlflowException(f"{path.name} asks for a pickle: {name}")


set_model(ImageClassifier())
