"""What the answers of a reporting checklist are made from, and what an answer is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from data import synthetic
from sweep.comparisons.architectures.analysis import ComparedModel, Comparison
from sweep.comparisons.architectures.stored import StoredModel
from sweep.metrics.formatting import format_metric
from sweep.stores import tags as tag

REPORTED, NOT_REPORTED, NOT_APPLICABLE = "reported", "not reported", "not applicable"


@dataclass(frozen=True)
class Answer:
    """What the stores say to a topic.

    Attributes:
        text: A sentence or two.
        sections: Ids of the report's sections that show it; `top` is its first one.
        places: Where it is in the stores: params, tags and files, in words.
        status: One of REPORTED, NOT_REPORTED and NOT_APPLICABLE.
    """

    text: str
    sections: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    status: str = REPORTED


@dataclass(frozen=True)
class Facts:
    """What answers are made from.

    Attributes:
        comparison: The comparison.
        stored: What the stores hold of each model, by architecture.
        sections: Headings of the report by the ids of its sections.
    """

    comparison: Comparison
    stored: Mapping[str, StoredModel]
    sections: Mapping[str, str]

    @property
    def models(self) -> tuple[ComparedModel, ...]:
        """The compared models."""
        return self.comparison.models

    @property
    def champion(self) -> ComparedModel:
        """The model that stands first."""
        return self.comparison.of(self.comparison.champion)

    @property
    def first(self) -> StoredModel:
        """What the stores hold of the champion."""
        return self.stored[self.comparison.champion]

    @property
    def synthetic(self) -> bool:
        """Whether all images were drawn by a program."""
        return self.first.tags.get(tag.DATA) in synthetic.NAMES

    @property
    def metric(self) -> str:
        """What the studies chose by, in words; empty where that is not known."""

        def text(model: ComparedModel, stored: StoredModel) -> str | None:
            name = stored.version_tags.get(tag.METRIC) or stored.study_params.get("metric")
            if further := stored.study_params.get("further_metrics"):
                names = [format_metric(metric) for metric in (name, *further.split(", ")) if metric]
                return f"{' and '.join(names)} (one-standard-error rule)"
            return format_metric(name) if name else None

        return self.each(text)

    def each(self, text: Callable[[ComparedModel, StoredModel], Any]) -> str:
        """A text of each model, with the architecture before it where they differ; empty where no model has one."""
        return "; ".join(self._each(text))

    def lines(self, text: Callable[[ComparedModel, StoredModel], Any]) -> str:
        """The same as sentences, each on a line of its own; for texts that have semicolons themselves."""
        return "\n".join(f"{sentence}." for sentence in self._each(text))

    def _each(self, text: Callable[[ComparedModel, StoredModel], Any]) -> list[str]:
        texts = {model.arch: text(model, self.stored[model.arch]) for model in self.models}
        known = {arch: str(value) for arch, value in texts.items() if value not in (None, "")}
        if len(known) == len(texts) and len(set(known.values())) == 1:
            return [next(iter(known.values()))]
        archs: dict[str, list[str]] = {}
        for arch, value in known.items():
            archs.setdefault(value, []).append(arch)
        return [f"{', '.join(names)}: {value}" for value, names in archs.items()]

    def params(self, *names: str) -> str:
        """Where params are: those of `names` that a run has, and the runs."""
        held = [name for name in names if any(name in model.params for model in self.models)]
        return _place("param", held, [model.run for model in self.models])

    def tags(self, *names: str) -> str:
        """Where tags are, likewise."""
        held = [name for name in names if any(name in stored.tags for stored in self.stored.values())]
        return _place("tag", held, [model.run for model in self.models])

    def version_tags(self, *names: str) -> str:
        """Where tags of versions are, likewise."""
        held = [name for name in names if any(name in stored.version_tags for stored in self.stored.values())]
        return _place("tag", held, [model.version for model in self.models], "version")

    def study_params(self, *names: str) -> str:
        """Where params of the studies' runs are, likewise."""
        held = [name for name in names if any(name in stored.study_params for stored in self.stored.values())]
        return _place("param", held, [stored.study for stored in self.stored.values() if stored.study])

    def files(self, *paths: str) -> str:
        """Where files of the registered models are."""
        return _place("", list(paths), [model.version for model in self.models], "version")


def _place(what: str, names: list[str], owners: list[str], kind: str = "run") -> str:
    """Where something is, such as "params `a`, `b` of runs cnn1-000, cnn2-001"; empty where there is nothing."""
    if not names or not owners:
        return ""
    things = f"{what}{'' if len(names) == 1 else 's'} " if what else ""
    whose = f"{kind}{'' if len(owners) == 1 else 's'} {', '.join(owners)}"
    return f"{things}{', '.join(f'`{name}`' for name in names)} of {whose}"
