from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topwork.errors import InputError
from topwork.recipe import (
    BackboneRecipe,
    ClassWeight,
    FeatureChoice,
    FitChoice,
    HeadKind,
    HeadRecipe,
    Precision,
    Recipe,
    SplitRecipe,
    Views,
)

fractions = st.floats(0, 1, exclude_max=True)
recipes = st.builds(
    Recipe,
    backbone=st.builds(
        BackboneRecipe,
        handle=st.text(st.characters(exclude_categories=["Cs"])),
        size_px=st.none() | st.integers(32, 1024),
        fit=st.sampled_from(get_args(FitChoice)),
        views=st.sampled_from(get_args(Views)),
        precision=st.sampled_from(get_args(Precision)),
    ),
    split=st.builds(
        SplitRecipe,
        test=fractions,
        validation=fractions,
        seed=st.integers(-(2**63), 2**63 - 1),
        folds=st.integers(2, 1000),
        group_by=st.none() | st.just("patient"),
        copies=st.booleans(),
    ),
    head=st.builds(
        HeadRecipe,
        kind=st.sampled_from(get_args(HeadKind)),
        features=st.sampled_from(get_args(FeatureChoice)),
        class_weight=st.sampled_from(get_args(ClassWeight)),
        reject=fractions,
    ),
    strict=st.booleans(),
)


@given(recipes)
def test_toml_and_back_is_the_same_recipe(recipe: Recipe) -> None:
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@given(recipes)
def test_toml_names_every_setting_but_what_is_none(recipe: Recipe) -> None:
    import tomllib

    plain = dataclasses.asdict(recipe)
    if recipe.backbone.size_px is None:
        del plain["backbone"]["size_px"]
    if recipe.split.group_by is None:
        del plain["split"]["group_by"]
    if recipe.finetune.cut is None:
        del plain["finetune"]["cut"]
    assert tomllib.loads(recipe.to_toml()) == plain


def test_what_is_missing_keeps_its_default() -> None:
    assert Recipe.from_toml("") == Recipe()
    assert Recipe.from_toml("[head]\nkind = 'mlp'") == Recipe(head=HeadRecipe(kind="mlp"))
    assert Recipe.from_toml("[split]\ntest = 0").split.test == 0.0
    assert isinstance(Recipe.from_toml("[split]\ntest = 0").split.test, float)


def test_the_defaults() -> None:
    recipe = Recipe()
    assert (recipe.backbone.handle, recipe.backbone.size_px) == ("efficientnet-lite0", None)
    assert (recipe.split.test, recipe.split.validation, recipe.split.seed) == (0.2, 0.0, 0)
    assert (recipe.head.kind, recipe.head.features, recipe.head.class_weight) == ("linear", "auto", "none")
    assert not recipe.strict


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            "[head]\nknd = 'mlp'",
            "my.toml: head: unknown setting 'knd'; did you mean 'kind'? Known: class_weight,",
        ),
        (
            "[hed]\nkind = 'mlp'",
            "my.toml: unknown setting 'hed'; did you mean 'head'? Known: backbone, finetune, head, sp",
        ),
        ("head = 'mlp'", "my.toml: head: expected a table; got 'mlp'"),
        (
            "[head]\nkind = 'liner'",
            "my.toml: head: kind: unknown value 'liner'; did you mean 'linear'? Known: ce",
        ),
        ("[head]\nkind = 3", "my.toml: head: kind: unknown value '3'. Known: centroid, kernel, linear, mlp"),
        ("[split]\ntest = '0.2'", "my.toml: split: test: expected float; got '0.2'"),
        ("[split]\ntest = true", "my.toml: split: test: expected float; got True"),
        ("[split]\nseed = 1.5", "my.toml: split: seed: expected int; got 1.5"),
        ("[split]\nseed = true", "my.toml: split: seed: expected int; got True"),
        ("[backbone]\nsize_px = 'big'", "my.toml: backbone: size_px: expected int; got 'big'"),
        ("strict = 1", "my.toml: strict: expected bool; got 1"),
        ("[backbone]\nhandle = 7", "my.toml: backbone: handle: expected str; got 7"),
        ("[split]\nfolds = 1", "split.folds must be 2 or more; got 1"),
        ("[head", "my.toml: expected TOML; "),
    ],
)
def test_what_is_wrong_is_named_with_its_place(toml: str, message: str) -> None:
    with pytest.raises(InputError) as told:
        Recipe.from_toml(toml, name="my.toml")
    assert str(told.value).startswith(message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Recipe(backbone=BackboneRecipe(fit="strech")),
            "unknown fit 'strech'; did you mean 'stretch'? Known: auto, crop, stretch",
        ),
        (
            lambda: Recipe(head=HeadRecipe(class_weight="balance")),
            "unknown class_weight 'balance'; did you mean 'balanced'? Known: balanced, none",
        ),
        (lambda: Recipe(split=SplitRecipe(folds=0)), "split.folds must be 2 or more; got 0"),
    ],
)
def test_a_recipe_made_in_python_is_checked_too(make: object, message: str) -> None:
    with pytest.raises(InputError) as told:
        make()
    assert str(told.value) == message


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_recipes_of_earlier_versions_load(fit: str) -> None:
    assert Recipe.from_toml(f'[backbone]\nfit = "{fit}"\n').backbone.fit == fit
    assert Recipe.from_toml("").backbone.fit == "auto"


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(Recipe(strict=True).to_toml(), encoding="utf-8")
    assert Recipe.load(path) == Recipe(strict=True)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"recipe.toml: expected a recipe \(TOML\); it is not text"):
        Recipe.load(path)
    with pytest.raises(InputError, match=r"none.toml: expected a recipe \(TOML\); No such file or directory"):
        Recipe.load(tmp_path / "none.toml")
