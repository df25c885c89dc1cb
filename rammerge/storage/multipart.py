"""Large uploads to a bucket, in parts: what a killed attempt has sent is not sent again."""

import base64
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from rammerge.storage.faults import code_of
from rammerge.storage.trouble import PlaceError

# Bytes of a part. Four are in memory at a time.
PART = 32 << 20
_TOGETHER = 4
# S3 takes 10,000 parts of one object.
_MOST = 9_000


def upload(client: Any, named: Mapping[str, str], file: Path) -> None:
    """Make the object of bucket and key `named` of a file, going on with an unfinished upload if there is one."""
    size = file.stat().st_size
    part = max(PART, -(-size // _MOST))
    for _ in range(2):
        begun = _unfinished(client, named) or client.create_multipart_upload(**named)["UploadId"]
        try:
            sent = _sent(client, named, begun)
            send = partial(_send, client, {**named, "UploadId": begun}, file, part, sent)
            with ThreadPoolExecutor(_TOGETHER) as pool:
                parts = list(pool.map(send, range(1, -(-size // part) + 1)))
            client.complete_multipart_upload(**named, UploadId=begun, MultipartUpload={"Parts": parts})
            return
        except ClientError as error:
            if code_of(error) not in ("NoSuchUpload", "404", "InvalidPart"):
                raise
            if _is_there(client, named, size):  # somebody else has finished the upload
                return
    raise PlaceError(f"the upload of {named['Key']} was ended twice by others; run again")


def _unfinished(client: Any, named: Mapping[str, str]) -> str | None:
    found = client.list_multipart_uploads(Bucket=named["Bucket"], Prefix=named["Key"]).get("Uploads", ())
    own = [each for each in found if each["Key"] == named["Key"]]
    return str(max(own, key=lambda each: each["Initiated"])["UploadId"]) if own else None


def _sent(client: Any, named: Mapping[str, str], upload_id: str) -> dict[int, str]:
    """Return the MD5 of the parts that the store has, by number."""
    pages = client.get_paginator("list_parts").paginate(**named, UploadId=upload_id)
    return {each["PartNumber"]: each["ETag"].strip('"') for page in pages for each in page.get("Parts", ())}


def _send(
    client: Any, named: Mapping[str, str], file: Path, part: int, sent: Mapping[int, str], number: int
) -> dict[str, Any]:
    with file.open("rb") as source:
        source.seek((number - 1) * part)
        content = source.read(part)
    digest = hashlib.md5(content, usedforsecurity=False)
    etag = sent.get(number)
    if etag != digest.hexdigest():
        md5 = base64.b64encode(digest.digest()).decode()
        etag = client.upload_part(**named, PartNumber=number, Body=content, ContentMD5=md5)["ETag"]
    return {"PartNumber": number, "ETag": etag}


def _is_there(client: Any, named: Mapping[str, str], size: int) -> bool:
    try:
        return int(client.head_object(**named)["ContentLength"]) == size
    except ClientError:
        return False
