"""What a run stores about how it was made leads back to the same settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.orchestrator.run_params import fixed_params, settings_of
from sweep.plan import make_plan
from sweep.settings import Settings


@pytest.mark.parametrize("allowed", [True, False])
def test_leakage_that_was_allowed_stays_allowed_for_what_trains_it_again(pictures: Path, allowed: bool):
    fix = ("batch_size=16", "activation=relu", "optimizer=adam", "learning_rate=0.001", "dropout=0.1")
    plan = make_plan(Settings(("cnn1",), data=pictures, fix=fix, allow_leakage=allowed), fetch=False)
    params = {**fixed_params(plan, plan.studies[0]), **dict(pair.split("=") for pair in fix)}

    assert ("allow_leakage" in params) is allowed
    assert settings_of(params).allow_leakage is allowed
    assert settings_of(params, allow_leakage=True).allow_leakage is True
