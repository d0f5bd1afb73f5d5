"""What a file says about its own origin: reported beside the score, never mixed into it.

All of it can be forged or stripped, so nothing here is evidence of a photograph, and its absence means nothing.
Sources: EXIF 2.32; PNG text chunks as written by the generators named below; IPTC digital source types
(https://cv.iptc.org/newscodes/digitalsourcetype/); C2PA 2.2, section "Embedding manifests into assets".
"""

import json
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from PIL import Image

MAX_CHARACTERS = 500
_BLOCK = 1 << 20

# What the text shows of the tool that wrote it; `Comment` and `Description` alone are everybody's keywords.
_GENERATOR_TEXT = (
    (re.compile(r'"sui_image_params"'), "SwarmUI"),
    (re.compile(r'"class_type"'), "ComfyUI"),
    (re.compile(r"\bSteps: \d+, (Sampler|Size|Seed|CFG scale)"), "Stable Diffusion web UI or compatible"),
    (re.compile(r"\bJob ID: [0-9a-f-]{36}"), "Midjourney"),
)
# A PNG text keyword (or an EXIF text `<keyword>:{...`) that only image generators write -> their name.
_GENERATOR_KEYS = {
    "parameters": "Stable Diffusion web UI or compatible",
    "invokeai_metadata": "InvokeAI",
    "invokeai_graph": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "dream": "InvokeAI",
    "fooocus_scheme": "Fooocus",
    "prompt": "ComfyUI or compatible",
    "workflow": "ComfyUI or compatible",
}
_DIGITAL_SOURCE_TYPE = re.compile(r"digitalsourcetype/(\w{1,60})", re.IGNORECASE)
_XMP_FIELDS = {
    "software": re.compile(r"""xmp:CreatorTool(?:\s*=\s*["']|>)([^<"']*)"""),
    "credit": re.compile(r"""photoshop:Credit(?:\s*=\s*["']|>)([^<"']*)"""),
}
# The description box that opens every C2PA manifest store, whatever file it is embedded in: box type and UUID.
_MANIFEST_STORE = b"jumd" + bytes.fromhex("63327061 0011 0010 8000 00AA00389B71")


def find_provenance(image: "Image.Image", file: BinaryIO) -> dict[str, str]:
    """Origin claims in the metadata of an image, as short lines of text; an empty dict where there are none.

    image: opened by Pillow and loaded, because a PNG may carry text after its pixels.
    file:  the same file, seekable; its position is moved.

    Keys, each present only where found: generator (tool), generator_parameters (its prompt and settings), software,
    camera, digital_source_type (last part of the IPTC term), credit, content_credentials (C2PA).
    Values: at most MAX_CHARACTERS printable characters on one line, `<` and `>` replaced, so they are safe to print on
    a terminal and to put into HTML text. Never raises for hostile metadata: a part that cannot be read is left out.
    """
    found: dict[str, str] = {}
    texts, exif, xmp = (_attempt(read, image) or {} for read in (_texts, _exif_texts, _xmp_texts))
    for key, text in [*texts.items(), *exif.items()]:
        if generator := _generator(key, text):
            found.setdefault("generator", generator)
            found.setdefault("generator_parameters", text)
    if texts.get("Software", "").startswith("NovelAI"):
        found |= {"generator": "NovelAI", "generator_parameters": texts.get("Comment") or texts.get("Description", "")}
    found["software"] = exif.get("Software") or texts.get("Software") or xmp.get("software", "")
    camera = (exif.get(tag, "") for tag in ("Make", "Model"))
    # ComfyUI's WebP files keep workflow and prompt in these two tags.
    found["camera"] = " ".join(text for text in camera if not _generator("", text))
    found["credit"] = xmp.get("credit", "")
    found["digital_source_type"] = xmp.get("digital_source_type", "")
    found |= _attempt(_content_credentials, file, found["digital_source_type"]) or {}
    return {key: line for key, text in found.items() if (line := clean(text))}


def clean(text: str) -> str:
    """One line of at most MAX_CHARACTERS: no control, bidirectional or surrogate characters, no `<` or `>`."""
    text = text[: 4 * MAX_CHARACTERS].translate({ord("<"): "‹", ord(">"): "›"})
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_CHARACTERS else line[: MAX_CHARACTERS - 1] + "…"


def _attempt(read: Callable[..., dict[str, str]], *arguments: Any) -> dict[str, str] | None:
    try:
        return read(*arguments)
    except Exception:  # noqa: BLE001 - hostile metadata makes parsers raise anything; it must not cost us the image
        return None


