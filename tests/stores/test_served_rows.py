"""The rows of an answer are those of the input, and no error of MLflow or of the model holds what was sent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, load_model, scoring_server

from tests.helpers.served import picture, text

IMAGES = [text(picture(seed)) for seed in range(40)]  # more than one batch


@pytest.fixture(scope="module")
def frame(model: PyFuncModel) -> pd.DataFrame:
    """Images with other columns, and what the model says of each of them alone."""
    alone = [model.predict(pd.DataFrame({"image": [image]}))["probability"].iloc[0] for image in IMAGES]
    assert len(set(alone)) == len(alone)
    return pd.DataFrame({"file": [f"{number}.png" for number in range(40)], "image": IMAGES, "alone": alone})


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame[frame.index >= 8],
        lambda frame: frame[frame.index % 3 == 1],
        lambda frame: frame.iloc[::-1],
        lambda frame: frame.sample(frac=1, random_state=0),
        lambda frame: frame.set_index("file", drop=False),
        lambda frame: frame.set_axis([7] * 40),
        lambda frame: frame.set_axis(pd.MultiIndex.from_product([list("ab"), range(20)])),
        lambda frame: frame.set_axis(pd.date_range("2026-01-01", periods=40)),
        lambda frame: frame.iloc[5:6],
    ],
)
def test_an_answer_has_the_index_of_its_image(change, model: PyFuncModel, frame: pd.DataFrame):
    rows = change(frame)

    answer = model.predict(rows[["image"]])

    assert answer.index.equals(rows.index)
    np.testing.assert_allclose(answer["probability"].to_numpy(), rows["alone"].to_numpy(), atol=2e-6)


def test_a_series_and_heatmaps_keep_their_index_too(model: PyFuncModel, frame: pd.DataFrame):
    rows = frame.iloc[[9, 3, 3]]

    assert model.predict(rows["image"]).index.equals(rows.index)
    answer = model.predict(rows, params={"heatmap": True})

    assert answer.index.equals(rows.index)
    assert answer["heatmap"].iloc[1] == answer["heatmap"].iloc[2] != answer["heatmap"].iloc[0]


def test_lists_are_one_row_an_image(model: PyFuncModel, frame: pd.DataFrame):
    for rows in ({"image": IMAGES[:3]}, pd.DataFrame({"image": [IMAGES[:3]]}), {"image": [[i] for i in IMAGES[:3]]}):
        answer = model.predict(rows)
        assert list(answer.index) == [0, 1, 2]
        np.testing.assert_allclose(answer["probability"], frame["alone"][:3], atol=2e-6)
    one = model.predict(pd.DataFrame({"image": [IMAGES[:2]]}, index=["patient 1"]))
    assert list(one.index) == ["patient 1", "patient 1"]
    for count in (0, 2):
        with pytest.raises(MlflowException, match=f"^row 1: {count} images; send one a row$"):
            model.predict(pd.DataFrame({"image": [IMAGES[0], IMAGES[:count]]}))


@pytest.mark.parametrize(
    "rows",
    [
        {"image": IMAGES[:2], "patient": [1]},
        {"image": [IMAGES[0], 5], "patient": [1]},
        pd.DataFrame([IMAGES[:2]], columns=["image", "image"]),
        pd.Series(IMAGES[:2]),
        IMAGES[:2],
        IMAGES[0],
        IMAGES[0].encode(),
        np.zeros((2, 16, 16)),
        None,
    ],
)
def test_input_that_is_refused_is_not_in_the_error(rows, model: PyFuncModel):
    with pytest.raises(MlflowException) as caught:
        model.predict(rows)

    assert IMAGES[0][:40] not in str(caught.value)
    assert "0." not in str(caught.value)


def test_a_model_that_fails_says_so_without_the_image(folder: Path, monkeypatch, caplog):
    model = load_model(str(folder))  # which finds MLflow's server in this process, as in one of its own
    classifier = model.unwrap_python_model()

    def fail(*_):
        raise RuntimeError(IMAGES[0])

    monkeypatch.setattr(classifier, "classify", fail)
    body = json.dumps({"inputs": {"image": IMAGES[:1]}}).encode()

    with pytest.raises(MlflowException) as caught:
        scoring_server.invocations(body, "application/json", model, model.metadata.get_input_schema())

    assert caught.value.get_http_status_code() == 500
    assert caught.value.message == "the model failed (RuntimeError); the server's log says where"
    assert "Traceback" not in caught.value.serialize_as_json()
    assert "a request was not answered: RuntimeError in " in caplog.text
    assert IMAGES[0][:40] not in caught.value.serialize_as_json() + caplog.text
    with pytest.raises(MlflowException, match="^the request has no content type$"):
        scoring_server.invocations(body, None, model, None)
