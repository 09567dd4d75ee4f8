# SPDX-License-Identifier: Apache-2.0
"""Protobuf messages of package `inference` and of `grpc.health.v1`, made from a table of their field numbers.

Numbers and names are the specification: KServe's open_inference_grpc.proto, extended by Triton's grpc_service.proto and
model_config.proto where its clients ask for more; health is gRPC's health/v1/health.proto. What no server of ours fills in
or reads (ensembles, tracing, ..) is left out: unknown fields are skipped.

The pool is our own: a client library in the same process may have registered the same names in the default one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

Message = Any
"""An instance of one of the classes `message_class` makes: their fields are known at run time only."""

MessageClass = Any

_SCALARS: Final = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}

_ENUMS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "inference": {
        "DataType": (
            "TYPE_INVALID",
            "TYPE_BOOL",
            "TYPE_UINT8",
            "TYPE_UINT16",
            "TYPE_UINT32",
            "TYPE_UINT64",
            "TYPE_INT8",
            "TYPE_INT16",
            "TYPE_INT32",
            "TYPE_INT64",
            "TYPE_FP16",
            "TYPE_FP32",
            "TYPE_FP64",
            "TYPE_STRING",
            "TYPE_BF16",
        )
    },
    "grpc.health.v1": {"ServingStatus": ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")},
}
"""Package -> enum -> names in the order of their numbers."""

# One line per message, one `number type name` per field; `*` = repeated, `{}` = a map from string, `|` = of a oneof.
_MESSAGES: Final[dict[str, dict[str, str]]] = {
    "inference": {
        "ServerLiveRequest": "",
        "ServerLiveResponse": "1 bool live",
        "ServerReadyRequest": "",
        "ServerReadyResponse": "1 bool ready",
        "ModelReadyRequest": "1 string name, 2 string version",
        "ModelReadyResponse": "1 bool ready",
        "ServerMetadataRequest": "",
        "ServerMetadataResponse": "1 string name, 2 string version, 3 string* extensions",
        "ModelMetadataRequest": "1 string name, 2 string version",
        "TensorMetadata": "1 string name, 2 string datatype, 3 int64* shape",
        "ModelMetadataResponse": "1 string name, 2 string* versions, 3 string platform, 4 TensorMetadata* inputs,"
        " 5 TensorMetadata* outputs",
        "InferParameter": "1 bool| bool_param, 2 int64| int64_param, 3 string| string_param, 4 double| double_param,"
        " 5 uint64| uint64_param",
        "InferTensorContents": "1 bool* bool_contents, 2 int32* int_contents, 3 int64* int64_contents,"
        " 4 uint32* uint_contents, 5 uint64* uint64_contents, 6 float* fp32_contents, 7 double* fp64_contents,"
        " 8 bytes* bytes_contents",
        "InferInputTensor": "1 string name, 2 string datatype, 3 int64* shape, 4 InferParameter{} parameters,"
        " 5 InferTensorContents contents",
        "InferRequestedOutputTensor": "1 string name, 2 InferParameter{} parameters",
        "ModelInferRequest": "1 string model_name, 2 string model_version, 3 string id, 4 InferParameter{} parameters,"
        " 5 InferInputTensor* inputs, 6 InferRequestedOutputTensor* outputs, 7 bytes* raw_input_contents",
        "InferOutputTensor": "1 string name, 2 string datatype, 3 int64* shape, 4 InferParameter{} parameters,"
        " 5 InferTensorContents contents",
        "ModelInferResponse": "1 string model_name, 2 string model_version, 3 string id, 4 InferParameter{} parameters,"
        " 5 InferOutputTensor* outputs, 6 bytes* raw_output_contents",
        "ModelParameter": "1 string string_value",
        "ModelInput": "1 string name, 2 DataType data_type, 4 int64* dims",
        "ModelOutput": "1 string name, 2 DataType data_type, 3 int64* dims",
        "ModelDynamicBatching": "1 int32* preferred_batch_size, 2 uint64 max_queue_delay_microseconds",
        "ModelTransactionPolicy": "1 bool decoupled",
        "ModelConfig": "1 string name, 2 string platform, 4 int32 max_batch_size, 5 ModelInput* input,"
        " 6 ModelOutput* output, 11 ModelDynamicBatching dynamic_batching, 14 ModelParameter{} parameters,"
        " 17 string backend, 19 ModelTransactionPolicy model_transaction_policy",
        "ModelConfigRequest": "1 string name, 2 string version",
        "ModelConfigResponse": "1 ModelConfig config",
        "StatisticDuration": "1 uint64 count, 2 uint64 ns",
        "InferStatistics": "1 StatisticDuration success, 2 StatisticDuration fail, 3 StatisticDuration queue,"
        " 4 StatisticDuration compute_input, 5 StatisticDuration compute_infer, 6 StatisticDuration compute_output,"
        " 7 StatisticDuration cache_hit, 8 StatisticDuration cache_miss",
        "InferBatchStatistics": "1 uint64 batch_size, 2 StatisticDuration compute_input,"
        " 3 StatisticDuration compute_infer, 4 StatisticDuration compute_output",
        "ModelStatistics": "1 string name, 2 string version, 3 uint64 last_inference, 4 uint64 inference_count,"
        " 5 uint64 execution_count, 6 InferStatistics inference_stats, 7 InferBatchStatistics* batch_stats",
        "ModelStatisticsRequest": "1 string name, 2 string version",
        "ModelStatisticsResponse": "1 ModelStatistics* model_stats",
        "ModelIndex": "1 string name, 2 string version, 3 string state, 4 string reason",
        "RepositoryIndexRequest": "1 string repository_name, 2 bool ready",
        "RepositoryIndexResponse": "1 ModelIndex* models",
        "RegionStatus": "1 string name, 2 string key, 3 uint64 offset, 4 uint64 byte_size",
        "SystemSharedMemoryStatusRequest": "1 string name",
        "SystemSharedMemoryStatusResponse": "1 RegionStatus{} regions",
        "SystemSharedMemoryRegisterRequest": "1 string name, 2 string key, 3 uint64 offset, 4 uint64 byte_size",
        "SystemSharedMemoryRegisterResponse": "",
        "SystemSharedMemoryUnregisterRequest": "1 string name",
        "SystemSharedMemoryUnregisterResponse": "",
    },
    "grpc.health.v1": {
        "HealthCheckRequest": "1 string service",
        "HealthCheckResponse": "1 ServingStatus status",
    },
}


def _fields(line: str) -> Iterator[tuple[int, str, str, str]]:
    """(number, type, mark, name) of each field."""
    for entry in filter(None, (part.strip() for part in line.split(","))):
        number, kind, name = entry.split()
        bare = kind.rstrip("*|{}")
        yield int(number), bare, kind[len(bare) :], name


def _add_field(message: DescriptorProto, package: str, *, number: int, kind: str, mark: str, name: str) -> None:
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if mark in {"*", "{}"} else field.LABEL_OPTIONAL
    if mark == "{}":
        entry = message.nested_type.add(name="".join(map(str.capitalize, name.split("_"))) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, package, number=1, kind="string", mark="", name="key")
        _add_field(entry, package, number=2, kind=kind, mark="", name="value")
        field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{message.name}.{entry.name}"
    elif kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = field.TYPE_ENUM if kind in _ENUMS[package] else field.TYPE_MESSAGE
        field.type_name = f".{package}.{kind}"
    if mark == "|":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0


def _file(package: str) -> FileDescriptorProto:
    file = FileDescriptorProto(name=f"skerry/{package}.proto", package=package, syntax="proto3")
    for name, values in _ENUMS[package].items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, line in _MESSAGES[package].items():
        message = file.message_type.add(name=name)
        for number, kind, mark, field in _fields(line):
            _add_field(message, package, number=number, kind=kind, mark=mark, name=field)
    return file


def _classes() -> dict[str, MessageClass]:
    pool = DescriptorPool()
    classes = {}
    for package, messages in _MESSAGES.items():
        pool.AddSerializedFile(_file(package).SerializeToString())
        for name in messages:
            classes[name] = GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
    return classes


_CLASSES: Final = _classes()


def message_class(name: str) -> MessageClass:
    return _CLASSES[name]
