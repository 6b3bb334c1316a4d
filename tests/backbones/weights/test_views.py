"""Views of networks that were built, or exported, for one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from exact import in_f32
from topwork.backbones.backbone import load_backbone
from topwork.graphs.features import VIEWS_APART, average_views, single_view, with_output
from weight_files import drawn, small_transformers, write_repository

CASES = small_transformers()
NAMES = ("vit", "dinov2_registers", "dinov3", "siglip", "clip", "swin", "timm_eva02_tiny_patch14_224")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("views", ["flip", "dihedral"])
def test_a_transformers_views_are_averaged(name: str, views: str, tmp_path: Path) -> None:
    case = CASES[name]
    write_repository(tmp_path, case["config"], drawn(case))
    size = case["sizes"][0]
    one = load_backbone(str(tmp_path), size_px=size, precision="f32")
    all_of_them = load_backbone(str(tmp_path), size_px=size, precision="f32", views=views)  # type: ignore[arg-type]
    picture = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    seen = [picture, picture[:, :, ::-1]]
    if views == "dihedral":
        seen += [p[:, ::-1] for p in seen]
        seen += [p.transpose(0, 2, 1, 3) for p in seen]
    alone = in_f32(one.graph)
    expected = np.mean([alone({0: np.ascontiguousarray(p)})[0] for p in seen], axis=0)
    made = in_f32(all_of_them.graph)({0: picture})[0]
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_a_graph_of_one_picture_alone_is_copied_for_each_view() -> None:
    from openvino import opset13 as op

    image = op.parameter([1, 8, 8, 3], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    row = op.reshape(op.convert(image, "f32"), op.constant(np.array([1, 192])), False)
    weight = np.random.default_rng(1).standard_normal((5, 192)).astype(np.float32)
    token = op.constant(np.array([[1.0, 2.0]], np.float32))  # of one picture, no more
    joined = op.concat([token, op.matmul(row, op.constant(weight), False, True)], 1)
    graph = with_output(ov.Model([joined], [image]), "features")
    both = average_views(graph, "flip")
    assert VIEWS_APART in {node.get_friendly_name() for node in both.get_ordered_ops()}
    picture = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    flipped = np.ascontiguousarray(picture[:, :, ::-1])
    expected = (in_f32(graph)({0: picture})[0] + in_f32(graph)({0: flipped})[0]) / 2
    np.testing.assert_allclose(in_f32(both)({0: picture})[0], expected, rtol=1e-5)
    alone = single_view(both)
    assert len(alone.get_ordered_ops()) == len(graph.get_ordered_ops())
    np.testing.assert_array_equal(in_f32(alone)({0: picture})[0], in_f32(graph)({0: picture})[0])
