"""The model as MLflow serves it: base64 images in, label and probabilities out.

This file travels with every registered model, beside `network.pt2` (the exported network), `model.json` (how images
are prepared and answers read) and `decode.py` (how an image file becomes pixels). It needs mlflow, torch, pillow,
numpy and pandas, and nothing of the project that made it.
"""

import base64
import json
import zipfile
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

BATCH = 32


class ImageClassifier(PythonModel):
    """Answers label and probabilities for a column `image` of base64 JPEGs, PNGs and other pictures."""

    def load_context(self, context: PythonModelContext) -> None:
        """Reads the model's files."""
        files = {name: Path(path) for name, path in context.artifacts.items()}
        self.about: dict[str, Any] = json.loads(files["about"].read_text())
        _refuse_pickles(files["network"])
        self.network = torch.export.load(files["network"]).module()
        self.decoder = _load(files["decode"])

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride] - MLflow's own is empty
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answers a row for each image.

        Args:
            context: MLflow's; unused.
            model_input: The column `image`, one image file in base64 a row.
            params: `threshold`, from 0 to 1, answers with another threshold than the model's own.

        Returns:
            label, probability (of the positive class where there are two classes, else of the label),
            probability_<class> for each class, and threshold (None where the likeliest class is the label).

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE, with one sentence that names the row.
        """
        if model_input.empty:
            raise _invalid("there are no rows")
        threshold = self._threshold((params or {}).get("threshold"))
        images = list(model_input.explode("image")["image"])  # MLflow makes one row of {"image": [...]}
        likely = np.concatenate([self._probabilities(batch) for batch in self._batches(images)])
        classes, positive = self.about["classes"], self.about["positive"]
        labels = [classes[index] for index in likely.argmax(axis=1)]
        probability = likely.max(axis=1)
        if positive is not None:
            probability = likely[:, classes.index(positive)]
        if threshold is not None:
            negative = next(name for name in classes if name != positive)
            labels = np.where(probability >= threshold, positive, negative)
        answer = {"label": labels, "probability": probability}
        answer |= {f"probability_{name}": likely[:, index] for index, name in enumerate(classes)}
        return pd.DataFrame({**answer, "threshold": threshold})

    def _threshold(self, asked: float | None) -> float | None:
        if asked is None:
            return self.about["threshold"]
        if self.about["positive"] is None:
            raise _invalid("this model has more than two classes; it takes no threshold")
        if not 0 <= asked <= 1:
            raise _invalid(f"threshold {asked} is not from 0 to 1")
        return asked

    def _batches(self, images: list[Any]) -> Iterator[torch.Tensor]:
        """Yields float32 tensors of shape [N, 1, size, size], at most BATCH images at once."""
        for start in range(0, len(images), BATCH):
            rows = enumerate(images[start : start + BATCH], start)
            pixels = torch.from_numpy(np.stack([self._pixels(row, image) for row, image in rows]))
            yield (pixels.unsqueeze(1).float() / 255 - self.about["mean"]) / self.about["std"]

    def _pixels(self, row: int, image: Any) -> np.ndarray:
        if not isinstance(image, str):
            raise _invalid(f"row {row}: the image is not a string")
        try:
            content = base64.b64decode("".join(image.split()), validate=True)
        except ValueError:
            raise _invalid(f"row {row}: the image is not base64") from None
        try:
            return self.decoder.decode(content, self.about["image_size"])
        except self.decoder.UnreadableImageError as error:
            raise _invalid(f"row {row}: {error}") from None

    @torch.inference_mode()
    def _probabilities(self, images: torch.Tensor) -> np.ndarray:
        return torch.softmax(self.network(images).double(), dim=1).numpy()


def _load(path: Path) -> ModuleType:
    """Runs a file as a module of its own, never in `sys.modules`: two versions live in one process without meeting."""
    loader = SourceFileLoader("_sweep_decode", str(path))
    module = ModuleType(loader.name)
    loader.exec_module(module)
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


def _invalid(sentence: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(sentence)


set_model(ImageClassifier())
