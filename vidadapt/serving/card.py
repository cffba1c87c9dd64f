"""The model card of a published adapter: README.md with the hub's YAML front matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from vidadapt.console import printable
from vidadapt.data import DataPlan
from vidadapt.evaluation import METRICS, MULTI_LABEL_METRICS
from vidadapt.models import WITHOUT_FILE, is_hub_name
from vidadapt.weights import Published, of_weights

CARD = "README.md"


def model_card(
    about: Mapping[str, Any],
    plan: DataPlan,
    figures: Sequence[Mapping[str, Any]],
    repository: str,
    licence: str | None,
) -> str:
    """Write the text of a model card.

    Args:
        about: content of adapter.json.
        figures: from `pushing.figures_of`.
        repository: OWNER/NAME.
        licence: of the adapter, by the hub's name of it; None: none is named.
    """
    weights, backbone = about["model"]["weights"], about["model"]["backbone"]
    published = of_weights(weights, backbone)
    environment = markdown_templates("vidadapt.serving")
    environment.filters["cell"] = _cell
    return environment.get_template("card.md.j2").render(
        front_matter=_front_matter(about, plan, figures, repository, licence, published),
        repository=repository,
        about=about,
        plan=plan,
        figures=figures,
        metrics=MULTI_LABEL_METRICS if plan.multi_label else METRICS,
        trained=figures_of_training(about),
        published=published,
        whole=about["method"]["name"] == "full",
        named=_named(weights),
        shipped=weights in WITHOUT_FILE,
    )


def figures_of_training(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what adapter.json says of its epoch; lists, as of thresholds, are left out."""
    return {key: value for key, value in about["metrics"].items() if not isinstance(value, list)}


def markdown_templates(package: str) -> Environment:
    """Open the templates of a package that write Markdown: nothing is escaped, no name may lack."""
    return Environment(
        loader=PackageLoader(package),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        keep_trailing_newline=True,
    )


def _front_matter(
    about: Mapping[str, Any],
    plan: DataPlan,
    figures: Sequence[Mapping[str, Any]],
    repository: str,
    licence: str | None,
    published: Published | None,
) -> str:
    """Return the YAML that the hub reads, without its lines of dashes."""
    key, title = ("map", "mAP") if plan.multi_label else ("top1", "top-1")
    results = [
        EvalResult(
            task_type="video-classification",
            dataset_type=plan.dataset,
            dataset_name=f"{plan.dataset}, {figure['list']}",
            metric_type="mean_average_precision" if plan.multi_label else "accuracy",
            metric_name=f"{title}, {figure['views']}, {figure['fusion']} averaged",
            metric_value=round(figure[key], 2),
        )
        for figure in figures
    ]
    return ModelCardData(
        license=licence,
        library_name="vidadapt",
        pipeline_tag="video-classification",
        base_model=None if published is None else published.hub,
        tags=["vidadapt", "adapter", about["method"]["name"]],
        model_name=repository,
        eval_results=results or None,
    ).to_yaml()


def _named(weights: str | None) -> str:
    """Return what a user writes for the backbone's weights."""
    if weights is None:
        return "FILE"
    return weights if is_hub_name(weights) else printable(weights)


def _cell(value: Any, metric: str | None = None) -> str:
    """Format a value for a table; accuracies in per cent have two decimals."""
    if metric is not None:
        unit = (METRICS | MULTI_LABEL_METRICS)[metric].unit
        return f"{value:.2f}" if unit == "%" else f"{value:.4g}"
    return printable(str(value)).replace("|", "\\|")
