"""What a round leaves for machines to watch: the metric ledger, and the exporter that serves it to Prometheus."""

from typing import Final

PORT: Final = 9464
"""Port of the exporter, as OpenTelemetry's Prometheus exporters have it."""
INTERVAL: Final = 30.0
"""Seconds between two looks of the exporter at the store."""
