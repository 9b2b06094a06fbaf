"""Reads OTLP requests by the definitions of the OpenTelemetry project (opentelemetry-proto): [{"path", "body"}] on standard input.

Fails on every field that they do not have and on every value that is not of its type; then on ids and times that no backend
could use. Prints how many spans, log records and data points there were.
"""
import base64
import json
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS = {"/v1/traces": ExportTraceServiceRequest, "/v1/logs": ExportLogsServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}
IDS = {"traceId": 16, "spanId": 8, "parentSpanId": 8}


def with_ids(value):
    """OTLP writes ids in hex where JSON of Protocol Buffers has base64."""
    if isinstance(value, list):
        return [with_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: of_id(key, item) if key in IDS else with_ids(item) for key, item in value.items()}


def of_id(key, text):
    raw = bytes.fromhex(text)
    assert raw == b"" or (len(raw) == IDS[key] and any(raw)), f"{key} {text!r}"  # empty: none
    return base64.b64encode(raw).decode()


def single(attributes, where):
    keys = [attribute.key for attribute in attributes]
    assert all(keys) and len(keys) == len(set(keys)), f"attributes of {where}: {keys}"


def points_of(metric):
    kind = metric.WhichOneof("data")
    assert kind is not None and metric.name, f"metric {metric.name!r} is of no kind"
    for point in getattr(metric, kind).data_points:
        single(point.attributes, metric.name)
        assert 0 < point.start_time_unix_nano <= point.time_unix_nano, f"times of {metric.name}"
        if kind == "histogram":
            assert len(point.bucket_counts) == len(point.explicit_bounds) + 1, f"buckets of {metric.name}"
            assert sum(point.bucket_counts) == point.count, f"count of {metric.name}"
        yield point


counts = {"spans": 0, "logs": 0, "points": 0, "services": set()}
for request in json.load(sys.stdin):
    message = json_format.ParseDict(with_ids(json.loads(request["body"])), REQUESTS[request["path"]]())
    for group in [*getattr(message, "resource_spans", []), *getattr(message, "resource_logs", []), *getattr(message, "resource_metrics", [])]:
        about = {attribute.key: attribute.value.string_value for attribute in group.resource.attributes}
        assert about.get("service.name"), "a resource without service.name"
        counts["services"].add(about["service.name"])
        for scope in getattr(group, "scope_spans", []):
            for span in scope.spans:
                counts["spans"] += 1
                single(span.attributes, span.name)
                assert span.trace_id and span.span_id, f"ids of {span.name}"
                assert span.name and span.kind in range(1, 6), f"span {span.name!r} of kind {span.kind}"
                assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano, f"times of {span.name}"
        for scope in getattr(group, "scope_logs", []):
            for record in scope.log_records:
                counts["logs"] += 1
                single(record.attributes, "a log record")
                assert record.time_unix_nano > 0 and record.severity_number in range(1, 25), "a log record"
        for scope in getattr(group, "scope_metrics", []):
            for metric in scope.metrics:
                counts["points"] += sum(1 for _ in points_of(metric))
print(json.dumps({**counts, "services": sorted(counts["services"])}))
