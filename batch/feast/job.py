"""A retrieval that is computed when its result is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import SavedDatasetStorage

from batch.feast.storage import save
from batch.settings import BatchSettings


class HeadraceRetrievalJob(RetrievalJob):
    """What `compute` gives; Feast adds its on-demand views."""

    def __init__(
        self,
        compute: Callable[[], pa.Table],
        settings: BatchSettings,
        *,
        full_feature_names: bool = False,
        on_demand: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._compute = compute
        self._settings = settings
        self._full_feature_names = full_feature_names
        self._on_demand = on_demand or []
        self._metadata = metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._compute()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._compute().to_pandas()

    @property
    def full_feature_names(self) -> bool:
        """True where a feature's column is named `view__feature`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Feast's own on-demand views that were asked for."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for; None for a plain read of a source."""
        return self._metadata

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Saves the result, on-demand views included, as a dataset.

        Raises SavedDatasetLocationAlreadyExists where there is one and it may not be replaced.
        """
        save(self._settings, storage.to_data_source(), self.to_arrow(), allow_overwrite)

    def to_sql(self) -> str:
        """There is none: values come from the one read, not from one query."""
        raise NotImplementedError("a headrace training set is not one SQL query")

    def to_remote_storage(self) -> Any:
        """Not offered; `persist` writes Iceberg tables."""
        raise NotImplementedError("use persist(HeadraceStorage(table)) instead")
