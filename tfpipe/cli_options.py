"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run")]
RunDir = Annotated[
    str | None, typer.Option("--run-dir", metavar="DIR", help="directory of the run, or gs://…; default: runs/NAME")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=VALUE", help="override one setting; may be repeated")
]
Until = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="last stage to do")]
AllowOperator = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-operator", metavar="NAME", help="operator that the SavedModel may use; trust its origin; repeatable"
    ),
]
Redo = Annotated[str | None, typer.Option("--redo", metavar="STAGE", help="do this stage again even if it holds")]
