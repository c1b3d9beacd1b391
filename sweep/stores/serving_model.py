"""The model as MLflow serves it: base64 images in, label and probabilities out.

This file travels with every registered model, beside `network.pt2` (the exported network), `model.json` (how images
are prepared and answers read) and `decode.py` (how an image file becomes pixels). It needs mlflow, torch, pillow,
numpy and pandas, and nothing of the project that made it.
"""

import base64
import binascii
import json
import types
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

BATCH = 32


class ImageClassifier(PythonModel):
    """Answers label and probabilities for a column `image` of base64 JPEGs, PNGs and other pictures."""

    def load_context(self, context: Any) -> None:
        """Reads the model's files."""
        files = {name: Path(path) for name, path in context.artifacts.items()}
        self.about: dict[str, Any] = json.loads(files["about"].read_text())
        self.network = torch.export.load(files["network"]).module()
        # Loaded by its path and never put into sys.modules: two versions live in one process without meeting.
        loader = SourceFileLoader("_sweep_decode", str(files["decode"]))
        self.decoder: Any = types.ModuleType(loader.name)
        loader.exec_module(self.decoder)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride] - MLflow offers two signatures and declares one
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answers a row for each image.

        Args:
            context: MLflow's; unused.
            model_input: A DataFrame with the column `image`.
            params: `threshold`, from 0 to 1, answers with another threshold than the model's own.

        Returns:
            label, probability (of the positive class where there are two, else of the label), probability_<class> for
            each class, and threshold.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE, with one sentence that names the row.
        """
        frame = pd.DataFrame(model_input)
        if "image" not in frame.columns:
            raise _invalid(f"give a column `image`, not {', '.join(map(str, frame.columns)) or 'nothing'}")
        if frame.empty:
            raise _invalid("there are no rows")
        threshold = self._threshold((params or {}).get("threshold"))
        images = list(frame.explode("image")["image"])  # MLflow makes one row of {"image": [...]}
        likely = np.concatenate([self._probabilities(batch) for batch in self._batches(images)])
        classes = self.about["classes"]
        if threshold is None:
            chosen = likely.argmax(axis=1)
            answered = likely.max(axis=1)
        else:
            chosen = (likely[:, 1] >= threshold).astype(int)
            answered = likely[:, 1]
        answer = pd.DataFrame({"label": [classes[label] for label in chosen], "probability": answered})
        for label, name in enumerate(classes):
            answer[f"probability_{name}"] = likely[:, label]
        answer["threshold"] = threshold
        return answer

    def _threshold(self, asked: Any) -> float | None:
        own = self.about["threshold"]
        if asked is None or asked < 0:  # -1 is the signature's default: the model's own
            return own
        if own is None:
            raise _invalid("this model has more than two classes; it takes no threshold")
        if not 0 <= asked <= 1:
            raise _invalid(f"threshold {asked} is not from 0 to 1")
        return float(asked)

    def _batches(self, images: list[Any]) -> Iterator[torch.Tensor]:
        for start in range(0, len(images), BATCH):
            rows = enumerate(images[start : start + BATCH], start)
            pixels = torch.from_numpy(np.stack([self._pixels(row, image) for row, image in rows]))
            yield (pixels.unsqueeze(1).float() / 255 - self.about["mean"]) / self.about["std"]

    def _pixels(self, row: int, image: Any) -> np.ndarray:
        if not isinstance(image, str):
            raise _invalid(f"row {row}: the image is {type(image).__name__}, not a base64 string")
        try:
            content = base64.b64decode("".join(image.split()), validate=True)
        except (binascii.Error, ValueError):
            raise _invalid(f"row {row}: the image is not base64") from None
        try:
            return self.decoder.decode(content, self.about["image_size"])
        except self.decoder.UnreadableImageError as error:
            raise _invalid(f"row {row}: {error}") from None

    @torch.inference_mode()
    def _probabilities(self, images: torch.Tensor) -> np.ndarray:
        return torch.softmax(self.network(images).double(), dim=1).numpy()


def _invalid(sentence: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(sentence)


set_model(ImageClassifier())
