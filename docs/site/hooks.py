"""What MkDocs does not do by itself for these pages: called by `mkdocs build`, see mkdocs.yml."""

import re
from html import escape
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
SWAGGER = ROOT / "service" / "http" / "static"
# Pages that belong at the root of a repository, and what they are on the site.
OF_THE_ROOT = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}

# What makes a browser fetch something: links that a reader follows are no such thing.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc\s*=\s*["']?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?![^>]*\brel=["']?canonical)[^>]*\bhref\s*=\s*["']?(?:https?:)?//[^>]*>"""
    r"""|(?:url\(|@import)\s*["']?(?:https?:)?//[^)]*|<(?:pre|div)[^>]*class="mermaid""",
    re.IGNORECASE,
)


def on_config(config: MkDocsConfig) -> None:
    """Put every decision into the navigation, in order, behind the page about decisions."""
    pages = sorted(Path(config.docs_dir, "adr").glob("[0-9]*.md"))
    decisions = {"Decisions": ["adr/README.md", *(f"adr/{page.name}" for page in pages)]}
    config.nav = [*(config.nav or []), decisions]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages of the root, and the bundled Swagger UI."""
    for name, there in OF_THE_ROOT.items():
        files.append(File.generated(config, there, content=from_root((ROOT / name).read_text())))
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        files.append(File.generated(config, name, abs_src_path=str(SWAGGER / name)))


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Draw the plan of the rooms; start Swagger UI on its page."""
    if page.file.src_uri == "openapi.md":
        return markdown + swagger()
    return re.sub(r"```mermaid\n(.*?)```", lambda block: plan(block[1]), markdown, flags=re.DOTALL)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would ask another host for anything.

    Raises:
        PluginError: a page or a style sheet does, or leaves a diagram to a script from elsewhere.
    """
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in {".html", ".css"} and (found := _FETCHED.search(path.read_text())):
            raise PluginError(f"{path}: loads from another host: {found[0][:200]}")


def from_root(text: str) -> str:
    """A page of the root with the links that it has among the docs."""
    text = text.replace("](docs/", "](")
    for name, there in OF_THE_ROOT.items():
        text = text.replace(f"]({name}", f"]({there}")
    return text


def swagger() -> str:
    """Swagger UI on docs/openapi.json, which stands in the page: a file may not fetch another."""
    schema = (ROOT / "docs" / "openapi.json").read_text().replace("</", "<\\/")
    return f"""
<link rel="stylesheet" href="swagger-ui.css">
<div id="openapi"></div>
<script src="swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({{
  spec: {" ".join(schema.split())}, dom_id: "#openapi", layout: "BaseLayout", validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis], supportedSubmitMethods: [], docExpansion: "list",
}});
</script>
"""


def plan(source: str) -> str:
    """An SVG of packages side by side, the layers of each from top to bottom, from mermaid."""
    width, height, gap = 290, 30, 14
    parts: list[str] = []
    deepest = 0
    for column, (name, body) in enumerate(
        re.findall(r"subgraph (\w+)\n(.*?)\n  end", source, re.DOTALL)
    ):
        x = column * (width + 50)
        parts.append(f'<text class="package" x="{x + width // 2}" y="20">{name}</text>')
        if column:
            parts.append(f'<path d="M{x - 95} 15 h60" marker-end="url(#tip)"/>')
        layers = re.findall(r'\["([^"]+)"\]', body)
        for row, layer in enumerate(layers):
            y = 36 + row * (height + gap)
            parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4"/>')
            text = escape(layer)
            parts.append(f'<text x="{x + width // 2}" y="{y + 20}">{text}</text>')
            if row:
                parts.append(f'<path d="M{x + width // 2} {y - gap} v{gap}"/>')
        deepest = max(deepest, len(layers))
    tip = '<marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
    size = f"{3 * width + 104} {40 + deepest * (height + gap)}"
    return (
        f'<figure class="plan"><svg viewBox="-2 0 {size}" '
        f'role="img" aria-label="packages and their layers"><defs>{tip}<path d="M0 0 L8 4 L0 8"/>'
        f"</marker></defs>{''.join(parts)}</svg></figure>\n"
    )
