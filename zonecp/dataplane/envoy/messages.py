"""Envoy's messages that are made in more than one place. Only with `--envoy`: imports protobuf."""

from __future__ import annotations

from typing import Any, Final

from envoy.config.cluster.v3 import outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, base_pb2
from google.protobuf import any_pb2, duration_pb2, struct_pb2

HTTP_PROTOCOLS: Final = frozenset({"http", "http2", "grpc"})
HTTP2_PROTOCOLS: Final = frozenset({"http2", "grpc"})

SERVICE_TAG: Final = "kuma.io/service"


def packed(message: Any) -> Any:
    """As an Any whose bytes depend on the content alone, also from one process to the next."""
    found = any_pb2.Any()
    found.Pack(message, deterministic=True)
    return found


def serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def seconds(value: float) -> Any:
    whole = int(value)
    return duration_pb2.Duration(seconds=whole, nanos=round((value - whole) * 1e9))


def socket_address(address: str, port: int, *, udp: bool = False) -> Any:
    protocol = address_pb2.SocketAddress.UDP if udp else address_pb2.SocketAddress.TCP
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(
            address=address, port_value=port, protocol=protocol
        )
    )


def service_metadata(service: str) -> Any:
    """What Kuma writes on a listener: tags of what is behind it."""
    tags = struct_pb2.Struct(fields={SERVICE_TAG: struct_pb2.Value(string_value=service)})
    return base_pb2.Metadata(filter_metadata={"io.kuma.tags": tags})


def joined(address: str, port: int) -> str:
    """`address:port`, an IPv6 address in brackets: as Go's JoinHostPort and Kuma's names."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def outlier_detection() -> Any:
    """Sets an instance aside that cannot be connected to; what it answers is its own business."""
    found = outlier_detection_pb2.OutlierDetection(
        split_external_local_origin_errors=True,
        interval=seconds(1),
        base_ejection_time=seconds(5),
        max_ejection_time=seconds(30),
    )
    found.consecutive_local_origin_failure.value = LOCAL_FAILURES
    found.max_ejection_percent.value = 100
    for never in (
        found.enforcing_consecutive_5xx,
        found.enforcing_success_rate,
        found.enforcing_local_origin_success_rate,
    ):
        never.value = 0
    return found


LOCAL_FAILURES: Final = 2
"""Connections that fail one after the other until an instance is set aside."""
