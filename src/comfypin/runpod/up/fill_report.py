"""The words between a pod that fills a volume and whoever reads its log: one line of JSON after a mark. Pure."""

import json
from dataclasses import dataclass

_MARK = "comfypin-fill "


@dataclass(frozen=True, slots=True, kw_only=True)
class FillNews:
    """One line of the pod: a phase that ended, the whole that ended, or why it did not."""

    phase: str = ""
    seconds: float = 0.0
    detail: str = ""
    filled: str = ""
    failed: str = ""


def fill_line(news: FillNews) -> str:
    """Return the line for the log."""
    facts = {
        "phase": news.phase,
        "seconds": round(news.seconds, 1),
        "detail": news.detail,
        "filled": news.filled,
        "failed": news.failed,
    }
    return _MARK + json.dumps({fact_name: value for fact_name, value in facts.items() if value})


def parse_fill_line(line: str) -> FillNews | None:
    """Return what a line of the log says, None for any other line."""
    _, mark, json_text = line.partition(_MARK)
    if not mark:
        return None
    try:
        document = json.loads(json_text)
        return FillNews(
            phase=str(document.get("phase", "")),
            seconds=float(document.get("seconds", 0.0)),
            detail=str(document.get("detail", "")),
            filled=str(document.get("filled", "")),
            failed=str(document.get("failed", "")),
        )
    except (ValueError, AttributeError, TypeError):
        return None
