"""Files of tensors and plain values that are written atomically, carry their own checksum and hold no code.

A file is what ``torch.save`` writes, with the SHA-256 of all of it in the zip archive's comment, so that it can
be verified wherever it is copied and is still read by a plain ``torch.load(path, weights_only=True)``. It is
written under a temporary name, synced and renamed: at any moment a name points to a whole file or to none.
"""

import hashlib
import os
import struct
from pathlib import Path
from typing import Any

import torch

from dima_isaac.errors import CheckpointError
from dima_isaac.run.atomic import replacing

_END = b"PK\x05\x06"  # zip: end of central directory, 22 bytes with the length of the comment at 20
_MARK = b"dima-isaac sha256:"
_COMMENT = len(_MARK) + 64
_CHUNK = 1 << 22

State = dict[str, Any]


class UnreadableError(CheckpointError):
    """The system does not let a file be read now; what it holds may be intact."""


def save(path: Path, payload: State) -> str:
    """Write ``payload`` (tensors and plain values, nested) to ``path`` and return its SHA-256.

    Raises:
        OSError: no space, no permission; ``path`` is what it was before.
    """
    with replacing(path) as temporary:
        temporary.touch()  # torch's own error has no reason that could be shown
        try:
            torch.save(payload, temporary)
        except RuntimeError as error:  # torch reports a full disk as a failed assertion of its zip writer
            raise OSError(f"{path.name} could not be written completely; is the disk full?") from error
        digest = _seal(temporary)
    return digest


def load(path: Path, digest: str | None = None) -> State:
    """Verify ``path`` and read it, onto the CPU; ``digest`` is what it must be, where that is known.

    Raises:
        CheckpointError: missing, truncated, altered, or holding anything but tensors and plain values.
        UnreadableError: as ``verify``.
    """
    found = verify(path)
    if digest is not None and found != digest:
        raise CheckpointError(f"{path} is intact but not the file that its checkpoint was saved with.")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read safely: {str(error).splitlines()[0]}") from error
    if not isinstance(payload, dict):
        raise CheckpointError(f"{path} holds a {type(payload).__name__}, not a checkpoint.")
    return payload


def verify(path: Path) -> str:
    """The SHA-256 that ``path`` carries, after checking it against the content.

    Raises:
        CheckpointError: missing, truncated, altered or not one of our files.
        UnreadableError: no permission, or the disk does not answer.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest, left = hashlib.sha256(), size - 64
            while left > 0:
                chunk = file.read(min(_CHUNK, left))
                if not chunk:
                    break
                digest.update(chunk)
                left -= len(chunk)
            file.seek(max(0, size - _COMMENT))
            comment = file.read()
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}.") from None
    except OSError as error:
        raise UnreadableError(f"cannot read {path}: {error.strerror}.") from error
    if not comment.startswith(_MARK) or comment[len(_MARK) :] != digest.hexdigest().encode():
        raise CheckpointError(f"{path} is truncated, altered or not a checkpoint of this program.")
    return digest.hexdigest()


def _seal(path: Path) -> str:
    """Give the archive a comment with its own digest (of every byte but the digest itself)."""
    with path.open("r+b") as file:
        file.seek(-22, os.SEEK_END)
        if file.read(4) != _END:
            raise OSError(f"{path.name} was not written completely")
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack("<H", _COMMENT) + _MARK)
        file.seek(0)
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        file.write(digest.hexdigest().encode())
    return digest.hexdigest()
