"""The pictures of docs/report.md: ``python -m tests.browser.pictures docs`` takes them anew."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.chromium import chromium
from tests.report_runs import served_log

from llmbuffer.report import read_report


def take(folder: Path) -> list[Path]:
    """Write ``report-light.png`` and ``report-dark.png``: the log of a faulty program, with one break opened."""
    pictures = []
    with tempfile.TemporaryDirectory() as work, chromium(Path(work, "profile")) as page:
        log, shown = Path(work, "requests.jsonl"), Path(work, "report.html")
        served_log(log)
        shown.write_text(read_report(log, title="A support agent").html(), "utf-8")
        for name, dark in (("light", False), ("dark", True)):
            page.open(shown, width=960, height=1180, dark=dark)
            page.click("a.lb-mark[href='#b13'] circle")
            page.run("document.activeElement.blur(); scrollTo(0, 0)")
            pictures.append(folder / f"report-{name}.png")
            page.picture(pictures[-1])
    return pictures


if __name__ == "__main__":
    for picture in take(Path(sys.argv[1])):
        print(picture, picture.stat().st_size, "bytes")
