"""Each claim of origin that tools write, written here and read back; hostile text stays harmless."""

import io
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from apn.image import load_image
from apn.provenance import _MANIFEST_STORE, MAX_CHARACTERS, clean, find_provenance

PARAMETERS = "a cat, <lora:fur:0.8>\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
COMFY = json.dumps({"3": {"class_type": "KSampler", "inputs": {"seed": 1}}})
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def encode(format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (10, 200, 30)).save(buffer, format, **options)
    return buffer.getvalue()


def found(format: str = "PNG", **options: Any) -> dict[str, str]:
    return load_image(encode(format, **options)).metadata


def text(**chunks: str) -> PngInfo:
    info = PngInfo()
    for key, value in chunks.items():
        info.add_text(key.replace("__", "-"), value)
    return info


def exif(comment: bytes | None = None, **tags: str) -> bytes:
    names = {"description": 0x010E, "make": 0x010F, "model": 0x0110, "software": 0x0131}
    block = Image.Exif()
    for name, value in tags.items():
        block[names[name]] = value
    if comment is not None:
        block.get_ifd(0x8769)[0x9286] = comment
    return block.tobytes()


def test_a_file_that_claims_nothing_gives_nothing() -> None:
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"):
        assert found(format) == {}
    assert found("JPEG", comment=b"my holiday") == {}


@pytest.mark.parametrize(
    ("chunks", "generator"),
    [
        ({"parameters": PARAMETERS}, "Stable Diffusion web UI or compatible"),
        ({"parameters": json.dumps({"sui_image_params": {"prompt": "a cat"}})}, "SwarmUI"),
        ({"prompt": COMFY, "workflow": "{}"}, "ComfyUI"),
        ({"invokeai_metadata": '{"positive_prompt": "a cat"}'}, "InvokeAI"),
        ({"sd__metadata": '{"model": "sd"}'}, "InvokeAI"),
        ({"Description": "a cat --v 6 Job ID: 01234567-89ab-cdef-0123-456789abcdef"}, "Midjourney"),
    ],
)
def test_text_chunks_of_generators(chunks: dict[str, str], generator: str) -> None:
    metadata = found(pnginfo=text(**chunks))
    assert metadata == {"generator": generator, "generator_parameters": clean(next(iter(chunks.values())))}


def test_novelai_is_named_by_its_software() -> None:
    metadata = found(pnginfo=text(Software="NovelAI", Comment='{"steps": 28}', Description="a cat"))
    assert metadata == {"generator": "NovelAI", "generator_parameters": '{"steps": 28}', "software": "NovelAI"}


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "PNG", "AVIF"])
@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "ascii"])
def test_generator_parameters_in_exif(format: str, encoding: str) -> None:
    prefix = b"ASCII\0\0\0" if encoding == "ascii" else b"UNICODE\0"
    metadata = found(format, exif=exif(prefix + PARAMETERS.encode(encoding)))
    assert metadata["generator"] == "Stable Diffusion web UI or compatible"
    assert metadata["generator_parameters"].startswith("a cat, ‹lora:fur:0.8› Negative prompt: dog Steps: 20")


def test_comfyui_in_the_camera_tags_is_no_camera() -> None:
    metadata = found("WEBP", exif=exif(make='workflow:{"nodes": []}', model="prompt:" + COMFY))
    assert metadata["generator"].startswith("ComfyUI")
    assert "camera" not in metadata


def test_camera_and_software() -> None:
    metadata = found("JPEG", exif=exif(b"ASCII\0\0\0        ", make="Canon", model="EOS R5", software="Firmware 1.8"))
    assert metadata == {"software": "Firmware 1.8", "camera": "Canon EOS R5"}


