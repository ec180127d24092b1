"""Two models of late arrivals, alike but for the streaming features: nine months to learn from, three to be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from headrace.demo.rows import FIRST_TEST_MONTH

SCHEDULE = ("carrier", "origin", "dest", "weekday", "minute", "minutes_planned", "distance_miles")
"""What the schedule says of a flight, with no event at all. Not the month: the test's months are never seen before."""
TREES = 100
LEARNING_RATE = 0.1


class Model:
    """P(late) from some columns of a table; text columns are categories."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self._categories: dict[str, pd.Index] = {}
        self._trees = HistGradientBoostingClassifier(
            max_iter=TREES,
            learning_rate=LEARNING_RATE,
            early_stopping=False,
            categorical_features="from_dtype",
            random_state=0,
        )

    def fit(self, rows: pa.Table) -> Model:
        """Learns from rows that have a label."""
        frame = rows.select(self.columns).to_pandas()
        for name in filter(lambda each: pa.types.is_string(rows.schema.field(each).type), self.columns):
            self._categories[name] = pd.Index(sorted(frame[name].dropna().unique()))
        self._trees.fit(self._encode(frame), rows["late"].to_numpy())
        return self

    def predict(self, rows: pa.Table) -> npt.NDArray[np.float64]:
        """P(late) of each row."""
        probabilities: npt.NDArray[np.float64] = self._trees.predict_proba(
            self._encode(rows.select(self.columns).to_pandas())
        )
        return probabilities[:, 1]

    def _encode(self, frame: pd.DataFrame) -> pd.DataFrame:
        numbers = frame.drop(columns=list(self._categories)).astype("float64")
        texts = {name: pd.Categorical(frame[name], index) for name, index in self._categories.items()}
        return numbers.assign(**texts)[self.columns]


@dataclass(frozen=True)
class Evaluation:
    """The model to serve, and both models' AUC over the last three months, exact to the flight."""

    model: Model
    auc_with_streaming: float
    auc_without: float
    auc_at_gate_with_streaming: float
    """Only of flights that had not left early: of them, no feature can know a departure of their own."""
    auc_at_gate_without: float
    rows_trained: int
    rows_tested: int


def evaluate(training_set: pa.Table) -> Evaluation:
    """Fits both models on the first nine months and compares them on the last three."""
    labelled = training_set.filter(training_set["late"].is_valid())
    first = pc.less(labelled["month"], FIRST_TEST_MONTH)
    train, test = labelled.filter(first), labelled.filter(pc.invert(first))
    streaming = [name for name in training_set.column_names if "__" in name]
    model, plain = Model([*SCHEDULE, *streaming]).fit(train), Model(SCHEDULE).fit(train)
    scores, plain_scores = model.predict(test), plain.predict(test)
    late, at_gate = test["late"].to_numpy(), test["at_gate"].to_numpy()
    return Evaluation(
        model,
        float(roc_auc_score(late, scores)),
        float(roc_auc_score(late, plain_scores)),
        float(roc_auc_score(late[at_gate], scores[at_gate])),
        float(roc_auc_score(late[at_gate], plain_scores[at_gate])),
        train.num_rows,
        test.num_rows,
    )
