"""Images of your own: a folder of files and a table of their labels become what `--data` takes.

    python own_data.py my_images labels.csv    # a table with the columns file, label and patient
    python own_data.py                         # draws 160 images and such a table first

A patient's images all go to the same side, training or test; the search keeps patients apart in validation likewise.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import sweep

PATIENT = r"^.+?(?=__)"  # of PATIENT__FILE, as `arrange` names the images


def arrange(images: Path, table: pd.DataFrame, place: Path, test: float = 0.25, seed: int = 0) -> Path:
    """Copies images to place/train/LABEL/ and, of a share of the patients of each label, to place/test/LABEL/."""
    patients = table.drop_duplicates("patient")
    held_out = patients.groupby("label").sample(frac=test, random_state=seed)["patient"]
    for row in table.itertuples():
        folder = place / ("test" if row.patient in set(held_out) else "train") / str(row.label)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(images / row.file, folder / f"{row.patient}__{Path(row.file).name}")
    return place


def draw(images: Path) -> pd.DataFrame:
    """Draws dark and bright squares in noise, four images for each of 40 patients."""
    images.mkdir(exist_ok=True)
    random, rows = np.random.default_rng(0), []
    for number in range(160):
        patient, label = f"p{number // 4}", ("bright", "dark")[number // 4 % 2]
        pixels = random.normal(120, 20, (40, 40))
        pixels[12:28, 12:28] += 40 if label == "bright" else -40
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(images / f"{number}.png")
        rows.append((f"{number}.png", label, patient))
    return pd.DataFrame(rows, columns=["file", "label", "patient"])


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "drawn")
    table = pd.read_csv(sys.argv[2]) if len(sys.argv) > 1 else draw(folder)
    data = arrange(folder, table, Path("arranged"))
    options = {"patient_pattern": PATIENT, "image_size": 32, "epochs": 5, "workers": 1}
    fix = {"batch_size": 8, "activation": "relu", "learning_rate": 0.003}
    result = sweep.search("cnn1", data=data, trials=2, fix=fix, **options)
    print(result)
    print(sweep.predict(result.uri, data / "test").answers.value_counts("label"))
