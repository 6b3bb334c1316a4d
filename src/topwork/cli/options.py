"""Options derived from the recipe's settings, and options shared by several commands."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from topwork.errors import InputError
from topwork.recipe import Recipe, Setting, settings

Given = dict[str, Any]  # settings given on the command line, by path: {"backbone.size_px": 64}
Command = Callable[..., None]

Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print only JSON on standard output.",
        rich_help_panel="Output",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at an image that can't be read.")]
RecipeFile = Annotated[
    Path | None,
    typer.Option(help="A file with settings, such as a run's recipe.toml; options override it."),
]


class HelpWithHeadings(TyperCommand):
    """A command whose help lists its options under headings, in plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options under their headings."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            is_argument = parameter.param_type_name == "argument"
            heading = getattr(parameter, "rich_help_panel", None) or (
                "Arguments" if is_argument else "Options"
            )
            if record := parameter.get_help_record(ctx):
                sections.setdefault(heading, []).append(record)
        for heading, records in sorted(sections.items(), key=lambda section: section[0] == "Options"):
            with formatter.section(heading):
                formatter.write_dl(records)


def with_settings(*paths: str, default: str = "") -> Callable[[Command], Command]:
    """Replace a command's parameter `given: Given` by an option for each setting at `paths`.

    Args:
        paths: of settings, or of parts of a recipe, for all their settings.
        default: the text for each default in the help, if it is not the recipe's.
    """
    known = list(settings(Recipe()))
    chosen = [s for path in paths for s in known if f"{s.path}.".startswith(f"{path}.")]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**values: Any) -> None:
            options = {s.path: values.pop(s.name) for s in chosen}
            command(given={path: v for path, v in options.items() if v is not None}, **values)

        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for own in signature.parameters.values():
            made = [_parameter(s, default) for s in chosen]
            parameters += made if own.name == "given" else [own.replace(kind=own.KEYWORD_ONLY)]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _parameter(setting: Setting, default: str) -> inspect.Parameter:
    text = f"{setting.help.text}  [default: {default or _shown(setting)}]"
    option = typer.Option(None, _option(setting), help=text, rich_help_panel=setting.heading)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(setting.name, kind, default=option, annotation=setting.kind | None)


def _option(setting: Setting) -> str:
    name = setting.name.replace("_", "-")
    return setting.help.option or (f"--{name}/--no-{name}" if setting.kind is bool else f"--{name}")


def _shown(setting: Setting) -> str:
    if setting.value is None or isinstance(setting.value, bool):
        return "yes" if setting.value else setting.help.unset or "no"
    return f"{setting.value:g}" if isinstance(setting.value, float) else str(setting.value)


def over(base: Any, given: Given) -> Any:
    """A recipe, or a part of it, with the given settings."""
    parts: dict[str, Given] = {}
    for path, value in given.items():
        name, _, rest = path.partition(".")
        parts.setdefault(name, {})[rest] = value
    new = {name: v[""] if "" in v else over(getattr(base, name), v) for name, v in parts.items()}
    return dataclasses.replace(base, **new)


def recipe_from(file: Path | None, given: Given) -> Recipe:
    """The recipe in `file`, or the default one, with the given settings."""
    recipe: Recipe = over(Recipe.load(file) if file else Recipe(), given)
    return recipe


def refuse_unused(given: Given, recipe: Recipe) -> None:
    """Raise `InputError` for fine-tuning options without fine-tuning."""
    tuning = given.keys() - {"finetune.mode"}
    idle = [s for s in settings(recipe) if s.path in tuning and s.path.startswith("finetune.")]
    if idle and recipe.finetune.mode == "head":
        names = ", ".join(_option(s).partition("/")[0] for s in idle)
        raise InputError(
            f"{names}: only used with fine-tuning, which is off; add --finetune tail, full or auto, or omit "
            f"{'it' if len(idle) == 1 else 'them'}"
        )
