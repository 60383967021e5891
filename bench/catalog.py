"""All workloads, in the order of the results."""

from __future__ import annotations

from bench.plan import Workload
from bench.workloads import (
    beside,
    clients,
    codecs,
    fanout,
    group_clients,
    groups,
    large_log,
    latency,
    one_topic,
    publish,
    replay,
    scale_publish,
    scale_read,
    topics,
)

WORKLOADS: tuple[Workload, ...] = (
    publish.WORKLOAD,
    topics.WORKLOAD,
    latency.WORKLOAD,
    beside.WORKLOAD,
    fanout.WORKLOAD,
    replay.WORKLOAD,
    one_topic.WORKLOAD,
    groups.WORKLOAD,
    group_clients.WORKLOAD,
    clients.WORKLOAD,
    *scale_publish.WORKLOADS,
    *scale_read.WORKLOADS,
    large_log.WORKLOAD,
    codecs.WORKLOAD,
)


def chosen(names: list[str]) -> list[Workload]:
    """Those of these names, or all of them for none.

    Raises:
        KeyError: no workload has this name.
    """
    by_name = {workload.name: workload for workload in WORKLOADS}
    return [by_name[name] for name in names] if names else list(WORKLOADS)
