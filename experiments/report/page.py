"""Self-contained HTML pages: Markdown with its pictures inside, or a template of this folder."""

import base64
import re
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt


def render(template: str, **values: Any) -> str:
    """Fill a template of `templates/`; values are escaped unless the template marks them safe."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)


def picture_data(path: Path) -> str:
    """Encode a PNG as the value of an image's src."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def self_contained_html(text: str, folder: Path, title: str) -> str:
    """Convert Markdown to one HTML page that holds the PNGs of `folder` which it shows."""
    body = MarkdownIt("commonmark").enable("table").render(text)
    body = re.sub(
        r'src="([\w.-]+\.png)"', lambda found: f'src="{picture_data(folder / found.group(1))}"', body
    )
    return render("page.html.j2", title=title, body=body)
