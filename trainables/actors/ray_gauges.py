"""Sets the gauges that Ray exports to Prometheus; each process has its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ray.util.metrics import Gauge

from trainables.gauges import GAUGES, Sample

log = logging.getLogger(__name__)


class RayGauges:
    """The gauges of one study; a failing export never disturbs it."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._gauges = {kind.name: Gauge(kind.full_name, kind.text, tag_keys=kind.tags) for kind in GAUGES}

    def set(self, samples: Iterable[Sample]) -> None:
        """Sets each sample's gauge to its value."""
        for sample in samples:
            try:
                self._gauges[sample.name].set(sample.value, tags={"study": self._study, **sample.tags})
            except Exception as error:  # whatever Ray's exporter raises, training continues
                log.debug("The gauge %s could not be set: %s", sample.name, error)
