"""The rows that `table` measured, as `docs/networks.md`.

python -m benchmarks.parity.networks.page ROWS.jsonl [EXPORTS.jsonl]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.options import ROOT
from benchmarks.parity.networks.table import FEATURES, FORMATS, PIXELS
from topwork.backbones.weights.configs import FAMILIES, timm_facts

PAGE = ROOT / "docs" / "networks.md"
# Why a cell is red where the network's file itself is wrong.
REASONS = {
    "hf-swin@legacy": "the exporter wrote another network: ONNX Runtime is as far off",
    "hf-dinov3@legacy": "a branch in its graph leaves sizes open; the exporter wrote another network besides: ONNX "
    "Runtime is 5e-2 off",
    "timm-vit_tiny_r_s16_p8_224": "a hybrid with a ResNet stem is not built",
}
HEAD = """# Networks from Transformers and timm

Measured with random weights, made by the libraries themselves (Transformers 5.24, timm 1.0.31, torch 2.13.0): for
each network its repository as it lies on the hub, the pixels that the library makes of four pictures, and its
features.
`@legacy` and `@dynamo` are ONNX files by torch's two exporters, all axes free and every output kept.

- Pixels: largest difference over their range (allowed {pixels:.0e}).
- Features: largest difference over the largest feature, f32 (allowed {features:.0e}).
- Tuned: the Keras layer of the whole network against OpenVINO (allowed {features:.0e}); it can be cut.
- Exports: openvino, onnx, savedmodel, litert and keras of a run of 24 drawn pictures, each compared with the run; –
  where not measured.

    benchmarks/.venv-networks/bin/python -m benchmarks.parity.networks.stand_ins FOLDER [NAME[@legacy|@dynamo] …]
    python -m benchmarks.parity.networks.table FOLDER --tune --out rows.jsonl
    python -m benchmarks.parity.networks.table FOLDER --only … --exports {formats} --out exports.jsonl
    python -m benchmarks.parity.networks.page rows.jsonl exports.jsonl

**{green} of {all} rows are green** (seed 0, one run, two cores with AVX2).

| network | file | pixels | features | tuned | exports | remark |
|---|---|---|---|---|---|---|
"""
TAIL = """
## What is built from weights

Transformers, by `model_type`: {families}.

timm, {count} architectures by name:
{timm}

Everything else: take its ONNX file, if there is one, or export it to ONNX.
"""


def main() -> None:
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    exports: dict[str, dict[str, Any]] = {}
    for path in sys.argv[2:]:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            told = json.loads(line)
            exports[told["name"]] = told
    lines, green = [], 0
    for row in rows:
        cells, good = cells_of(row, exports.get(row["name"]))
        green += good
        lines.append("| " + " | ".join(cells) + " |")
    head = HEAD.format(
        pixels=PIXELS, features=FEATURES, formats=" ".join(FORMATS), green=green, all=len(rows)
    )
    by_family: dict[str, list[str]] = {}
    for name, (family, _) in timm_facts().items():
        by_family.setdefault(family, []).append(name)
    told = "\n".join(
        f"- {family} ({len(names)}): {', '.join(sorted(names))}" for family, names in by_family.items()
    )
    tail = TAIL.format(families=", ".join(FAMILIES), count=len(timm_facts()), timm=told)
    PAGE.write_text(head + "\n".join(lines) + "\n" + tail, encoding="utf-8")
    print(f"{green} of {len(rows)} green")


def cells_of(row: dict[str, Any], exported: dict[str, Any] | None) -> tuple[list[str], bool]:
    remark = REASONS.get(row["name"], "")
    if row["read"]:
        return [row["name"], "", "not read", "", "", "", remark or row["read"][:150]], False
    cells, good = [row["name"], row["format"]], True
    for name, allowed in (("pixels", PIXELS), ("features", FEATURES), ("tune", FEATURES)):
        value = row.get(name, "–")
        sound = isinstance(value, float) and value <= allowed
        good = good and (sound or value == "–")
        cells.append(f"{value:.0e}" if isinstance(value, float) else str(value)[:80])
        if not sound and value != "–":
            cells[-1] = f"**{cells[-1]}**"
    failed = [kind for kind in FORMATS if exported and exported.get(kind)]
    cells.append("–" if exported is None else f"{len(FORMATS) - len(failed)} of {len(FORMATS)}")
    if exported and failed:
        remark = f"{remark} {failed[0]}: {exported[failed[0]][:120]}".strip()
    return [*cells, remark], good and not failed


if __name__ == "__main__":
    main()
