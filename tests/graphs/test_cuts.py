"""Cutting a network in two: nothing is lost, wherever the cut."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from exact import in_f32
from topwork.backbones.backbone import Backbone, load_backbone, retuned
from topwork.errors import InputError, TopworkError
from topwork.graphs import features as graphs
from topwork.graphs.cuts import Cut, cut_named, depths, find_cuts, join, only_last, split_at
from topwork.graphs.features import Block


def run(graph: ov.Model, x: Any) -> Any:
    return in_f32(graph)(x)


def picture(side: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (1, side, side, 3)).astype(np.uint8)


def test_prefix_and_tail_are_the_whole_at_every_cut(backbone: Backbone) -> None:
    image = picture(backbone.facts.size_px)
    wanted = run(backbone.graph, image)[0]
    cuts = find_cuts(backbone.graph, backbone.facts.blocks)
    assert [cut.name for cut in cuts] == ["95%", *(f"block{i}" for i in range(1, 17))]
    for cut in cuts[::3]:
        prefix, tail = split_at(backbone.graph, cut)
        given = run(prefix, image)
        assert given["activation"].shape == (1, *cut.shape)
        late = run(tail, given["activation"])[0]
        early = given["early"] if cut.early else np.zeros((1, 0), np.float32)
        assert early.shape == (1, cut.early)
        np.testing.assert_allclose(np.concatenate([early, late], axis=1), wanted, rtol=1e-6)
        np.testing.assert_allclose(run(join(prefix, tail), image)["features"], wanted, rtol=1e-6)


def test_the_last_features_alone(backbone: Backbone) -> None:
    image = picture(backbone.facts.size_px)
    last = backbone.facts.columns(("last",))
    wanted = run(backbone.graph, image)[0][:, last]
    np.testing.assert_allclose(run(only_last(backbone.graph), image)[0], wanted, rtol=1e-6)
    cuts = find_cuts(backbone.graph, backbone.facts.blocks)
    for cut in (cuts[0], cuts[9]):
        prefix, tail = split_at(backbone.graph, cut, last=True)
        assert len(prefix.outputs) == 1
        np.testing.assert_allclose(run(join(prefix, tail), image)["features"], wanted, rtol=1e-6)
        assert {n.get_friendly_name() for n in tail.get_ordered_ops()} - {"activation"} & set(
            depths(backbone.graph)
        )


def test_the_cuts_go_down_the_network(backbone: Backbone) -> None:
    cuts = find_cuts(backbone.graph, backbone.facts.blocks)
    for above, below in itertools.pairwise(cuts):
        assert above.tail_share > below.tail_share
        assert above.early < below.early
        assert above.node < below.node
    assert 0.9 < cuts[0].tail_share < 1
    assert 0 < cuts[-1].tail_share < 0.1
    assert cuts[1].bytes_a_view == 2 * np.prod(cuts[1].shape) + 4 * 32


def test_what_may_be_cut_is_only_what_all_goes_through() -> None:
    """Two branches side by side: between them there is no cut; the share is of the work, counted by hand."""
    image = op.parameter([1, 8, 8, 3], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    x = op.transpose(op.convert(image, ov.Type.f32), op.constant(np.array([0, 3, 1, 2])))
    random = np.random.default_rng(0)

    def conv(x: Any, outputs: int, side: int) -> Any:
        kernel = op.constant(random.random((outputs, x.output(0).shape[1], side, side)).astype(np.float32))
        border = [side // 2] * 2
        return op.relu(op.convolution(x, kernel, [1, 1], border, border, [1, 1]))

    first = conv(x, 4, 3)  # 8 · 8 · 4 · 27 = 6,912 multiply-adds
    left, right = conv(first, 4, 1), conv(first, 4, 1)  # 1,024 each
    both = op.add(left, right)
    last = conv(both, 8, 1)  # 2,048
    outputs = []
    for node, name in ((first, "a"), (left, "b"), (last, "last")):
        result = op.result(node.output(0))
        result.output(0).set_names({name})
        outputs.append(result)
    graph = graphs.pool(ov.Model(outputs, [image]), ["last"], rooted=["a", "b"])
    blocks = (Block("a", 0, 4), Block("b", 4, 8), Block("last", 8, 16))
    cuts = find_cuts(graph, blocks)
    assert [(cut.name, cut.shape, cut.early) for cut in cuts] == [
        ("35%", (4, 8, 8), 0),
        ("b", (4, 8, 8), 8),
    ]
    assert cuts[0].tail_share == pytest.approx(4096 / 11008)
    assert cuts[1].tail_share == pytest.approx(2048 / 11008)
    for cut in cuts:
        prefix, tail = split_at(graph, cut)
        np.testing.assert_allclose(
            run(join(prefix, tail), picture(8))[0], run(graph, picture(8))[0], rtol=1e-6
        )


def test_features_that_are_not_made_of_blocks(backbone: Backbone) -> None:
    with pytest.raises(TopworkError, match="can't be separated into blocks, so it can't be cut"):
        find_cuts(backbone.graph, backbone.facts.blocks[:3])


def test_a_cut_by_its_name(backbone: Backbone) -> None:
    cuts = find_cuts(backbone.graph, backbone.facts.blocks)
    assert cut_named(cuts, "block4") is cuts[4]
    with pytest.raises(InputError, match=r"unknown cut 'blok4'; did you mean 'block4'\? Known: 95%, block1"):
        cut_named(cuts, "blok4")


def test_depths_count_the_blocks_made_without_a_weight(backbone: Backbone) -> None:
    cut = find_cuts(backbone.graph, backbone.facts.blocks)[10]
    tail = split_at(backbone.graph, cut)[1]
    found = depths(tail)
    kernels = [
        found[node.get_friendly_name()]
        for node in tail.get_ordered_ops()
        if node.get_type_name() in ("Convolution", "GroupConvolution")
    ]
    # of each block, the wide layer and the filter go into its own features, the narrow one into the next block's
    assert kernels == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6]


@pytest.mark.parametrize("views", ["flip", "dihedral"])
def test_one_view_of_several(views: Any, backbone: Backbone) -> None:
    many = load_backbone("efficientnet-lite0", size_px=32, precision="f32", views=views)
    image = picture(32)
    alone = graphs.single_view(many.graph)
    np.testing.assert_array_equal(run(alone, image)[0], run(backbone.graph, image)[0])
    again = graphs.average_views(alone, views)
    np.testing.assert_array_equal(run(again, image)[0], run(many.graph, image)[0])
    np.testing.assert_array_equal(
        run(graphs.single_view(backbone.graph), image)[0], run(backbone.graph, image)[0]
    )


def test_other_weights_have_another_fingerprint(backbone: Backbone) -> None:
    same = retuned(backbone, backbone.graph, "whole")
    shaken = backbone.graph.clone()
    node = next(n for n in shaken.get_ordered_ops() if n.get_type_name() == "Constant" and n.data.size > 100)
    node.output(0).replace(op.constant(node.data * np.float32(1.01)).output(0))
    other = retuned(backbone, shaken, "whole")
    assert same.facts.fingerprint == backbone.facts.fingerprint != other.facts.fingerprint
    assert other.facts.blocks == (Block("last", 0, backbone.facts.width),)
    assert str(other.facts) == f"{backbone.facts}, tuned whole"


def test_bytes_of_a_view() -> None:
    assert Cut("a", (10, 4, 4), 7, 0.5, 3).bytes_a_view == 2 * 160 + 4 * 7


def test_one_pixel_convolutions_as_products_give_the_same(backbone: Backbone) -> None:
    from topwork.graphs.trainable.layer import GraphLayer

    tail = split_at(backbone.graph, find_cuts(backbone.graph, backbone.facts.blocks)[10])[1]
    x = np.random.default_rng(0).random((3, *tail.inputs[0].get_shape()[1:])).astype(np.float32)
    plain, product = GraphLayer(tail), GraphLayer(tail, products=True)
    kinds = [step.kind for step in product.plan.steps]
    assert kinds.count("PointwiseConvolution") == 13
    assert "Convolution" not in kinds
    # Two orders of summation: each is off by float32's rounding at the scale of the activations, up to about 6.
    np.testing.assert_allclose(product(x).numpy(), plain(x).numpy(), rtol=1e-4, atol=1e-3)