@pytest.mark.parametrize("term", ["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "digitalCapture"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_digital_source_type_in_xmp(term: str, format: str) -> None:
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmp:CreatorTool="Painter 3" '
        f'photoshop:Credit="Made with AI" Iptc4xmpExt:DigitalSourceType="{IPTC}{term}"/></x:xmpmeta>'
    ).encode()
    if format == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        metadata = found(pnginfo=info)
    elif format == "TIFF":
        metadata = found(format, tiffinfo={700: xmp})
    else:
        metadata = found(format, xmp=xmp)
    assert metadata == {"software": "Painter 3", "credit": "Made with AI", "digital_source_type": term}


# -------------------------------------------------------------------------------------------------- Content Credentials


def signed(format: str = "PNG") -> bytes:
    """An image with a C2PA manifest, signed by a certificate made on the spot."""
    c2pa = pytest.importorskip("c2pa")
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pem, now = serialization.Encoding.PEM, datetime.now(UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("Test CA", "Test Signer")}

    def certificate(name: str) -> bytes:
        ca, issuer_key = name == "Test CA", keys["Test CA"]
        subject, issuer = (
            x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, each)]) for each in (name, "Test CA")
        )
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
        usage |= dict.fromkeys(("encipher_only", "decipher_only"), False)
        builder = x509.CertificateBuilder(issuer, subject, keys[name].public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        for extension, critical in (
            (x509.BasicConstraints(ca, None), True),
            (x509.SubjectKeyIdentifier.from_public_key(keys[name].public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False),
            (x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), True),
            (x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False),
        ):
            builder = builder.add_extension(extension, critical)
        return builder.sign(issuer_key, hashes.SHA256()).public_bytes(pem)

    key = keys["Test Signer"].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = certificate("Test Signer") + certificate("Test CA")
    created = {"action": "c2pa.created", "digitalSourceType": IPTC + "trainedAlgorithmicMedia"}
    manifest = {
        "claim_generator_info": [{"name": "Test Painter", "version": "1"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [created]}}],
    }
    output = io.BytesIO()
    with (
        c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", chain, key, None)) as signer,
        c2pa.Builder(manifest) as maker,
    ):
        maker.sign(signer, f"image/{format.lower()}", io.BytesIO(encode(format)), output)
    return output.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF"])
def test_content_credentials_are_summed_up(format: str) -> None:
    metadata = load_image(signed(format)).metadata
    assert metadata["digital_source_type"] == "trainedAlgorithmicMedia"
    assert metadata["content_credentials"] == (
        "made by Test Painter; actions created; signed by Test Signer; signature valid (signingCredential.untrusted)"
    )


def test_pixels_changed_after_signing_make_the_signature_invalid() -> None:
    data = bytearray(signed())
    data[data.rindex(b"IEND") + 7 :] = data[data.rindex(b"IEND") + 7 :] + b"more"
    assert "signature invalid (" in load_image(bytes(data)).metadata["content_credentials"]


def test_without_the_package_presence_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    data = signed()
    monkeypatch.setitem(sys.modules, "c2pa", None)
    credentials = load_image(data).metadata["content_credentials"]
    assert credentials == 'present, not verified (to read them: pip install "apn[c2pa]")'


def test_presence_is_found_across_the_blocks_in_which_the_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    image = Image.new("RGB", (1, 1))
    for padding in ((1 << 20) - 10, 1 << 20, 5):
        file = io.BytesIO(bytes(padding) + _MANIFEST_STORE)
        assert "content_credentials" in find_provenance(image, file)
        assert "content_credentials" not in find_provenance(image, io.BytesIO(file.getvalue()[:-1]))


# ------------------------------------------------------------------------------------------------------- hostile text


def test_values_are_harmless_on_a_terminal_and_in_html() -> None:
    hostile = "Steps: 1, Seed: 2 \x1b[31mred\x1b]0;title\x07 <script>alert(1)</script> "
    hostile += "\u202egpj.exe\u2066 \x9b \0 \n\r\t é 写"
    metadata = found(pnginfo=text(parameters=hostile))
    value = metadata["generator_parameters"]
    assert value == "Steps: 1, Seed: 2 [31mred ]0;title ‹script›alert(1)‹/script› gpj.exe é 写"


def test_values_are_capped() -> None:
    value = found(pnginfo=text(parameters="x" * 100_000))["generator_parameters"]
    assert value == "x" * (MAX_CHARACTERS - 1) + "…"


@given(st.text(max_size=3000))
def test_cleaned_text_is_one_short_printable_line(any_text: str) -> None:
    line = clean(any_text)
    assert len(line) <= MAX_CHARACTERS
    assert line.isprintable()
    assert line == line.strip() == clean(line)
    assert not set("<>") & set(line)


@settings(max_examples=200, deadline=None)
@given(
    comment=st.binary(max_size=200),
    xmp=st.binary(max_size=200),
    block=st.binary(max_size=300),
    info=st.dictionaries(st.text(max_size=10), st.one_of(st.binary(max_size=20), st.integers(), st.text(max_size=20))),
)
def test_hostile_metadata_never_raises(comment: bytes, xmp: bytes, block: bytes, info: dict[str, Any]) -> None:
    image = Image.new("RGB", (1, 1))
    image.info = info | {"comment": comment, "xmp": xmp, "exif": b"Exif\0\0II*\0\x08\0\0\0" + block}
    metadata = find_provenance(image, io.BytesIO(_MANIFEST_STORE + block))
    assert all(value and value.isprintable() for value in metadata.values())
