"""A histogram for hot paths: a few list operations an observation, turned into Prometheus' form at each scrape.

prometheus_client's own takes a lock twice and walks its buckets, which is as much as recording a step costs. One thread observes.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Series:
    """The observations of one set of labels, in seconds."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds


class Tally(Collector):
    """A histogram with labels; `labels` gives the series to keep and observe with.

    waits = Tally("stepwell_wait_seconds", "Time waited.", (0.1, 1, 10), ("app",), registry)
    waits.labels("shop").observe(0.3)
    """

    def __init__(
        self,
        name: str,
        text: str,
        bounds: Sequence[float],
        labels: Sequence[str],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._text, self._bounds, self._labels = (
            name,
            text,
            tuple(bounds),
            tuple(labels),
        )
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """The series of these label values, made at first sight."""
        return self._series.setdefault(values, Series(self._bounds))

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The metric without its values: what the registry checks names by."""
        return [HistogramMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """The metric as it stands."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, series in list(self._series.items()):
            seen = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip(
                (*map(str, self._bounds), "+Inf"), list(series.counts), strict=True
            ):
                seen += count
                buckets.append((bound, float(seen)))
            family.add_metric(values, buckets, series.total)
        return [family]
