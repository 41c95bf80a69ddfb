"""Secrets as they are kept: sealed by AES-256-GCM with a key that is not in the database.

A sealed text reads ``v1.<key>.<bytes>``: which key sealed it, then nonce, ciphertext and tag in
base64. It is bound to what it is of ("tool billing/search"): moved to another row it does not open.
The key is ``CARREL_SECRETS_KEY``, which controllers over one database share, or else made once in a
file of the home, 0600. Several by commas: the first seals and any opens, so that a key is changed
by putting a new one first. Whoever has the database, or a backup of it, and no key has no secrets.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from controller.settings import Settings
from workspace.errors import InvalidRequest, TooLarge, Unavailable
from workspace.folders import private_file

MAX_SECRET_BYTES = 64 << 10
_NONCE_BYTES = 12  # random ones: a key is good for 2^32 secrets (NIST SP 800-38D)
_SEALED = re.compile(r"v1\.([0-9a-f]{8})\.([A-Za-z0-9_=-]{1,100000})")


class Sealer:
    """Seals with the first of its keys, and opens with any. Without one it seals nothing."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = {_name(key): AESGCM(_derived(key)) for key in keys}  # in their order

    def seal(self, secret: str, *, of: str) -> str:
        """``secret``, which only :meth:`open` with the same ``of`` gives back.

        Raises:
            TooLarge: it is longer than any secret.
            InvalidRequest: there is no key that every controller has.
        """
        plain = secret.encode("utf-8", "surrogatepass")
        if len(plain) > MAX_SECRET_BYTES:
            raise TooLarge(f"A secret has at most {MAX_SECRET_BYTES} bytes.")
        if not self._keys:
            raise InvalidRequest(
                "This controller shares its database with others and has no key for secrets.",
                hint="Give all of them the same CARREL_SECRETS_KEY.",
            )
        name, key = next(iter(self._keys.items()))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + key.encrypt(nonce, plain, of.encode())
        return f"v1.{name}.{urlsafe_b64encode(sealed).decode()}"

    def open(self, sealed: str, *, of: str) -> str:
        """What was sealed.

        Raises:
            Unavailable: it was sealed with a key that is not here, or is not what was sealed.
        """
        match = _SEALED.fullmatch(sealed)
        key = self._keys.get(match[1]) if match else None
        if match is None or key is None:
            raise Unavailable(
                f"The secret of {of} was sealed with a key that this controller does not have.",
                hint="Give it the CARREL_SECRETS_KEY of then (several by commas), or the secret "
                "anew.",
            )
        try:
            data = urlsafe_b64decode(match[2])
            plain = key.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], of.encode())
        except (InvalidTag, ValueError) as error:
            raise Unavailable(
                f"The secret of {of} is not what was sealed.", hint="Give the secret anew."
            ) from error
        return plain.decode("utf-8", "surrogatepass")


def by_settings(settings: Settings) -> Sealer:
    """The sealer of a controller. One of several has no key of its own: others could not open that.

    Raises:
        Unavailable: the file of its key cannot be read or made.
    """
    given = settings.secrets_key.get_secret_value() if settings.secrets_key else ""
    keys = [key.strip() for key in given.split(",") if key.strip()]
    if not keys and not settings.is_one_of_several:
        keys = [private_file(settings.secrets_key_file)]
    return Sealer(keys)


def _derived(key: str) -> bytes:
    """A key of the right length, of whatever was given: RFC 5869."""
    return HKDF(SHA256(), length=32, salt=None, info=b"carrel secrets").derive(key.encode())


def _name(key: str) -> str:
    """What a key is called in what it sealed; it tells nothing of the key."""
    return hashlib.sha256(b"carrel secrets key" + _derived(key)).hexdigest()[:8]
