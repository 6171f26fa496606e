"""The contact sheet: one page with all figures of a folder, and the claims."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from .claims import Judged
from .config import Material
from .registry import FIGURES

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 75rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.sheet { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; padding: .75rem; border: 1px solid var(--line); border-radius: .5rem; }
img { width: 100%; height: auto; background: white; }
figcaption { font-size: .9rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; overflow-wrap: normal; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); }
.data { padding: .5rem .75rem; background: var(--soft); border-radius: .5rem; }
""".strip()


def contact_sheet(manifests: Mapping[str, Mapping[str, Any]], judged: Sequence[Judged], material: Material) -> str:
    """HTML with relative links; `manifests` are those of the finished figures, by name."""
    say = html.escape
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>Reproduced figures · {say(material.heading())}</title><style>{_STYLE}</style></head><body>",
        "<h1>The experiments of “How Sampling Shapes LLM Alignment”, reproduced</h1>",
        f'<p class="data"><strong>Data:</strong> {say(material.heading())}: {len(material.all):,} matrices, '
        f"{len(material.cyclic):,} cyclic, {len(material.st):,} strongly transitive.</p>",
        '<p><a href="claims.md">claims.md</a> · <a href="claims.csv">claims.csv</a> · '
        '<a href="run.json">configuration</a></p>',
    ]
    for family in dict.fromkeys(figure.family for figure in FIGURES.values()):
        names = [name for name, figure in FIGURES.items() if figure.family == family and name in manifests]
        if not names:
            continue
        parts.append(f"<h2>{say(family.capitalize())}</h2>\n<div class=sheet>")
        for name in names:
            figure, words, file = FIGURES[name], manifests[name]["words"], f"{name}.{material.tag()}"
            alt = say(f"{figure.title}. {words}", quote=True)
            parts.append(
                f'<figure id="{name}"><a href="figures/{file}.png"><img src="figures/{file}.png" alt="{alt}" '
                f'loading="lazy"></a><figcaption><strong>{say(figure.title)}</strong> · {say(material.heading())} '
                f"(paper: {say(figure.paper)})<br>"
                f'{say(words)}.<br><a href="figures/{file}.pdf">PDF</a> · <a href="tables/{file}.csv">numbers</a>'
                "</figcaption></figure>"
            )
        parts.append("</div>")
    parts.append("<h2>Claims</h2>\n<div class=table><table><thead><tr>")
    parts.append(
        "".join(f"<th>{word}</th>" for word in ("claim", "evidence", "verdict", "figure")) + "</tr></thead><tbody>"
    )
    for item in judged:
        name = item.claim.figure
        link = f'<a href="#{name}">{name}</a>' if name in manifests else name
        cells = (say(item.claim.says), say(item.evidence), f"<strong>{say(item.verdict)}</strong>", link)
        parts.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    parts.append("</tbody></table></div></body></html>")
    return "\n".join(parts) + "\n"
