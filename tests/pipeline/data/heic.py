"""A small HEIC photo, 64 x 48: green on the left; on the right red above blue. Written with libheif's encoder."""

import base64

_PHOTO = """
AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAA
AAAERAAAEAAQAAAAABoQABAAAAAAAAANAAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAA
AADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkA
AAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAA
AAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAN
htZGF0AAAAzCgBrwngITke2QyH//7Zx//xStvX/lx5d3pzf9J+jHrAbgwie/bGwd/7a4p8eWVaNKebY2Rfh40NJUOMuUvinSdV2Huxl0U5jQQd
sY68qt8Jj5wQ5AVNj/nPO2Ct+M0XZzMu8OwD/oaQCQOQdoa1vQqpd/fHjsFsy1gba9kv6tCfdprgZGX35QZ2RLl3vMUJCtOyD+9kgrjrIt63+3
nmd+GYRxryzMjTEw/6GkAkDkHaGtb0KPQUXXzj7nvvYFOPVNrNYITlp0+53BrshQ==
"""
_CROP_BYTES = 40
"""Length of the box that crops 64 x 64 pixels, in which the encoder works, to 64 x 48."""


def heic(*, turned: bool = False) -> bytes:
    """The photo; or all 64 x 64 pixels of it, to be turned a quarter to the left, as a phone stores it."""
    photo = base64.b64decode(_PHOTO)
    if not turned:
        return photo
    crop = photo.index(b"clap") - 4
    turn = b"\0\0\0\x09irot\x01"
    rest = (_CROP_BYTES - len(turn)).to_bytes(4, "big") + b"free"
    return photo[:crop] + turn + rest.ljust(_CROP_BYTES - len(turn), b"\0") + photo[crop + _CROP_BYTES :]
