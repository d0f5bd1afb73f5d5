"""The limits and the doors of the server: one frozen record, unknown keys refused."""

import re
from ipaddress import ip_address

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

MEGABYTE = 2**20


class ServerSettings(BaseModel):
    """Everything `apn serve` can be told. Sizes in bytes, times in seconds, pictures in pixels.

    Raises ValueError (pydantic's ValidationError is one) for an unknown key, for limits that contradict each other,
    and for an address beyond this machine without `token` or `insecure`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)  # the input holds the token

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port; 0 lets the system choose.")
    token: SecretStr | None = Field(
        default=None, description="Bearer token asked for by /v1/* and /metrics; None asks none."
    )
    insecure: bool = Field(default=False, description="Allow an address beyond this machine without a token.")
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Names accepted in the Host header. Empty: the loopback names on a loopback address, else any.",
    )
    max_upload_bytes: int = Field(default=32 * MEGABYTE, ge=1, description="Bytes of one file; more is answered 413.")
    max_request_bytes: int = Field(
        default=128 * MEGABYTE, ge=1, description="Bytes of one request; more is answered 413."
    )
    max_held_bytes: int = Field(
        default=512 * MEGABYTE, ge=1, description="Bytes of uploads held in memory by all requests together; more: 503."
    )
    max_files: int = Field(default=16, ge=1, description="Files of one request; more is answered 413.")
    max_pixels: int = Field(
        default=64_000_000, ge=1, description="Pixels of one image (width x height); more is an error row."
    )
    decode_workers: int = Field(default=2, ge=1, description="Images decoded at the same time.")
    queue_images: int = Field(default=64, ge=1, description="Images waiting for the detector; more is answered 503.")
    batch_images: int = Field(
        default=4,
        ge=1,
        description="Images handed to the detector at once. Their pixels take batch_images x max_pixels x 3 bytes, "
        "and decode_workers x max_pixels x 17 more while the last of them are decoded.",
    )
    batch_wait_s: float = Field(
        default=0.005, ge=0, le=60, description="Seconds an image waits for others to share its batch."
    )
    timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=24 * 3600,
        description="Seconds to receive a request (then 408), and again to answer it (then 503).",
    )
    retry_after_s: int = Field(
        default=2, ge=1, description="Seconds told to a client that is answered 503 (Retry-After)."
    )
    explain_queue: int = Field(
        default=4, ge=1, description="Explanations that wait or are being made; more is answered 503."
    )
    explain_cache_bytes: int = Field(
        default=64 * MEGABYTE, ge=0, description="Bytes of explanations kept in memory, the least used go first."
    )
    log_file_names: bool = Field(default=False, description="Write the names of uploaded files into the log.")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server. A name other than localhost counts as reachable."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _list_of_names(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(
                f"expected a list of names, found the text {value!r}; --set takes a TOML list: "
                f"--set 'allowed_hosts=[\"{value}\"]'"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "ServerSettings":
        if self.token is not None and not re.fullmatch(r"[!-~]+", self.token.get_secret_value()):
            raise ValueError("token: expected one or more printable ASCII characters without spaces, found others")
        if not (self.loopback or self.insecure or self.token):
            raise ValueError(
                f"host {self.host!r} is reachable from other machines: expected a token, found none; "
                "set one, or pass --insecure to let everybody in"
            )
        if self.max_request_bytes < self.max_upload_bytes:
            raise ValueError(
                f"max_request_bytes {self.max_request_bytes} is below max_upload_bytes {self.max_upload_bytes}: "
                "one file of the allowed size would not fit"
            )
        if self.max_held_bytes < self.max_request_bytes:
            raise ValueError(
                f"max_held_bytes {self.max_held_bytes} is below max_request_bytes {self.max_request_bytes}"
            )
        if self.queue_images < self.max_files:
            raise ValueError(
                f"queue_images {self.queue_images} is below max_files {self.max_files}: a full request would never fit"
            )
        return self
