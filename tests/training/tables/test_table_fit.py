"""Classifiers of tables against scikit-learn fitted by hand; nothing of the tested rows reaches them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from made_rows import make_folds, make_rows
from phoropter.core.errors import DataError, LeakageError
from phoropter.results.metrics.probabilities import softmax
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.tables.row_features import RowFeatures
from phoropter.training.tables.table_fit import fill_missing, fit_table, measure_medians

DATASET = make_rows(120)
SPLIT = make_folds(DATASET)[0]
RNG = np.random.default_rng(0)
VALUES = (RNG.normal(size=(120, 5)) + DATASET.labels[:, None] * np.array([1.5, 0, 0.5, 0, 0])).astype(np.float32)
LOGISTIC, BOOSTING = TableSpec(baseline="hrv"), TableSpec(baseline="hrv", classifier="gradient-boosting")


def test_the_logistic_regression_is_scikit_learns_on_scaled_training_rows() -> None:
    values = VALUES.copy()
    values[::7, 1] = np.nan
    fitted = fit_table(LOGISTIC, RowFeatures(values, 0.0), DATASET, SPLIT)
    train = values[SPLIT.train]
    filled = np.where(np.isnan(values), np.nanmedian(train, axis=0), values)
    mean, deviation = filled[SPLIT.train].mean(0), filled[SPLIT.train].std(0)
    scaled = (filled - mean) / deviation
    penalty = fitted.info["logistic"]["penalty"]

    # Two classes have two rows of weights here and one difference in scikit-learn, whose penalty is therefore twice as strong
    probabilities = softmax(fitted.predict_held_out(SPLIT.test))
    both = LogisticRegression(C=2 / (penalty * len(train)), tol=1e-8, max_iter=1000).fit(
        scaled[SPLIT.train], DATASET.labels[SPLIT.train]
    )
    np.testing.assert_allclose(probabilities, both.predict_proba(scaled[SPLIT.test]), atol=2e-3)
    assert fitted.parameters == 12


def test_boosting_is_scikit_learns_and_takes_missing_values() -> None:
    values = VALUES.copy()
    values[::5, 0] = np.nan
    fitted = fit_table(BOOSTING, RowFeatures(values, 0.0), DATASET, SPLIT)
    reference = HistGradientBoostingClassifier(early_stopping=False, random_state=1)
    reference.fit(values[SPLIT.train], DATASET.labels[SPLIT.train])
    found = softmax(fitted.predict_held_out(SPLIT.test))
    np.testing.assert_allclose(found, reference.predict_proba(values[SPLIT.test]), atol=1e-5)
    assert fitted.parameters is not None and fitted.parameters > 100


@pytest.mark.parametrize("table", [LOGISTIC, BOOSTING])
def test_tested_rows_change_nothing_but_their_own_answers(table: TableSpec) -> None:
    changed, rows = VALUES.copy(), SPLIT.test
    changed[rows[1:]] = 99.0
    one, other = (fit_table(table, RowFeatures(v, 0.0), DATASET, SPLIT).predict_held_out(rows[:1]) for v in (VALUES, changed))
    np.testing.assert_array_equal(one, other)


def test_training_rows_are_not_tested_and_nothing_is_not_fitted() -> None:
    fitted = fit_table(LOGISTIC, RowFeatures(VALUES, 0.0), DATASET, SPLIT)
    with pytest.raises(LeakageError, match="1 rows to be tested were trained on"):
        fitted.predict_held_out(SPLIT.train[:1])
    with pytest.raises(DataError, match="no training row has a feature"):
        fit_table(LOGISTIC, RowFeatures(np.full_like(VALUES, np.nan), 0.0), DATASET, SPLIT)


def test_a_column_without_a_training_value_is_zero() -> None:
    values = VALUES.copy()
    values[SPLIT.train, 2] = np.nan
    filled = fill_missing(values, measure_medians(values[SPLIT.train]))
    assert (filled[SPLIT.train, 2] == 0).all() and np.array_equal(filled[SPLIT.test], VALUES[SPLIT.test])


def test_boosting_does_without_a_column_that_has_no_training_value() -> None:
    lacking = VALUES.copy()
    lacking[SPLIT.train, 2] = np.nan  # as a band of frequencies has none in windows that are too short for it
    found = fit_table(BOOSTING, RowFeatures(lacking, 0.0), DATASET, SPLIT).predict_held_out(SPLIT.test)
    without = fit_table(BOOSTING, RowFeatures(np.delete(VALUES, 2, axis=1), 0.0), DATASET, SPLIT).predict_held_out(SPLIT.test)
    np.testing.assert_array_equal(found, without)
