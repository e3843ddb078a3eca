"""Checks requests and answers of Runpod's API by its OpenAPI: routes, queries, bodies, statuses.

The description that is here is of August 2026. What Runpod's documentation and public clients have since then, and we
use, stands in `NEWER_ROUTES`, `NEWER_QUERIES` and `NEWER_FIELDS`, each with its source.
"""

import copy
import json
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

# https://docs.runpod.io/api-reference-v2/secrets, seen in October 2026
NEWER_ROUTES = ("/v2/account/secrets", "/v2/account/secrets/{id}")
# Lists are paged (runpodctl 2.7.2); secrets are found by their name.
NEWER_QUERIES = {"limit": "an integer", "cursor": "a word", "name": "a word"}
# https://docs.runpod.io/api-reference-v2/pods/create-a-pod, seen in October 2026
NEWER_FIELDS: dict[str, dict[str, Any]] = {
    "CreateGpuConfig": {
        "minRamPerGpu": {"type": "integer", "minimum": 1},
        "minVcpuCountPerGpu": {"type": "integer", "minimum": 1},
    },
}


class RunpodOpenApi:
    """The description of Runpod's API, as questions: what is wrong with this request, or this answer."""

    def __init__(self, path: Path) -> None:
        self.document: dict[str, Any] = json.loads(path.read_text())
        for name, fields in NEWER_FIELDS.items():
            schema = self.document["components"]["schemas"][name]
            schema["allOf"] = [*schema["allOf"], {"type": "object", "properties": copy.deepcopy(fields)}]
        registry: Registry[Any] = Registry()
        self._registry = registry.with_resource("api", DRAFT202012.create_resource(self.document))
        self._validators: dict[str, Draft202012Validator] = {}
        self._templates = {
            template: re.compile("/".join("[^/]+" if part.startswith("{") else part for part in template.split("/")))
            for template in self.document["paths"]
        }

    def route(self, path: str) -> str | None:
        """Return the path's template; of several, the one with the fewest variables (`/v2/pods/{id}`)."""
        matching = [template for template, pattern in self._templates.items() if pattern.fullmatch(path)]
        return min(matching, key=lambda template: template.count("{"), default=None)

    def request_errors(self, method: str, path: str, body: Any, query: dict[str, str] | None = None) -> list[str]:
        """Return what is wrong with a request."""
        template = self.route(path)
        if template is None:
            newer = any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), path) for route in NEWER_ROUTES)
            return [] if newer else [f"{method} {path}: there is no such route"]
        operation = self.document["paths"][template].get(method.lower())
        if operation is None:
            return [f"{method} {template}: there is no such method"]
        errors = self._query_errors(operation, query or {})
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            errors += [] if body is None else ["a body, which it does not take"]
        elif body is not None or operation["requestBody"].get("required"):
            errors += self._errors(content["schema"], body)
        return [f"{method} {template}: {error}" for error in errors]

    def answer_errors(self, method: str, path: str, status: int, answer: Any) -> list[str]:
        """Return what is wrong with an answer."""
        template = self.route(path)
        operation = None if template is None else self.document["paths"][template].get(method.lower())
        if operation is None:
            return []
        responses = operation["responses"]
        response = responses.get(str(status)) or responses.get("default")
        place = f"answer {status} of {method} {template}"
        if response is None:
            return [f"{place}: there is no such status"]
        if "$ref" in response:
            response = self._resolve(response["$ref"])
        contents = response.get("content", {})
        content = contents.get("application/json") or contents.get("application/problem+json")
        if content is None or answer is None:
            # Server-Sent Events, and answers without a body.
            return [f"{place}: a body is missing"] if content is not None else []
        return [f"{place}: {error}" for error in self._errors(content["schema"], answer)]

    def _query_errors(self, operation: dict[str, Any], query: dict[str, str]) -> list[str]:
        known = [
            self._resolve(parameter["$ref"]) if "$ref" in parameter else parameter
            for parameter in operation.get("parameters", [])
        ]
        by_name = {parameter["name"]: parameter for parameter in known if parameter["in"] == "query"}
        errors = []
        for name, text in query.items():
            if name in by_name:
                errors += [f"query {name}: {error}" for error in self._parameter_errors(by_name[name], text)]
            elif name not in NEWER_QUERIES:
                errors.append(f"query {name} is not known")
        return errors

    def _parameter_errors(self, parameter: dict[str, Any], text: str) -> list[str]:
        schema = parameter["schema"]
        resolved = self._resolve(schema["$ref"]) if "$ref" in schema else schema
        values: dict[str, Any] = {"array": text.split(","), "boolean": text == "true"}
        if resolved.get("type") in ("integer", "number") and re.fullmatch(r"-?\d+", text):
            values[resolved["type"]] = int(text)
        return self._errors(schema, values.get(str(resolved.get("type")), text))

    def _errors(self, schema: dict[str, Any], value: Any) -> list[str]:
        return [
            f"{'.'.join(map(str, error.path))}: {error.message}" for error in self._validator(schema).iter_errors(value)
        ]

    def _resolve(self, reference: str) -> dict[str, Any]:
        found: Any = self.document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        return dict(found)

    def _validator(self, schema: dict[str, Any]) -> Draft202012Validator:
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            absolute = json.loads(key.replace('"#/', '"api#/'))
            self._validators[key] = Draft202012Validator(absolute, registry=self._registry)
        return self._validators[key]