def _texts(image: "Image.Image") -> dict[str, str]:
    """PNG text chunks and the comments of JPEG and GIF, by keyword."""
    texts = {key: value for key, value in image.info.items() if isinstance(key, str) and isinstance(value, str)}
    if isinstance(comment := image.info.get("comment"), bytes):
        texts["Comment"] = comment.decode("utf-8", "replace")
    return texts


def _exif_texts(image: "Image.Image") -> dict[str, str]:
    exif = image.getexif()
    tags = {"ImageDescription": 0x010E, "Make": 0x010F, "Model": 0x0110, "Software": 0x0131}
    values = {name: exif.get(tag) for name, tag in tags.items()} | {"UserComment": exif.get_ifd(0x8769).get(0x9286)}
    return {name: _exif_text(value) for name, value in values.items() if value}


def _exif_text(value: Any) -> str:
    """UserComment opens with eight bytes that name its encoding; UTF-16 comes in both byte orders in practice."""
    if not isinstance(value, bytes):
        return str(value).strip("\0 ")
    if value.startswith(b"UNICODE\0"):
        utf16 = value[8:]
        return utf16.decode("utf-16-le" if utf16[1::2].count(0) > utf16[::2].count(0) else "utf-16-be", "replace")
    return value.removeprefix(b"ASCII\0\0\0").removeprefix(bytes(8)).decode("utf-8", "replace").strip("\0 ")


def _xmp_texts(image: "Image.Image") -> dict[str, str]:
    raw = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    xmp = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    found = {key: match[1] for key, pattern in _XMP_FIELDS.items() if (match := pattern.search(xmp))}
    return found | {"digital_source_type": _join(match[1] for match in _DIGITAL_SOURCE_TYPE.finditer(xmp))}


def _generator(key: str, text: str) -> str | None:
    """Name of the tool that writes such a text, or None where an ordinary program could have written it."""
    if tool := next((tool for pattern, tool in _GENERATOR_TEXT if pattern.search(text[:100_000])), None):
        return tool
    prefix, _, rest = text[:20].partition(":")
    return _GENERATOR_KEYS.get((prefix if rest.lstrip().startswith("{") else key).lower())


def _join(parts: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(part for part in parts if part))


def _content_credentials(file: BinaryIO, source_type: str) -> dict[str, str]:
    if not _has_manifest_store(file):
        return {}
    if find_spec("c2pa") is None:
        return {"content_credentials": 'present, not verified (to read them: pip install "apn[c2pa]")'}
    try:
        return _read_manifest(file, source_type)
    except Exception as error:  # noqa: BLE001 - c2pa parses hostile bytes; that credentials are there is still worth saying
        if "ManifestNotFound" in type(error).__name__:  # the bytes are there, but not attached to this image
            return {}
        return {"content_credentials": f"present, not readable ({type(error).__name__}: {error})"}


def _has_manifest_store(file: BinaryIO) -> bool:
    file.seek(0)
    tail = b""
    while block := file.read(_BLOCK):
        if _MANIFEST_STORE in tail + block:
            return True
        tail = block[-len(_MANIFEST_STORE) :]
    return False


def _read_manifest(file: BinaryIO, source_type: str) -> dict[str, str]:
    import c2pa

    # Judging a picture must not open connections: what is not embedded in the file is not read.
    context = c2pa.Context.from_dict({"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}})
    file.seek(0)
    with context, c2pa.Reader("", file, context=context) as reader:
        store = json.loads(reader.json())
    manifest = store["manifests"][store["active_manifest"]]
    actions = [
        action
        for assertion in manifest.get("assertions", ())
        if assertion.get("label", "").startswith("c2pa.actions")
        for action in assertion.get("data", {}).get("actions", ())
    ]
    types = (str(action.get("digitalSourceType", "")).rpartition("/")[2] for action in actions)
    makers = [str(info.get("name", "")) for info in manifest.get("claim_generator_info") or ()]
    summary = {
        "made by": _join(iter(makers)) or str(manifest.get("claim_generator", "")),
        "actions": _join(str(action.get("action", "")).removeprefix("c2pa.") for action in actions),
        "signed by": str(manifest.get("signature_info", {}).get("issuer") or ""),
        "signature": _validation(store),
    }
    return {
        "content_credentials": "; ".join(f"{key} {value}" for key, value in summary.items() if value),
        "digital_source_type": _join(iter([*source_type.split(", "), *types])),
    }


def _validation(store: dict[str, Any]) -> str:
    """`Valid` says that file and signature match; only `Trusted` says that the signer is on a trust list."""
    codes = _join(str(status.get("code", "")) for status in store.get("validation_status") or ())
    state = str(store.get("validation_state", "unknown")).lower()
    return f"{state} ({codes})" if codes else state
