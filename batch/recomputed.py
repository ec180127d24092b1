"""Which rows of a training set rest on recomputed history: DESIGN §3, `Enriched`.

Their values are what was true then, not what a worker knew then: a model is judged a little kindly by them.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch.limited import position
from batch.offsets import IMPORTED
from features.finish import Values
from features.lookup import Lookup
from features.plan import ViewPlan
from features.ranges import Ints


def is_enriched(plan: ViewPlan) -> bool:
    """True for a view over events that a worker enriches."""
    return any(source.event.enriched is not None for source in plan.sources)


def recomputed_column(view: str) -> str:
    """The training set's column that marks the rows."""
    return f"{view}_recomputed"


def recomputed(plan: ViewPlan, records: pa.Table, keys: pa.Array, instants: Ints, since: Ints) -> Values:
    """For each query whether a recomputed event of its entity lies in since ≤ t < instant."""
    numbers = [n for n, source in enumerate(plan.sources) if source.event.enriched is not None]
    wanted = pa.array([position(number, IMPORTED) for number in numbers], pa.int64())
    lookup = Lookup(records.filter(pc.is_in(records["position"].cast(pa.int64()), wanted)), keys)
    return Values(lookup.at(since) < lookup.at(instants), np.ones(len(instants), np.bool_))
