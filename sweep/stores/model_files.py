"""Read single text files of a registered model without loading it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from sweep.stores.packaging import global_store
from sweep.stores.registry import Version


def read_model_file(client: MlflowClient, version: Version, path: str) -> str | None:
    """Reads a text file of a registered model. It is data for a page: unlike `registry.load`, no hash is checked.

    Args:
        client: Of the registry.
        version: A version.
        path: Below the model's folder, such as `model_card.md`.

    Returns:
        Its text; None where the model has no such file.
    """
    uri = f"models:/{version.name}/{version.version}/{path}"
    with tempfile.TemporaryDirectory() as folder, global_store(str(client.tracking_uri)):
        try:
            local = Path(download_artifacts(uri, dst_path=folder, tracking_uri=str(client.tracking_uri)))
            return local.read_text(encoding="utf-8") if local.is_file() else None
        except (MlflowException, OSError):
            return None
