"""The report as Prometheus text, exposition format 0.0.4.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

#: The states of an array; exactly one of them is 1.
_ARRAY_STATES = ("clean", "active", "replacing", "resyncing", "rebuilding", "degraded", "failed", "stopped")

Labels = Mapping[str, str]
Sample = tuple[Labels, float]


class Metric(NamedTuple):
    """One family: its name, type and help, and what it reads from the report."""

    name: str
    kind: str
    help: str
    samples: Any  # (mount) -> Iterable[Sample]


def render(report: Mapping[str, Any]) -> str:
    """The text of *report* (schema orionfs.status/1).  The labels are mountpoint, array and member."""
    lines = []
    for metric in METRICS:
        found = [
            f"{metric.name}{_braces({'mountpoint': mount['mountpoint'], **labels})} {_number(value)}"
            for mount in report["mounts"]
            for labels, value in metric.samples(mount)
        ]
        if found:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *found]
    return "\n".join([*lines, *_gauges(report)]) + "\n"


def _gauges(report: Mapping[str, Any]) -> Iterable[str]:
    """The numbers that the daemon adds by name; each is a family of its own."""
    names = sorted({name for mount in report["mounts"] for name in mount["gauges"]})
    for name in names:
        yield f"# TYPE orionfs_{name} gauge"
        for mount in report["mounts"]:
            if name in mount["gauges"]:
                labels = _braces({"mountpoint": mount["mountpoint"]})
                yield f"orionfs_{name}{labels} {_number(mount['gauges'][name])}"


def _info(mount: Mapping[str, Any]) -> Iterable[Sample]:
    yield {"version": mount["version"]}, 1


def _of_mount(key: str) -> Any:
    def samples(mount: Mapping[str, Any]) -> Iterable[Sample]:
        yield {}, mount[key]

    return samples


def _of_array(key: str) -> Any:
    def samples(mount: Mapping[str, Any]) -> Iterable[Sample]:
        for array in mount["arrays"]:
            yield {"array": array["name"]}, array[key]

    return samples


def _states(mount: Mapping[str, Any]) -> Iterable[Sample]:
    for array in mount["arrays"]:
        for state in _ARRAY_STATES:
            yield {"array": array["name"], "state": state}, array["state"] == state


def _array_counter(counter: str) -> Any:
    def samples(mount: Mapping[str, Any]) -> Iterable[Sample]:
        for array in mount["arrays"]:
            value = array["counters"].get(counter, array["details"].get(counter))
            if value is not None:
                yield {"array": array["name"]}, value

    return samples


def _member_counter(counter: str) -> Any:
    def samples(mount: Mapping[str, Any]) -> Iterable[Sample]:
        for array in mount["arrays"]:
            for member in array["members"]:
                value = member.get(counter, member["counters"].get(counter))
                if value is not None:
                    yield {"array": array["name"], "member": member["name"]}, value

    return samples


def _member_active(mount: Mapping[str, Any]) -> Iterable[Sample]:
    for array in mount["arrays"]:
        for member in array["members"]:
            yield {"array": array["name"], "member": member["name"]}, member["state"] == "active"


def _member_states(mount: Mapping[str, Any]) -> Iterable[Sample]:
    for array in mount["arrays"]:
        for member in array["members"]:
            yield {"array": array["name"], "member": member["name"], "state": member["state"]}, 1


def _spares(mount: Mapping[str, Any]) -> Iterable[Sample]:
    for array in mount["arrays"]:
        if array["slots"]:
            held = sum(1 for member in array["members"] if member["state"] == "spare")
            yield {"array": array["name"]}, held


def _shared_spares(mount: Mapping[str, Any]) -> Iterable[Sample]:
    yield {}, sum(1 for spare in mount["spares"] if spare["state"] == "idle")


def _bitmap(key: str) -> Any:
    def samples(mount: Mapping[str, Any]) -> Iterable[Sample]:
        for array in mount["arrays"]:
            if array["bitmap"]:
                yield {"array": array["name"]}, array["bitmap"][key]

    return samples


def _scrub(key: str) -> Any:
    def samples(mount: Mapping[str, Any]) -> Iterable[Sample]:
        for array in mount["arrays"]:
            if array["scrub"]:
                yield {"array": array["name"], "scrub": array["scrub"]["kind"]}, array["scrub"][key]

    return samples


def _queued(mount: Mapping[str, Any]) -> Iterable[Sample]:
    for array in mount["arrays"]:
        if array["slots"]:
            yield {"array": array["name"]}, len(array["jobs"])


def _job(key: str) -> Any:
    def samples(mount: Mapping[str, Any]) -> Iterable[Sample]:
        for array in mount["arrays"]:
            job = array["job"]
            if job and job.get(key) is not None:
                yield {"array": array["name"], "job": job["kind"]}, job[key]

    return samples


#: Every metric there is.
METRICS = (
    Metric("orionfs_info", "gauge", "Version of the daemon, as a label.", _info),
    Metric("orionfs_uptime_seconds", "gauge", "Time since the mount was made.", _of_mount("uptime_s")),
    Metric("orionfs_array_size_bytes", "gauge", "Usable capacity.", _of_array("size")),
    Metric("orionfs_array_state", "gauge", "1 for the state that the array is in.", _states),
    Metric("orionfs_array_degraded", "gauge", "Members that are missing or failed.", _of_array("degraded")),
    Metric("orionfs_array_dirty", "gauge", "1 while redundancy may disagree with data.", _of_array("dirty")),
    Metric("orionfs_array_reads_total", "counter", "Completed reads.", _array_counter("reads")),
    Metric("orionfs_array_writes_total", "counter", "Completed writes.", _array_counter("writes")),
    Metric("orionfs_array_read_bytes_total", "counter", "Bytes read.", _array_counter("read_bytes")),
    Metric("orionfs_array_written_bytes_total", "counter", "Bytes written.", _array_counter("written_bytes")),
    Metric(
        "orionfs_array_full_stripe_writes_total",
        "counter",
        "Stripes written without reading.",
        _array_counter("full_stripe_writes"),
    ),
    Metric(
        "orionfs_array_partial_stripe_writes_total",
        "counter",
        "Stripes that had to be read to be written.",
        _array_counter("partial_stripe_writes"),
    ),
    Metric("orionfs_member_active", "gauge", "1 if the member is in use.", _member_active),
    Metric("orionfs_member_state", "gauge", "1, with the state of the member as a label.", _member_states),
    Metric("orionfs_member_read_errors_total", "counter", "Failed reads.", _member_counter("read_errors")),
    Metric("orionfs_member_write_errors_total", "counter", "Failed writes.", _member_counter("write_errors")),
    Metric(
        "orionfs_member_checksum_errors_total",
        "counter",
        "Reads whose contents were provably wrong.",
        _member_counter("checksum_errors"),
    ),
    Metric("orionfs_member_reads_total", "counter", "Completed reads.", _member_counter("reads")),
    Metric("orionfs_member_writes_total", "counter", "Completed writes.", _member_counter("writes")),
    Metric("orionfs_member_read_bytes_total", "counter", "Bytes read.", _member_counter("read_bytes")),
    Metric("orionfs_member_written_bytes_total", "counter", "Bytes written.", _member_counter("written_bytes")),
    Metric("orionfs_job_done_bytes", "gauge", "How far the background job is.", _job("done")),
    Metric("orionfs_job_total_bytes", "gauge", "How far it has to go.", _job("total")),
    Metric("orionfs_job_rate_bytes_per_second", "gauge", "How fast it goes.", _job("rate")),
    Metric("orionfs_jobs_queued", "gauge", "Background jobs that wait for their turn.", _queued),
    Metric("orionfs_scrub_mismatches", "gauge", "Places that the last scrub found not to agree.", _scrub("mismatches")),
    Metric("orionfs_scrub_repaired", "gauge", "Those of them that it repaired.", _scrub("repaired")),
    Metric("orionfs_scrub_unreadable", "gauge", "Stripes that it could not compare.", _scrub("unreadable")),
    Metric("orionfs_scrub_checked_bytes", "gauge", "Bytes of each member that it has compared.", _scrub("checked")),
    Metric("orionfs_bitmap_chunks", "gauge", "Chunks that the write-intent bitmap covers.", _bitmap("chunks")),
    Metric("orionfs_bitmap_dirty_chunks", "gauge", "Chunks that it lists as written.", _bitmap("dirty_chunks")),
    Metric("orionfs_array_spares", "gauge", "Spares that the array holds.", _spares),
    Metric("orionfs_shared_spares", "gauge", "Spares that no array holds and any that may take.", _shared_spares),
)


def _braces(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, int) else repr(value)
