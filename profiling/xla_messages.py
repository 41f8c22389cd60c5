"""Read the few fields of XLA's messages (xla/service/hlo.proto) that a memory timeline needs."""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# message -> field -> (number, type, repeated); a type is a scalar or the name of one of these messages.
_MESSAGES: dict[str, dict[str, tuple[int, str, bool]]] = {
    "OpMetadata": {"op_name": (2, "string", False)},
    "HloInstruction": {
        "name": (1, "string", False),
        "opcode": (2, "string", False),
        "metadata": (7, "OpMetadata", False),
        "id": (35, "int64", False),
    },
    "HloComputation": {"instructions": (2, "HloInstruction", True)},
    "HloModule": {"computations": (3, "HloComputation", True)},
    "Location": {"shape_index": (3, "int64", True), "instruction_id": (4, "int64", False)},
    "LogicalBuffer": {
        "id": (1, "int64", False),
        "size": (2, "int64", False),
        "defined_at": (3, "Location", False),
    },
    "Assigned": {
        "logical_buffer_id": (1, "int64", False),
        "offset": (2, "int64", False),
        "size": (3, "int64", False),
    },
    "BufferAllocation": {
        "is_thread_local": (3, "bool", False),
        "is_entry_computation_parameter": (5, "bool", False),
        "maybe_live_out": (7, "bool", False),
        "assigned": (9, "Assigned", True),
        "is_constant": (12, "bool", False),
    },
    "BufferAssignment": {
        "logical_buffers": (1, "LogicalBuffer", True),
        "buffer_allocations": (3, "BufferAllocation", True),
    },
}
_SCALARS = {"int64": 3, "bool": 8, "string": 9}
_MESSAGE, _OPTIONAL, _REPEATED = 11, 1, 3


def _classes() -> dict[str, Any]:
    """Build a class for each message."""
    file = descriptor_pb2.FileDescriptorProto(name="profiling/xla_messages.proto", package="profiling.xla")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            message.field.add(
                name=field,
                number=number,
                type=_SCALARS.get(kind, _MESSAGE),
                label=_REPEATED if repeated else _OPTIONAL,
                type_name=None if kind in _SCALARS else f".profiling.xla.{kind}",
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"profiling.xla.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _classes()


def parse(message: str, serialised: bytes) -> Any:
    """Parse a serialised message of the given name; fields that are not listed here are ignored."""
    return _CLASSES[message].FromString(serialised)
