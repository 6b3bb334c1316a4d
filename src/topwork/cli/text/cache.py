"""The cache's contents as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from topwork.storage.cache import CacheInfo, size_text


def cache_text(info: CacheInfo) -> str:
    """The cache's location, and a line for each feature store."""
    lines = [f"{info.root}: {size_text(info.total_bytes)}"]
    for store in info.stores:
        rows = "?" if store.rows is None else f"{store.rows:,}"
        about = store.about or "unknown backbone"
        lines.append(
            f"  {store.fingerprint[:12]}  {rows} images  {size_text(store.size_bytes)}  {about}  "
            f"used {store.used:%Y-%m-%d %H:%M} UTC"
            + (", of an earlier version: only its runs use it" if store.earlier else "")
        )
    lines += [f"  {path.name}: damaged, set aside" for path in info.set_aside]
    return "\n".join(lines)


def cache_json(info: CacheInfo) -> str:
    """The same as JSON."""
    stores = [
        {**asdict(store), "path": str(store.path), "used": store.used.isoformat()} for store in info.stores
    ]
    return json.dumps(
        {
            "root": str(info.root),
            "total_bytes": info.total_bytes,
            "stores": stores,
            "set_aside": [str(path) for path in info.set_aside],
        }
    )
