"""The configuration as a JSON Schema, for editors that complete and check while one types.

Made from the model: tables, keys, defaults and descriptions are its own; what one value may look like follows
from the function that reads it. A schema cannot say what several keys may be together, so ``lbproc check``
may find more, never less: what the schema refuses, lbproc refuses too.

Invariant: every validator of the model has a shape here; one without is an error, found by the tests.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from lbproc.config import (
    health,
    limits,
    match,
    outlier,
    pem,
    place,
    retries,
    secret,
    tls,
    values,
)
from lbproc.config.model import BackendConfig, Config
from lbproc.config.reference import written_default

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic_core import core_schema

    _Function = Callable[..., Any]

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string", "minLength": 1}
_DURATION: Final[Schema] = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"}
_SIZE: Final[Schema] = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([KkMGT]?B|[KMGT]iB)$"},
    ]
}


def _word(text: str) -> Schema:
    return {"const": text}


def _either(*shapes: Schema) -> Schema:
    return {"anyOf": list(shapes)}


def _path_or(words: tuple[str, ...]) -> Schema:
    return _either(*map(_word, words), {"type": "string", "pattern": r"[/.]"})


_SECRET: Final = _either(
    _TEXT,
    *(
        {
            "type": "object",
            "properties": {key: _TEXT},
            "required": [key],
            "additionalProperties": False,
        }
        for key in ("env", "file")
    ),
)
_HEADERS: Final[Schema] = {"type": "object", "additionalProperties": _SECRET}
_SHAPES: Final[dict[Callable[..., Any], Schema | Callable[..., Schema]]] = {
    values.parse_whole: lambda least, most, **_: {"type": "integer", "minimum": least, "maximum": most},
    values.parse_span: _DURATION,
    values.parse_bytes: _SIZE,
    values.parse_choice: lambda choices, **_: {"enum": list(choices)},
    values.parse_switch: {"type": "boolean"},
    values.parse_workers: _either(_word("auto"), {"type": "integer", "minimum": 1, "maximum": 200}),
    values.parse_name: {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"},
    values.parse_backend_name: {"type": "string", "pattern": r"^[^ ]{1,255}$"},
    values.parse_pool_reference: {"type": "string"},
    values.parse_user: {"type": "string", "pattern": r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"},
    values.parse_hash_key: {
        "type": "string",
        "pattern": r"^(client_ip|path|sni|tls_session_id|(header|cookie|query):.+)$",
    },
    place.parse_socket_path: _TEXT,
    place.parse_pid_path: _TEXT,
    place.parse_network: _TEXT,
    place.parse_bind: _TEXT,
    place.parse_target: _TEXT,
    place.parse_access_target: _path_or(("stdout", "off")),
    place.parse_log_target: _path_or,
    match.parse_host: _TEXT,
    match.parse_path_condition: {"type": "string", "pattern": "^/"},
    match.parse_method: _TEXT,
    match.parse_sni: _TEXT,
    match.parse_alpn: _TEXT,
    values.parse_redirect: _either({"type": "boolean"}, {"type": "integer", "minimum": 1, "maximum": 65_535}),
    limits.parse_rate_value: {"type": "string", "pattern": r"^[0-9]+[kM]?/(second|minute|hour|day|[smhd])$"},
    limits.parse_limit_name: {"type": "string"},
    pem.parse_authorities: _TEXT,
    pem.parse_certificate: _TEXT,
    pem.parse_key: _TEXT,
    tls.parse_certificate_host: _TEXT,
    tls.parse_cipher: _TEXT,
    tls.parse_passthrough: {"type": "object", "additionalProperties": {"type": "string"}},
    secret.parse_secret: _SECRET,
    health.parse_status_range: {"type": "string", "pattern": "^[2-5][0-9]{2}(-[2-5][0-9]{2})?$"},
    health.parse_check_path: {"type": "string", "pattern": "^/"},
    health.parse_check_host: _TEXT,
    health.parse_server_name: _TEXT,
    health.parse_headers: _HEADERS,
    health.parse_text: _TEXT,
    health.parse_check_address: _TEXT,
    outlier.parse_share: lambda least, **_: {"type": "number", "minimum": least, "maximum": 1},
    retries.parse_condition: {
        "anyOf": [
            {"enum": [*retries.FAULT_CONDITIONS, *retries.STATUS_CONDITIONS]},
            {"pattern": "^5[0-9][0-9]$"},
        ]
    },
    retries.parse_budget: {"type": "number", "minimum": 0.001, "maximum": 10},
}
"""What a value is that a validator takes: as it is, or of the validator's arguments."""


def _unwrapped(function: _Function) -> tuple[_Function, dict[str, Any]]:
    """A validator without the arguments that it was given, and these."""
    return (function.func, function.keywords) if isinstance(function, partial) else (function, {})


def _shape_of(function: _Function) -> Schema:
    function, arguments = _unwrapped(function)
    shape = _SHAPES[function]
    return shape(**arguments) if callable(shape) else dict(shape)


class _Generator(GenerateJsonSchema):
    """Knows the validators of the model."""

    def function_plain_schema(self, schema: core_schema.PlainValidatorFunctionSchema) -> JsonSchemaValue:
        return _shape_of(schema["function"]["function"])

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        function = schema["function"]["function"]
        if _unwrapped(function)[0] in _SHAPES:
            return _shape_of(function)
        inner = self.generate_inner(schema["schema"])
        items = inner.get("items", {})
        is_list_of_words = bool(items) and "$ref" not in items
        return _either(items, inner) if is_list_of_words else inner  # one alone may stand for its list

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])  # TOML has no null: a key is there or not

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        if found.get("default", "") is None:
            del found["default"]
        return found

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        for key, field in found.get("properties", {}).items():
            if "default" in field:
                field["default"] = written_default(schema["cls"], key)
        if schema["cls"] is BackendConfig:
            return _either({"type": "string", "minLength": 1, "description": "the address alone"}, found)
        return found


def render_schema() -> Schema:
    """The schema of a whole configuration."""
    found = Config.model_json_schema(schema_generator=_Generator, mode="validation")
    return {
        "$schema": _Generator.schema_dialect,
        **found,
        "title": "lbproc",
        "description": "Configuration of the load balancer lbproc",
    }
