"""What the student report published: every row of its tables, its final table and its conclusions, as data.

Sections are those of the report. It trained each row once, and chose by test accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TEST_IMAGES = 624


@dataclass(frozen=True)
class Row:
    """A training of the report.

    Attributes:
        arch: The architecture.
        number: Of the row in its table, from 1.
        section: Where the table is.
        activation: As our search space names it.
        optimizer: Likewise.
        learning_rate: For cnn2 only the text says it.
        batch_size: Likewise.
        dropout: 0 where the report names none.
        early_stopping: Whether it stopped by validation.
        validation_accuracy: As printed.
        test_accuracy: As printed.
    """

    arch: str
    number: int
    section: str
    activation: str
    optimizer: str
    learning_rate: float
    batch_size: int
    dropout: float
    early_stopping: bool
    validation_accuracy: float
    test_accuracy: float

    @property
    def name(self) -> str:
        """`cnn1 row 3`."""
        return f"{self.arch} row {self.number}"

    @property
    def params(self) -> dict[str, str | int | float]:
        """Its hyperparameters, by our names."""
        names = ("activation", "optimizer", "learning_rate", "batch_size", "dropout")
        return {name: getattr(self, name) for name in names}


ROWS: tuple[Row, ...] = (
    Row("cnn1", 1, "3.1.2", "relu", "adam", 0.001, 128, 0.0, True, 0.75, 0.7624),
    Row("cnn1", 2, "3.1.2", "sigmoid", "adam", 0.001, 128, 0.0, True, 0.875, 0.7744),
    Row("cnn1", 3, "3.1.2", "sigmoid", "adagrad", 0.001, 128, 0.0, True, 0.9358, 0.8542),
    Row("cnn1", 4, "3.1.2", "sigmoid", "adagrad", 0.001, 128, 0.0, False, 0.625, 0.8141),
    Row("cnn1", 5, "3.1.2", "sigmoid", "adagrad", 0.001, 64, 0.0, True, 0.9197, 0.7436),
    Row("cnn1", 6, "3.1.2", "sigmoid", "adam", 0.001, 64, 0.0, True, 0.625, 0.6843),
    Row("cnn1", 7, "3.1.2", "sigmoid", "adagrad", 0.01, 128, 0.0, True, 0.9375, 0.7932),
    Row("cnn2", 1, "3.2.3", "relu", "adagrad", 0.001, 128, 0.2, True, 0.9592, 0.8558),
    Row("cnn2", 2, "3.2.3", "sigmoid", "adagrad", 0.001, 128, 0.2, True, 0.9415, 0.8846),
    Row("cnn2", 3, "3.2.3", "sigmoid", "adam", 0.001, 128, 0.2, True, 0.9285, 0.8526),
    Row("cnn2", 4, "3.2.3", "sigmoid", "adam", 0.001, 128, 0.5, True, 0.9162, 0.8446),
    Row("cnn2", 5, "3.2.3", "sigmoid", "adagrad", 0.001, 128, 0.5, True, 0.9214, 0.8654),
    Row("cnn3", 1, "3.3.2", "relu", "adagrad", 0.0001, 64, 0.0, True, 0.875, 0.7965),
    Row("cnn3", 2, "3.3.2", "relu", "adagrad", 0.001, 64, 0.0, True, 0.875, 0.8141),
    Row("cnn3", 3, "3.3.2", "relu", "adagrad", 0.0001, 128, 0.0, True, 0.5625, 0.8798),
    Row("cnn3", 4, "3.3.2", "relu", "adagrad", 0.00001, 64, 0.0, True, 0.5, 0.625),
    Row("cnn3", 5, "3.3.2", "sigmoid", "adagrad", 0.0001, 64, 0.0, True, 0.5, 0.625),
)

# Section 4. Only macro averages over both classes fit its precisions and F1 scores, as test_published.py shows.
FINAL: Mapping[str, Mapping[str, float]] = {
    "cnn1": {"accuracy": 0.8542, "precision_macro": 0.8622, "f1_macro": 0.8369},
    "cnn2": {"accuracy": 0.8798, "precision_macro": 0.8767, "f1_macro": 0.8698},
    "cnn3": {"accuracy": 0.8766, "precision_macro": 0.8682, "f1_macro": 0.8685},
    "resnet50": {"accuracy": 0.9013, "precision_macro": 0.8979, "f1_macro": 0.9045},
}

# Where the report does not agree with itself, with arithmetic or with the data.
CONTRADICTIONS = (
    "cnn2's accuracy is .8846 in section 3.2.3 and .8798 in section 4",
    "cnn3's is .8798 in the table of section 3.3.2, .8750 in the sentence below it and .8766 in section 4",
    "the class weights of section 2.3 count 5,291 images, section 1.2 counts 1,341 + 3,875 = 5,216",
    "all five validation accuracies of cnn3 and five of cnn1's are sixteenths: one of Kaggle's 16 validation images is "
    "6.25 points; the others come of another, larger set",
    "no number of 624 images makes .7624 or .7744 (cnn1, rows 1 and 2), nor resnet50's .9013 (548 of 608 does, which "
    "are 19 batches of 32)",
    "precision and F1 of section 4 are defined for one class there, but only macro averages give these figures",
    "resnet50's F1 is above both its accuracy and its precision, and no confusion matrix of 624 images gives its three "
    "figures",
    "sections 3.1.3 and 3.2.3 conclude that sigmoid is better than ReLU; cnn3's sigmoid (row 5) scored .625, which is "
    "what calling everything PNEUMONIA scores",
)


@dataclass(frozen=True)
class Conclusion:
    """A sentence that the report concludes with.

    Attributes:
        sentence: What it says.
        sections: Where.
        pairs: (architecture, row that should be better, row that should be worse), alike in all else.
    """

    sentence: str
    sections: str
    pairs: tuple[tuple[str, int, int], ...]


CONCLUSIONS: tuple[Conclusion, ...] = (
    Conclusion("sigmoid is better than ReLU", "3.1.3, 3.2.3", (("cnn1", 2, 1), ("cnn2", 2, 1), ("cnn3", 5, 1))),
    Conclusion(
        "Adagrad is better than Adam",
        "2.2, 3.1.3, 3.2.3, 3.3.3",
        (("cnn1", 3, 2), ("cnn1", 5, 6), ("cnn2", 2, 3), ("cnn2", 5, 4)),
    ),
    Conclusion("dropout 0.2 is better than 0.5", "3.2.3", (("cnn2", 3, 4), ("cnn2", 2, 5))),
    Conclusion("early stopping helps", "3.1.3, 3.2.3, 3.3.3", (("cnn1", 3, 4),)),
    Conclusion("learning rate 0.001 is better than 0.01", "3.1.3, 3.2.3", (("cnn1", 3, 7),)),
)
