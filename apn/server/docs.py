"""/docs without a request to anywhere: the OpenAPI description rendered as one plain HTML page.

FastAPI's own page loads Swagger UI from a CDN, which would tell a third party who uses this server.
"""

import json
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 56rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #8885 }
section { margin: 2rem 0 }
"""


def docs_page(schema: dict[str, Any]) -> str:
    """A page with every operation and every data type of an OpenAPI `schema`."""
    info = schema["info"]
    operations = [
        _operation(f"{method.upper()} {path}", operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    types = [_type(name, body) for name, body in schema["components"]["schemas"].items()]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style>"
        f"<main><h1>{escape(info['title'])} API {escape(info['version'])}</h1><p>{escape(info['description'])}</p>"
        '<p>For programs: <a href="openapi.json">openapi.json</a>. For people: <a href="./">the page</a>. Example: '
        f"<code>curl -F files=@picture.jpg http://127.0.0.1:8000/v1/detect</code></p>{''.join(operations)}"
        f"<h2>Data types</h2>{''.join(types)}</main></html>"
    )


def _operation(title: str, operation: dict[str, Any]) -> str:
    inputs = [
        (parameter["name"], parameter["schema"], parameter.get("description", ""))
        for parameter in operation.get("parameters", [])
    ]
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        inputs += [(name, field, f"in a {kind} body") for name, field in body["schema"]["properties"].items()]
    answers = [(status, _schema(answer), answer["description"]) for status, answer in operation["responses"].items()]
    return (
        f"<section><h2><code>{escape(title)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
        f"{_table('Input', inputs)}{_table('Answer', answers)}</section>"
    )


def _schema(answer: dict[str, Any]) -> dict[str, Any]:
    contents: list[dict[str, Any]] = list(answer.get("content", {}).values())
    return contents[0].get("schema", {}) if contents else {}


def _type(name: str, body: dict[str, Any]) -> str:
    fields = [(field, part, part.get("description", "")) for field, part in body.get("properties", {}).items()]
    return (
        f'<section id="{escape(name)}"><h3><code>{escape(name)}</code></h3>'
        f"<p>{escape(body.get('description', ''))}</p>{_table('Field', fields)}</section>"
    )


def _table(title: str, rows: list[tuple[str, dict[str, Any], str]]) -> str:
    lines = (
        f"<tr><td><code>{escape(name)}</code></td><td>{_kind(schema)}</td><td>{escape(text)}</td></tr>"
        for name, schema, text in rows
    )
    head = f"<thead><tr><th>{title}</th><th>Type</th><th>Meaning</th></tr></thead>"
    return f"<table>{head}<tbody>{''.join(lines)}</tbody></table>" if rows else ""


def _kind(schema: dict[str, Any]) -> str:
    """The type of a value in words, data types as links to their section."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}"><code>{name}</code></a>'
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return escape(schema.get("format") or schema.get("type", "any"))
