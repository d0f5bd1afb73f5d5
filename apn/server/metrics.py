"""What the server counts, in a registry of its own so that two servers in one process do not share numbers."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters and histograms of one server; labels come from closed sets, never from what a client sent."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, CPU and file descriptors of the process
        self.requests = Counter("apn_requests", "Requests answered", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "apn_request_seconds", "From first byte to answer", ["route"], buckets=SECONDS, registry=registry
        )
        self.images = Counter("apn_images", "Images scored", ["verdict"], registry=registry)
        self.errors = Counter("apn_image_errors", "Images not scored", ["reason"], registry=registry)
        self.decode_seconds = Histogram(
            "apn_decode_seconds", "Bytes to pixels, one image", buckets=SECONDS, registry=registry
        )
        self.inference_seconds = Histogram(
            "apn_inference_seconds", "Pixels to verdicts, one batch", buckets=SECONDS, registry=registry
        )
        self.batch_images = Histogram(
            "apn_batch_images", "Images of one batch", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.explanations = Counter(
            "apn_explanations", "Explanations answered, made or remembered", ["source"], registry=registry
        )
        self.explain_seconds = Histogram(
            "apn_explain_seconds", "Pixels to explanation, one image", buckets=SECONDS, registry=registry
        )
        self._depth = Gauge("apn_queue_images", "Images waiting for the detector", registry=registry)
        self._held = Gauge("apn_held_bytes", "Bytes of uploads in memory", registry=registry)
        self._explaining = Gauge("apn_explain_images", "Images being explained or waiting for it", registry=registry)

    def watch(
        self, depth: Callable[[], float], held: Callable[[], float], explaining: Callable[[], float] | None = None
    ) -> None:
        """Read the gauges from their owners at scrape time; without an explainer nothing is ever explained."""
        self._depth.set_function(depth)
        self._held.set_function(held)
        if explaining is not None:
            self._explaining.set_function(explaining)
