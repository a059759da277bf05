"""What an answer adds so that it can be replayed offline, on another day and another machine."""

from typing import Final, Literal

from pydantic import Field

from service.schemas.parts import Wire

RECORD: Final = "lipsim-audit-1"


class AuditedOptions(Wire):
    """What was asked, with every default filled in."""

    k: int
    max_distance: float | None
    require_exact: bool
    operating_point: str | None
    epsilon: float | None
    include_vector: bool
    include_metadata: bool


class Audit(Wire):
    """What, beside the answer, `python -m service.replay` holds its own work against."""

    record: Literal["lipsim-audit-1"]
    pixels_sha256: str = Field(
        description="SHA-256 of the decoded upright RGB pixels, H x W x 3 bytes, row by row, hex: "
        "what every radius of this answer is about."
    )
    decode_policy: str = Field(description="Version of the rules from bytes to pixels.")
    decoders: dict[str, str] = Field(description="Versions of the libraries that decoded.")
    index_seal: str = Field(description="SHA-256 that the index version's manifest is sealed with.")
    options: AuditedOptions
