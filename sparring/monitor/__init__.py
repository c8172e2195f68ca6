"""What a round leaves for machines to watch: the metric ledger, and the exporter that serves it to Prometheus."""

from typing import Final

PORT: Final = 9464
"""Port of the exporter, as OpenTelemetry's Prometheus exporters have it."""
INTERVAL: Final = 30.0
"""Seconds between two looks of the exporter at the store."""
PORT_VARIABLE: Final = "SPARRING_METRICS_PORT"
"""Environment variable with the port on which a step serves its own metrics while it works; unset: it does not."""
HOST_VARIABLE: Final = "SPARRING_METRICS_HOST"
"""Environment variable with the address that a step listens on; 127.0.0.1 when it is not set."""
