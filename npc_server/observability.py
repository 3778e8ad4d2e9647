"""Logs and metrics. Nothing else imports their libraries."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal, TextIO, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

Logger = structlog.stdlib.BoundLogger

LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 10, 20, 40)


def get_logger(name: str) -> Logger:
    """A structured logger; the first argument of its calls names what happened."""
    return cast("Logger", structlog.get_logger(name))


def bind(**context: Any) -> None:
    """Put facts such as ``session`` on every line that the present task logs from here on."""
    structlog.contextvars.bind_contextvars(**context)


def configure_logging(
    level: str, style: Literal["auto", "console", "json"], *, stream: TextIO | None = None
) -> None:
    """Send logs to ``stream`` (standard error): coloured for people, JSON lines for programs."""
    out = stream or sys.stderr
    people = style == "console" or (style == "auto" and out.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=out.isatty())
        if people
        else structlog.processors.JSONRenderer()
    )
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if people else "iso", utc=not people),
        structlog.processors.StackInfoRenderer(),
    ]
    if not people:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=out, format="%(name)s: %(message)s")


class Metrics:
    """The server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.connections = Gauge(
            "npc_connections", "Open WebSocket connections.", registry=self.registry
        )
        self.commands = Counter(
            "npc_commands", "Commands by type.", ["type"], registry=self.registry
        )
        self.errors = Counter("npc_errors", "Errors by code.", ["code"], registry=self.registry)
        self.closes = Counter(
            "npc_closes", "Connections that the server closed.", ["code"], registry=self.registry
        )
        self.replies = Counter(
            "npc_replies", "Replies by how they ended.", ["finish"], registry=self.registry
        )
        self.tokens = Counter("npc_tokens", "Tokens by kind.", ["kind"], registry=self.registry)
        by_class = ["engine", "priority"]
        self.queue_depth = Gauge(
            "npc_queue_depth", "Requests that wait for a seat.", by_class, registry=self.registry
        )
        self.queue_wait = Histogram(
            "npc_queue_seconds",
            "From a request to its seat.",
            by_class,
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.seats = Gauge(
            "npc_seats", "Seats that an engine has.", ["engine"], registry=self.registry
        )
        self.seats_busy = Gauge("npc_seats_busy", "Seats in use.", by_class, registry=self.registry)
        self.recalls = Counter(
            "npc_recalls", "Seats called back for a player.", by_class, registry=self.registry
        )
        self.busy = Counter(
            "npc_busy", "Requests refused a seat.", by_class, registry=self.registry
        )
        self.degraded = Counter(
            "npc_degraded_replies",
            "Replies with a stand-in, by the one that says most.",
            ["rung"],
            registry=self.registry,
        )
        self.repetitions = Counter(
            "npc_repetitions",
            "Replies that repeated earlier ones or themselves, by what was done.",
            ["done"],
            registry=self.registry,
        )
        self.engine_failures = Counter(
            "npc_engine_failures",
            "Replies that an engine could not begin.",
            ["engine"],
            registry=self.registry,
        )
        self.first_token = Histogram(
            "npc_first_token_seconds",
            "From a reply's request to its first text.",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.conversations = Gauge(
            "npc_conversations_cached", "Conversations in memory.", registry=self.registry
        )

    def exposition(self) -> tuple[bytes, str]:
        """The metrics as Prometheus reads them, and the content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
