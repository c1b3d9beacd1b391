"""Answers to the items of the reporting checklists, from the comparison and what the stores hold of its models.

Nothing is guessed: where the stores do not hold what an answer needs, there is none, and the page says "not reported".
"""

from __future__ import annotations

from sweep.comparisons.architectures.checklist.data_answers import data_answers
from sweep.comparisons.architectures.checklist.evaluation_answers import (
    evaluation_answers,
    study_answers,
    use_answers,
)
from sweep.comparisons.architectures.checklist.facts import Answer, Facts
from sweep.comparisons.architectures.checklist.model_answers import model_answers, training_answers


def answers(facts: Facts) -> dict[str, Answer]:
    """Every topic that the stores say something to: topic -> answer."""
    known: dict[str, Answer | None] = {}
    for part in (study_answers, data_answers, model_answers, training_answers, evaluation_answers, use_answers):
        known |= part(facts)
    return {topic: answer for topic, answer in known.items() if answer is not None}
