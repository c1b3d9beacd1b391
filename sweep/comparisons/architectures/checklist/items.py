"""The items of two reporting checklists, in our own short words and with their published numbers.

- CLAIM 2024: Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update, Radiology:
  Artificial Intelligence 2024; 6(4): e240300, doi 10.1148/ryai.240300. 44 items.
- TRIPOD+AI: Collins et al., TRIPOD+AI statement: updated guidance for reporting clinical prediction models that use
  regression or machine learning methods, BMJ 2024; 385: e078378, doi 10.1136/bmj-2023-078378. 27 items, 52 with their
  parts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """An item of a checklist.

    Attributes:
        number: As published.
        part: The heading that it stands below.
        text: What it asks for, in our words.
        topic: Which answer it gets, a key of what `checklist_answers.answers` returns; empty where no store can know.
        lacks: What else it asks for that no store holds; with it an answer is one in part.
    """

    number: str
    part: str
    text: str
    topic: str = ""
    lacks: str = ""


@dataclass(frozen=True)
class Checklist:
    """A published checklist.

    Attributes:
        key: Its id on the page.
        name: Its name.
        reference: Where it was published.
        doi: Its DOI.
        items: In order.
    """

    key: str
    name: str
    reference: str
    doi: str
    items: tuple[Item, ...]


_TITLE, _INTRODUCTION, _RESULTS, _DISCUSSION, _OTHER = (
    "Title and abstract", "Introduction", "Results", "Discussion", "Other information",
)  # fmt: skip
_DATA, _REFERENCE, _PARTITIONS = "Methods: data", "Methods: reference standard", "Methods: partitions and test data"
_MODEL, _TRAINING, _EVALUATION = "Methods: model", "Methods: training", "Methods: evaluation"

CLAIM = Checklist(
    "claim",
    "CLAIM 2024",
    "Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update. "
    "Radiology: Artificial Intelligence 2024; 6(4): e240300.",
    "10.1148/ryai.240300",
    (
        Item("1", _TITLE, "Title names a study of AI and the kind of AI", "kind"),
        Item("2", _TITLE, "Summary of design, methods, results and conclusions", "summary", "a structured abstract"),
        Item(
            "3", _INTRODUCTION, "Clinical background, intended use and role", "purpose", "background and clinical role"
        ),
        Item("4", _INTRODUCTION, "Aims and hypotheses", "aims", "hypotheses"),
        Item("5", "Methods: design", "Prospective or retrospective"),
        Item("6", "Methods: design", "Goal of the study", "aims"),
        Item("7", _DATA, "Where the data come from", "source", "when and by whom the images were collected"),
        Item("8", _DATA, "Whom and what was included and excluded, by which rules"),
        Item("9", _DATA, "How images were prepared", "preprocessing"),
        Item("10", _DATA, "Which subset of the data was used", "subset"),
        Item("11", _DATA, "How identities were removed"),
        Item("12", _DATA, "What was done about missing data"),
        Item("13", _DATA, "How the images were acquired"),
        Item("14", _REFERENCE, "How the reference labels were obtained", "reference"),
        Item("15", _REFERENCE, "Why this reference standard"),
        Item("16", _REFERENCE, "Who gave the labels"),
        Item("17", _REFERENCE, "How the test images were labelled"),
        Item("18", _REFERENCE, "Agreement between readers, and between repeated readings"),
        Item("19", _PARTITIONS, "How images were assigned to train, validation and test", "partition"),
        Item("20", _PARTITIONS, "Level at which the partitions share nothing", "disjoint"),
        Item("21", _PARTITIONS, "Planned sample size", "sample"),
        Item("22", _MODEL, "Full description of the model, its input and its output", "model"),
        Item("23", _MODEL, "Software and its versions", "software"),
        Item("24", _MODEL, "How the weights were initialised", "initialisation"),
        Item("25", _TRAINING, "How it was trained", "training"),
        Item("26", _TRAINING, "How the final model was selected", "selection"),
        Item("27", _TRAINING, "Ensembles", "ensemble"),
        Item("28", _EVALUATION, "Measures of performance", "measures"),
        Item("29", _EVALUATION, "Measures of significance and of uncertainty", "uncertainty"),
        Item("30", _EVALUATION, "Analysis of robustness or sensitivity", "robustness"),
        Item("31", _EVALUATION, "Explainability: methods, and how they were checked", "explainability"),
        Item("32", _EVALUATION, "Evaluation on internal data", "internal"),
        Item("33", _EVALUATION, "Test on external data", "external", "whether they are from another institution"),
        Item("34", _EVALUATION, "Registration as a clinical trial"),
        Item("35", _RESULTS, "How many were included and excluded", "numbers", "how many were excluded"),
        Item("36", _RESULTS, "Who the cases are, by partition", "characteristics", "age, sex and findings"),
        Item("37", _RESULTS, "Performance, with its uncertainty", "performance"),
        Item("38", _RESULTS, "Diagnostic accuracy, with its precision", "diagnostic"),
        Item("39", _RESULTS, "Analysis of the errors", "failures", "a review of the images that are wrong"),
        Item("40", _DISCUSSION, "Limitations", "limits", "the authors' discussion of them"),
        Item("41", _DISCUSSION, "What it means for practice"),
        Item("42", _OTHER, "Protocol or further technical details", "details", "a study protocol"),
        Item("43", _OTHER, "Availability of software, model and data", "availability", "where they can be had"),
        Item("44", _OTHER, "Funding, and the role of the funders"),
    ),
)

_ANALYSIS, _OPEN, _PARTICIPANTS = "Methods: analysis", "Open science", "Methods: data and participants"
_VARIABLES = "Methods: outcome and predictors"

TRIPOD = Checklist(
    "tripod",
    "TRIPOD+AI",
    "Collins et al., TRIPOD+AI statement: updated guidance for reporting clinical prediction models that use "
    "regression or machine learning methods. BMJ 2024; 385: e078378.",
    "10.1136/bmj-2023-078378",
    (
        Item("1", _TITLE, "Title: development or evaluation, population, outcome", "kind", "the target population"),
        Item("2", _TITLE, "Abstract", "summary", "an abstract after TRIPOD+AI for Abstracts"),
        Item("3a", _INTRODUCTION, "Healthcare context, reasons, existing models"),
        Item("3b", _INTRODUCTION, "Target population, purpose, users", "purpose", "population, care pathway and users"),
        Item("3c", _INTRODUCTION, "Known health inequalities between groups"),
        Item("4", _INTRODUCTION, "Objectives: development, evaluation or both", "aims"),
        Item("5a", _PARTICIPANTS, "Sources of the data, reasons, representativeness", "source", "representativeness"),
        Item("5b", _PARTICIPANTS, "Dates of the data"),
        Item("6a", _PARTICIPANTS, "Setting, number and place of centres", "setting", "the setting in full"),
        Item("6b", _PARTICIPANTS, "Who was eligible"),
        Item("6c", _PARTICIPANTS, "Treatments, and how they were handled"),
        Item(
            "7", _PARTICIPANTS, "Preparation and quality checks of the data", "preprocessing", "quality checks by group"
        ),
        Item("8a", _VARIABLES, "Outcome, and how and when it was assessed", "outcome", "how and when it was assessed"),
        Item("8b", _VARIABLES, "Who assessed the outcome, if it is a judgement"),
        Item("8c", _VARIABLES, "Blinding of that assessment"),
        Item("9a", _VARIABLES, "How the predictors were chosen", "predictors"),
        Item(
            "9b", _VARIABLES, "Definition and measurement of each predictor", "pixels", "how and when images were taken"
        ),
        Item("9c", _VARIABLES, "Who measured them, if that is a judgement", "measured"),
        Item("10", _PARTICIPANTS, "Sample size and its reasons", "sample"),
        Item("11", _PARTICIPANTS, "Missing data"),
        Item("12a", _ANALYSIS, "How the data were used and divided", "partition"),
        Item("12b", _ANALYSIS, "How predictors were handled", "preprocessing"),
        Item("12c", _ANALYSIS, "Model, all steps of building it, tuning, internal validation", "building"),
        Item("12d", _ANALYSIS, "Differences between clusters such as hospitals"),
        Item("12e", _ANALYSIS, "Measures and plots of performance", "measures", "reasons for them"),
        Item("12f", _ANALYSIS, "Updating of the model after its evaluation", "updating"),
        Item("12g", _ANALYSIS, "How predictions were calculated in the evaluation", "calculated"),
        Item("13", _ANALYSIS, "Class imbalance, and recalibration after it", "imbalance"),
        Item("14", _ANALYSIS, "Fairness"),
        Item("15", _ANALYSIS, "Output, and how thresholds were chosen", "output"),
        Item("16", _ANALYSIS, "Differences between development and evaluation data", "mix", "setting and eligibility"),
        Item("17", _ANALYSIS, "Ethical approval and consent"),
        Item("18a", _OPEN, "Funding, and the role of the funders"),
        Item("18b", _OPEN, "Conflicts of interest"),
        Item("18c", _OPEN, "Protocol"),
        Item("18d", _OPEN, "Registration"),
        Item("18e", _OPEN, "Availability of the data", "data", "where they can be had"),
        Item("18f", _OPEN, "Availability of the code", "code", "where it can be had"),
        Item("19", "Patient and public involvement", "Involvement of patients and the public"),
        Item("20a", _RESULTS, "Flow of participants", "numbers", "how many were excluded, and a diagram"),
        Item("20b", _RESULTS, "Characteristics of the participants", "characteristics", "demographics and dates"),
        Item("20c", _RESULTS, "Evaluation data beside development data", "mix", "distributions of demographics"),
        Item("21", _RESULTS, "Participants and outcome events in each analysis", "numbers"),
        Item("22", _RESULTS, "The full model, for use by others", "specification", "restrictions of access"),
        Item(
            "23a", _RESULTS, "Performance with intervals, also of subgroups", "performance", "sociodemographic groups"
        ),
        Item("23b", _RESULTS, "Performance by cluster"),
        Item("24", _RESULTS, "Results of updating the model", "updated"),
        Item("25", _DISCUSSION, "Interpretation, with fairness and earlier studies"),
        Item("26", _DISCUSSION, "Limitations", "limits", "their effects on bias and generalisability"),
        Item("27a", _DISCUSSION, "Input of poor quality or missing, when the model is used", "input", "poor quality"),
        Item("27b", _DISCUSSION, "What users have to do, and what they must know"),
        Item("27c", _DISCUSSION, "Next steps of research"),
    ),
)
