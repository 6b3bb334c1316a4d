"""The cache's contents as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from topwork.storage.cache import CacheInfo

if TYPE_CHECKING:
    pass


def cache_text(info: CacheInfo) -> str:
    """The cache's location, and a line for each feature store."""
    lines = [f"{info.root}: {size_text(info.total_bytes)}"]
    for store in info.stores:
        rows = "?" if store.rows is None else f"{store.rows:,}"
        about = store.about or "unknown backbone"
        lines.append(
            f"  {store.fingerprint[:12]}  {rows} images  {size_text(store.size_bytes)}  {about}  "
            f"used {store.used:%Y-%m-%d %H:%M} UTC"
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


def size_text(n_bytes: int) -> str:
    """1_500_000 → '1.5 MB'."""
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
